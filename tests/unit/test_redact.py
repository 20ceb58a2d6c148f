"""Text from other programs is shown shortened and without secrets."""

from __future__ import annotations

import base64
import gc
import pickle
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokens import MARK, make_token

from eaf_inference import errors
from eaf_inference._redact import SecretText, mask, redact
from eaf_inference.auth.sources import StaticToken

OPAQUE = f"opaque-{MARK}-opaque/+opaque"


@pytest.mark.parametrize(
    "text",
    [
        f"bad token {make_token()}.",
        f"authorization: Bearer {MARK}-opaque-and-long",
        f"authorization: basic {MARK}bG9uZw==",
        f"GET https://alice:{MARK}@host/path?a=1",
        f"POST /token?access_token={MARK}&x=1",
        "a" * 995 + make_token(),
        f"authorization: Negotiate {MARK}bG9uZw==",
        f"[('authorization', 'Unheard-of {MARK}')]",
        f'{{"Authorization": "token {MARK}"}}',
        f"x-api-key: {MARK}",
        f"X-Auth-Token={MARK}",
        f"Set-Cookie: session={MARK}; HttpOnly",
        f'{{"access_token": "{MARK}", "expires_in": 600}}',
        f"client_secret={MARK}",
        f"Basic {MARK}",
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text):
    assert MARK not in redact(text)
    assert "…" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "Use TLS (grpcs://…), or allow_insecure_token=True; WLCG bearer token discovery found no token.",
        "The token file /home/alice/bearer.token cannot be read: alice@example.org asked for https://host/a@b.",
        "Basic authentication failed. Expected the header Authorization: token, with that of your Hub.",
        "No authorization: ask the operators for a token. Pass a token instead: token=… or --token-file.",
        "UNAUTHENTICATED: Jwt is missing; the model's inputs are token_ids and attention_mask.",
    ],
)
def test_other_text_is_shown_unchanged(text):
    assert redact(text) == text


def test_a_long_text_is_shortened():
    assert redact("x" * 100_000) == "x" * 999 + "…"


def in_base64(before, text):
    return base64.b64encode(f"{before}{text} ".encode()).decode()


FORMS = {
    "as it is": lambda text: text,
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded in small letters": lambda text: quote(text, safe="").lower(),
    "hexadecimal": lambda text: text.encode().hex(),
    **{
        f"base64 behind {before!r}": lambda text, before=before: base64.b64encode(
            f"{before}{text} ".encode()
        ).decode()
        for before in ("", "u", "u:", "Bearer ")
    },
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "cut": lambda text: text[: len(text) - 3],
    "its end": lambda text: text[5:],
    "in lines": lambda text: f"{text[:16]}\n{text[16:]}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("text", [OPAQUE, make_token()], ids=["opaque", "JWT"])
def test_a_credential_of_this_process_is_masked_in_any_form(form, text):
    source = StaticToken(text)
    written = form(text)
    shown = mask(f"who is {written}?")
    middle = written[len(written) // 2 - 8 : len(written) // 2 + 8]
    assert middle not in shown
    assert "…" in shown
    assert shown.startswith("who is ")
    assert source.read() is not None


@pytest.mark.parametrize("name", ["JUPYTERHUB_API_TOKEN", "BEARER_TOKEN"])
def test_a_token_in_the_environment_is_not_shown(name, monkeypatch):
    monkeypatch.setenv(name, OPAQUE)
    assert mask(f"who is {OPAQUE}?") == "who is …?"


def test_a_discarded_credential_is_forgotten():
    source = StaticToken(OPAQUE)
    assert MARK not in mask(OPAQUE)
    del source
    gc.collect()
    assert mask(OPAQUE) == OPAQUE


def test_a_short_credential_masks_no_words():
    source = StaticToken("model")
    assert mask("the model of a model") == "the model of a model"
    assert source.read() is not None


def test_no_error_of_this_package_shows_a_credential():
    source = StaticToken(OPAQUE)
    for name in errors.__all__:
        error = getattr(errors, name)(f"who is {OPAQUE}?")
        assert str(error) == "who is …?"
        assert str(pickle.loads(pickle.dumps(error))) == "who is …?"  # noqa: S301
    assert source.read() is not None


@given(st.text(max_size=60), st.text(alphabet="ab/+=", min_size=6, max_size=40), st.text(max_size=60))
def test_a_secret_is_masked_in_any_surrounding_text(before, secret, after):
    held = SecretText(secret)
    assert secret not in mask(f"{before}{secret}{after}")
    assert held


@pytest.mark.timeout(60)  # it takes a second, or hours if a pattern backtracks
@pytest.mark.parametrize(
    "piece",
    ["token ", "eyJ-", "x-", "a-", "://a", "authorization:", "authorization=a,", "Bearer a", "aaaaaaaa", "cookie:"],
)
def test_a_hostile_text_is_masked_quickly(piece):
    held = SecretText("a" * 1000)
    redact(piece * (2_000_000 // len(piece)))
    assert held
