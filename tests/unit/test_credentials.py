"""Tokens: their sources and their renewal; nothing shows their text."""

from __future__ import annotations

import base64
import copy
import json
import logging
import os
import pickle
import re
import threading
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokens import MARK, make_token

from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import BearerDiscovery, StaticToken, TokenFile, TokenSource
from eaf_inference.auth.tls import TlsFiles
from eaf_inference.auth.token import Token, describe_expiry
from eaf_inference.connecting import connect
from eaf_inference.errors import ConfigurationError

NAME = f"bt_u{os.geteuid()}"
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
claims = st.dictionaries(st.sampled_from(["sub", "iat", "exp"]), json_like)


def jwt(payload: bytes | dict) -> str:
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return f"{MARK}.{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{MARK}"


class Listed(TokenSource):
    """A source that returns values in order, repeats the last one, and counts readings."""

    def __init__(self, *things: Token | ConfigurationError | None) -> None:
        self.things = list(things)
        self.reads = 0

    def read(self) -> Token | None:
        thing = self.things[min(self.reads, len(self.things) - 1)]
        self.reads += 1
        if isinstance(thing, ConfigurationError):
            raise thing
        return thing

    def __repr__(self) -> str:
        return "a list"


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def token(name: str, *, issued: float = 0.0, expires: float | None = 1000.0) -> Token:
    return Token(jwt({"sub": name, "iat": issued} | ({} if expires is None else {"exp": expires})))


def report_of(error: BaseException) -> str:
    """Return the traceback with all variables except the test's own, which hold the token."""
    ours = error.with_traceback(error.__traceback__.tb_next)
    return "".join(traceback.TracebackException.from_exception(ours, capture_locals=True).format())


def test_a_jwts_claims_are_read_unverified():
    made = Token(f" {jwt({'sub': 'alice', 'iat': 5, 'exp': 7.5})}\n")
    assert (made.user, made.issued_at, made.expires_at) == ("alice", 5.0, 7.5)
    assert str.__eq__(made.authorization, f"Bearer {jwt({'sub': 'alice', 'iat': 5, 'exp': 7.5})}")
    assert made == Token(jwt({"sub": "alice", "iat": 5, "exp": 7.5}))
    assert len({made, Token(jwt({"sub": "alice", "iat": 5, "exp": 7.5})), Token("other")}) == 2


@pytest.mark.parametrize(
    "text", ["opaque", "a.b", "a.!.c".replace("!", "_"), "a.e30.c.d", jwt(b"[1]"), jwt(b"{"), jwt(b"\xff")]
)
def test_an_opaque_token_has_no_user_and_no_expiry(text):
    made = Token(text)
    assert (made.user, made.issued_at, made.expires_at) == (None, None, None)


@given(st.one_of(claims.map(jwt), json_like.map(lambda data: jwt(json.dumps(data).encode())), st.binary().map(jwt)))
def test_a_hostile_jwt_yields_claims_of_the_right_types(text):
    made = Token(text)
    assert made.user is None or isinstance(made.user, str)
    for moment in (made.issued_at, made.expires_at):
        assert moment is None or abs(moment) < 1e12
    assert isinstance(made.renewal_due(0.0), bool)
    assert describe_expiry(made.expires_at)
    assert MARK not in repr(made)


@given(st.text(max_size=30) | st.text("aZ0.-_~+/= \n", max_size=30))
def test_any_text_is_a_token_or_a_configuration_error(text):
    try:
        made = Token(text)
    except ConfigurationError:
        return
    assert str.encode(made.authorization, "ascii").startswith(b"Bearer ")


@pytest.mark.parametrize("text", ["", "two words", "a\nb", "ünicode", "=", "a=b", "x" * (64 * 1024 + 1)])
def test_an_invalid_bearer_token_is_rejected_and_not_shown(text):
    with pytest.raises(ConfigurationError, match=r"not a bearer token \(RFC 6750") as caught:
        Token(text)
    assert len(text) < 2 or text not in str(caught.value)


