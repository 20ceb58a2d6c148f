"""What others wrote is shown without secrets and at a length that a screen can bear."""

from __future__ import annotations

import pytest
from tokens import MARK, make_token

from eaf_inference.words import sentence


@pytest.mark.parametrize(
    "text",
    [
        f"bad token {make_token()}.",
        f"authorization: Bearer {MARK}-opaque-and-long",
        f"authorization: basic {MARK}bG9uZw==",
        f"GET https://alice:{MARK}@host/path?a=1",
        f"POST /token?access_token={MARK}&x=1",
        "a" * 995 + make_token(),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text):
    assert MARK not in sentence(text)
    assert "…" in sentence(text)


@pytest.mark.parametrize(
    "text",
    [
        "Use TLS (grpcs://…), or allow_insecure_token=True; WLCG bearer token discovery found no token.",
        "The token file /home/alice/bearer.token cannot be read: alice@example.org asked for https://host/a@b.",
    ],
)
def test_everything_else_is_shown_as_it_is(text):
    assert sentence(text) == text


def test_a_long_text_is_clipped():
    assert sentence("x" * 100_000) == "x" * 999 + "…"