def test_nothing_shows_a_token(caplog):
    text = make_token()
    made = Token(text)
    credentials = Credentials(StaticToken(text))
    credentials.token()
    shown = []
    for secret in (made, made.authorization, StaticToken(text), credentials):
        shown += [repr(secret), str(secret), f"{secret}", f"{secret!s:>9}", f"{secret:}", "%s %r" % (secret, secret)]  # noqa: UP031
        shown += [repr([secret]), repr({"a": secret}), ascii(secret)]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("token %s, header %r, %s", made, made.authorization, [credentials])
    shown += [caplog.text]
    try:
        _fail_with(made)
    except ZeroDivisionError as error:
        shown.append(report_of(error))
    assert "header = <secret>" in "".join(shown)
    assert not [each for each in shown if MARK in each]
    with pytest.raises(TypeError):
        vars(made)


def _fail_with(secret: Token) -> None:
    header = secret.authorization
    assert header
    raise ZeroDivisionError


@pytest.mark.parametrize("name", ["token", "header", "source"])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_token_cannot_be_pickled(name, way):
    source = StaticToken(make_token())
    secret = {"token": source.read(), "header": source.read().authorization, "source": [source]}[name]
    if name == "source" and way is copy.copy:
        secret = source.read()
    with pytest.raises(TypeError, match="A token cannot be pickled"):
        way(secret)


@pytest.mark.parametrize("place", ["BEARER_TOKEN", "BEARER_TOKEN_FILE", "the caller"])
def test_a_traceback_with_variables_shows_no_invalid_token(place, tmp_path):
    (tmp_path / "token").write_text(f"Bearer {MARK}")
    environment = {place: f"Bearer {MARK}" if place == "BEARER_TOKEN" else str(tmp_path / "token")}
    try:
        if place == "the caller":
            StaticToken(f"Bearer {MARK}")
        BearerDiscovery(environment).read()
    except ConfigurationError as error:
        report = report_of(error)
    assert "text = <secret>" in report
    assert MARK not in report


def places(tmp_path: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """An environment with every place of WLCG discovery in a temporary directory."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    files = {"file": tmp_path / "named", "runtime": runtime / NAME}
    return {"BEARER_TOKEN_FILE": str(files["file"]), "XDG_RUNTIME_DIR": str(runtime)}, files


def found_in(environment) -> str | None:
    made = BearerDiscovery(environment).read()
    return made.user if made else None


def test_wlcg_discovery_tries_its_places_in_order(tmp_path):
    environment, files = places(tmp_path)
    files["runtime"].write_text(jwt({"sub": "runtime"}))
    assert found_in(environment) == "runtime"
    files["file"].write_text(f"\n\t {jwt({'sub': 'file'})} \r\n\v\f")
    assert found_in(environment) == "file"
    environment["BEARER_TOKEN"] = f" {jwt({'sub': 'variable'})}\n"
    assert found_in(environment) == "variable"


def test_wlcg_discovery_skips_an_empty_place(tmp_path):
    environment, files = places(tmp_path)
    environment |= {"BEARER_TOKEN": " \t\n"}
    files["file"].write_text("  \n")
    files["runtime"].write_text(jwt({"sub": "runtime"}))
    assert found_in(environment) == "runtime"
    files["file"].unlink()
    assert found_in(environment) == "runtime"


@pytest.mark.parametrize("place", ["BEARER_TOKEN", "file", "runtime"])
def test_an_invalid_token_ends_discovery_and_is_not_shown(tmp_path, place):
    environment, files = places(tmp_path)
    files["runtime"].write_text(jwt({"sub": "runtime"}))
    if place == "BEARER_TOKEN":
        environment[place] = f"no token {MARK}"
    else:
        files[place].write_text(f"no token {MARK}")
    with pytest.raises(ConfigurationError) as caught:
        BearerDiscovery(environment).read()
    assert MARK not in str(caught.value)


def test_an_unreadable_token_file_ends_discovery_and_is_named(tmp_path):
    environment, files = places(tmp_path)
    files["file"].mkdir()
    with pytest.raises(ConfigurationError, match=f"cannot be read: .*{files['file'].name}"):
        BearerDiscovery(environment).read()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def strangers(path: Path) -> None:
    path.write_text(jwt({"sub": "mallory"}))
    os.chown(path, 65534, -1)


def writable_by_others(path: Path) -> None:
    path.write_text(jwt({"sub": "mallory"}))
    path.chmod(0o666)


def writable_by_the_group(path: Path) -> None:
    path.write_text(jwt({"sub": "mallory"}))
    path.chmod(0o660)


def endless(path: Path) -> None:
    path.write_text("a" * (64 * 1024 + 1))


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_text(jwt({"sub": "mallory"}))
    path.symlink_to(target)


PLANTED = {
    pipe: "it is not a regular file",
    Path.mkdir: "it is not a regular file",
    writable_by_others: r"others may write to it \(mode 0666\)",
    writable_by_the_group: r"others may write to it \(mode 0660\)",
    endless: "it is larger than 65536 bytes",
}
if os.geteuid() == 0:  # only root can give a file to another user
    PLANTED[strangers] = "it belongs to the user nobody"


@pytest.mark.parametrize(("plant", "why"), [*PLANTED.items(), (link, "it is a symbolic link")])
def test_discovery_ignores_a_planted_file_and_says_why(tmp_path, plant, why, caplog):
    environment, files = places(tmp_path)
    plant(files["runtime"])
    source = BearerDiscovery(environment)
    credentials = Credentials(source)
    source._files = lambda: [files["runtime"]]
    for _ in range(2):
        assert source.read() is None
    assert credentials.token() is None
    assert re.search(f"{files['runtime']} was ignored: {why}", credentials.trouble)
    assert len(caplog.records) == 1
    assert re.search(why, caplog.text)
    source._files = lambda: [files["runtime"], tmp_path / "next"]
    (tmp_path / "next").write_text(jwt({"sub": "alice"}))
    assert source.read().user == "alice"
    assert list(source.ignored) == [str(files["runtime"])]


@pytest.mark.parametrize(("plant", "why"), PLANTED.items())
@pytest.mark.parametrize("named", ["BEARER_TOKEN_FILE", "Facility.token_file"])
def test_an_untrusted_named_file_ends_discovery(tmp_path, plant, why, named):
    environment, files = places(tmp_path)
    files["runtime"].write_text(jwt({"sub": "runtime"}))
    plant(files["file"])
    source = BearerDiscovery(environment) if named == "BEARER_TOKEN_FILE" else TokenFile(files["file"])
    with pytest.raises(
        ConfigurationError, match=f"cannot be read: {files['file']}: {why}.*Expected a regular file with"
    ):
        source.read()


def test_a_token_file_may_be_a_kubernetes_mount(tmp_path):
    """Write a file as Kubernetes mounts it: root's, readable by all, behind two links."""
    environment, files = places(tmp_path)
    mounted = tmp_path / "..2026_11_28"
    mounted.mkdir()
    (mounted / "token").write_text(jwt({"sub": "mounted"}))
    (mounted / "token").chmod(0o644)
    (tmp_path / "..data").symlink_to(mounted.name)
    files["file"].symlink_to("..data/token")
    assert found_in(environment) == "mounted"


@pytest.mark.parametrize("plant", [pipe, strangers, writable_by_others])
def test_an_untrusted_grid_proxy_is_ignored_with_a_warning(tmp_path, plant, caplog):
    if plant is strangers and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    plant(tmp_path / "x509up")
    assert TlsFiles.find(ca=None, environment={"X509_USER_PROXY": str(tmp_path / "x509up")}) == TlsFiles()
    assert "going on without it: " in caplog.text


def test_a_pipe_instead_of_authorities_does_not_block(tmp_path):
    pipe(tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match=r"ca\.pem: it is not a regular file"):
        TlsFiles(ca=str(tmp_path / "ca.pem")).channel_credentials()


def test_wlcg_discovery_looks_in_tmp_last():
    assert BearerDiscovery({})._files() == [Path("/tmp") / NAME]  # noqa: S108  (the specification's place)


@pytest.mark.parametrize(("content", "why"), [(None, "does not exist"), (" \n", "is empty")])
def test_a_token_file_must_hold_a_token(tmp_path, content, why):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=f"The token file {path} {why}"):
        TokenFile(path).read()
    path.write_text("opaque")
    assert TokenFile(path).read() == Token("opaque")
    assert repr(TokenFile(path)) == f"token file {path}"


def test_the_path_of_a_token_file_is_not_taken_for_a_token(tmp_path):
    path = tmp_path / "token"
    path.write_text("opaque", encoding="ascii")
    with pytest.raises(ConfigurationError, match=r"is the path of a file\. Pass TokenFile\(path\)"):
        connect("grpc://127.0.0.1:1", token=str(path))


@pytest.mark.parametrize("url", [8001, 1.5, object()])
def test_a_url_of_another_type_is_refused(url):
    with pytest.raises(ConfigurationError, match=f"The URL is of type {type(url).__name__}. Expected a text"):
        connect(url)


@pytest.mark.parametrize(
    ("issued", "expires", "due"),
    [(0, 1000, 940), (0, 100, 80), (None, 1000, 940), (5000, 1000, 1000)],
)
def test_renewal_is_due_in_the_last_minute_or_fifth_of_a_tokens_life(issued, expires, due):
    made = Token(jwt({"exp": expires} | ({} if issued is None else {"iat": issued})))
    assert not made.renewal_due(due - 0.01)
    assert made.renewal_due(due)
    assert not Token("opaque").renewal_due(1e11)


@pytest.mark.parametrize(
    ("expires", "renewed", "words"),
    [
        (None, False, "no expiry known"),
        (90, False, "expires in 90 s"),
        (600, False, "expires in 10 min"),
        (-30, False, "expired 30 s ago"),
        (480, True, "renewed automatically, 8 min left"),
        (-180, True, "expired 3 min ago, renewed on next use"),
        (6 * 3600, False, "expires in 6 h"),
        (40 * 86400, False, "expires in 40 days"),
        (-4930783 * 60, False, "expired 9 years ago"),
        (9e11, False, "expires in more than 100 years"),
        (float("-inf"), False, "expired more than 100 years ago"),
    ],
)
def test_expiry_is_described_in_words(expires, renewed, words):
    assert describe_expiry(expires, now=0.0, renewed=renewed) == words


def test_a_renewing_source_is_described_as_such():
    assert Credentials(TokenFile("token")).renews
    assert not Credentials(StaticToken("opaque")).renews
    clock = Clock(950.0)
    found = Credentials(Listed(token("old"), token("new", expires=2000), ConfigurationError("gone")), clock=clock)
    found.token()
    assert not found.renews  # not known yet
    clock.now = 960.0
    assert found.token().user == "new"
    assert found.renews
    clock.now = 1990.0
    found.token()
    assert not found.renews  # the last reading failed


def test_a_source_is_read_again_only_when_renewal_is_due():
    clock, source = Clock(0.0), Listed(token("old"), token("new", issued=950, expires=2000))
    credentials = Credentials(source, clock=clock)
    assert [credentials.token().user for clock.now in (0.0, 500.0, 939.0)] == ["old"] * 3
    assert source.reads == 1
    assert [credentials.token().user for clock.now in (940.0, 950.0)] == ["new"] * 2
    assert source.reads == 2
    assert credentials.known.user == "new"


def test_a_source_without_a_younger_token_is_read_rarely():
    clock, source = Clock(990.0), Listed(token("old"))
    credentials = Credentials(source, clock=clock)
    assert [credentials.token().user for clock.now in (990.0, 990.1, 990.9)] == ["old"] * 3
    assert source.reads == 1
    clock.now = 991.1
    credentials.token()
    assert source.reads == 2
    clock.now = 985.0  # the clock was set back
    credentials.token()
    assert source.reads == 3


def test_a_source_without_a_token_is_read_again():
    clock = Clock(0.0)
    credentials = Credentials(Listed(None, token("late")), clock=clock)
    assert credentials.token() is None
    clock.now = 2.0
    assert credentials.token().user == "late"


def test_the_old_token_stays_if_the_source_loses_its_token():
    clock = Clock(950.0)
    credentials = Credentials(Listed(token("old"), None), clock=clock)
    assert [credentials.token().user for clock.now in (950.0, 952.0)] == ["old", "old"]


def test_threads_refused_at_the_same_time_share_one_reading():
    source = Listed(token("old"), token("new"))
    credentials = Credentials(source, clock=Clock(0.0))
    refused = credentials.token()
    together, answers = threading.Barrier(16), []

    def meet():
        together.wait(10)
        answers.append(credentials.renewed_after(refused))

    threads = [threading.Thread(target=meet) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == [True] * 16
    assert source.reads == 2
    assert credentials.token().user == "new"


def test_a_refusal_is_final_if_the_source_has_no_other_token():
    credentials = Credentials(Listed(token("only")), clock=Clock(0.0))
    assert credentials.renewed_after(credentials.token()) is False
    assert Credentials(Listed(None), clock=Clock(0.0)).renewed_after(None) is False


def test_the_old_token_stays_while_the_source_is_unreadable(caplog):
    clock = Clock(950.0)
    source = Listed(token("old"), ConfigurationError("half written"), token("new", expires=9000))
    credentials = Credentials(source, clock=clock)
    assert [credentials.token().user for clock.now in (950.0, 952.0, 954.0)] == ["old", "old", "new"]
    assert "could not be renewed from a list: half written" in caplog.text
    with pytest.raises(ConfigurationError, match="never"):
        Credentials(Listed(ConfigurationError("never"))).token()


def test_a_token_file_may_be_replaced(tmp_path, caplog):
    path, clock = tmp_path / "token", Clock(990.0)
    path.write_text(jwt({"sub": "old", "exp": 1000}))
    credentials = Credentials(TokenFile(path), clock=clock)
    assert credentials.token().user == "old"
    for broken in (path.unlink, lambda: path.write_text(""), lambda: path.write_text("half a tok\0")):
        broken()
        clock.now += 2
        assert credentials.token().user == "old"
    draft = tmp_path / "draft"
    draft.write_text(jwt({"sub": "new", "exp": 5000}))
    draft.replace(path)
    clock.now += 2
    assert credentials.token().user == "new"
    assert len(caplog.records) == 3
    assert MARK not in caplog.text


def test_the_grid_proxy_is_used_without_other_tls_files(tmp_path, caplog):
    proxy = tmp_path / "proxy.pem"
    proxy.write_text("-----BEGIN CERTIFICATE-----")
    environment = {"X509_USER_PROXY": str(proxy)}
    assert TlsFiles.find(ca="/ca.pem", environment=environment) == TlsFiles("/ca.pem", proxy, proxy)
    given_ones = TlsFiles.find(ca=None, certificate="/c.pem", key="/k.pem", environment=environment)
    assert given_ones == TlsFiles(None, Path("/c.pem"), Path("/k.pem"))
    assert TlsFiles.find(ca=None, certificate="/c.pem", environment={}).key == Path("/c.pem")
    assert TlsFiles.find(ca=None, environment={"X509_USER_PROXY": str(tmp_path / "none")}) == TlsFiles()
    assert "cannot be read; going on without it" in caplog.text


def test_an_error_names_the_invalid_tls_file(tmp_path):
    path = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match="authorities cannot be read: .*ca.pem.*Expected a PEM file"):
        TlsFiles(ca=path).channel_credentials()
    path.write_text("no PEM")
    with pytest.raises(ConfigurationError, match="The file of the client key, .*ca.pem, is not a PEM file. Expected"):
        TlsFiles(key=path).channel_credentials()
