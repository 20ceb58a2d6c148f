"""Credentials against a door that enforces them: sent, renewed, refused, never shown."""

from __future__ import annotations

import time

import awkward as ak
import grpc
import numpy as np
import pytest
import trustme
from door import door
from test_faults import assert_undisturbed, chunks
from tokens import make_token

import eaf_inference
from eaf_inference import TokenFile
from eaf_inference.config import Address
from eaf_inference.credentials import Credentials, StaticToken
from eaf_inference.errors import ConfigurationError, NoServerFound, NotAuthorized
from eaf_inference.inference.transport import Server
from eaf_inference.tls import TlsFiles


@pytest.fixture
def enforcing(zoo):
    """A door that wants tokens, and its URL."""
    with door(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {"none-yet": 0.0}
        yield handler, f"grpc://127.0.0.1:{port}"


def replace(path, text):
    """As a renewing agent does it: the file is never half-written."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


def test_a_token_file_replaced_in_mid_run_is_read_again_without_an_error(enforcing, jagged, tmp_path):
    handler, url = enforcing
    path = tmp_path / "token"
    tokens = [make_token() for _ in range(4)]
    path.write_text(tokens[0])
    handler.tokens = {tokens[0]: float("inf")}
    with eaf_inference.connect(url, token=TokenFile(path)) as connection:
        model = connection.model("sums")

        def while_tokens_change():
            for number, chunk in enumerate(chunks(jagged)):
                if number in (8, 16, 24):
                    newest = tokens[number // 8]
                    replace(path, newest)
                    handler.tokens = {newest: float("inf")}
                yield chunk

        scores = ak.concatenate(list(model.map(while_tokens_change())))
    assert_undisturbed(scores, jagged)
    assert handler.seen >= set(tokens)
    assert handler.refused >= 3


def test_a_token_that_nears_its_expiry_is_replaced_before_the_server_refuses_it(enforcing, jagged, tmp_path):
    handler, url = enforcing
    path = tmp_path / "token"
    first, second = make_token(lives=4), make_token(lives=600)
    path.write_text(first)
    handler.tokens = {first: time.time() + 4, second: time.time() + 600}
    with eaf_inference.connect(url, token=TokenFile(path)) as connection:
        model = connection.model("sums")
        replace(path, second)

        def beyond_its_life():
            until = time.time() + 5
            while time.time() < until:
                yield jagged[:200]

        for scores in model.map(beyond_its_life()):
            assert_undisturbed(scores, jagged[:200])
        assert connection.user == "alice"
    assert second in handler.seen
    assert handler.refused == 0


def test_a_token_that_stays_bad_gives_one_error_and_no_storm(enforcing, jagged, tmp_path):
    handler, url = enforcing
    path = tmp_path / "token"
    good, bad = make_token(), make_token()
    path.write_text(good)
    handler.tokens = {good: float("inf")}
    with eaf_inference.connect(url, token=TokenFile(path)) as connection:
        model = connection.model("sums")
        model(jagged[:10])
        path.write_text(bad)
        handler.tokens = {"nobody's": float("inf")}
        with pytest.raises(NotAuthorized, match="refuses your token: it has expired. Get a new token"):
            model(jagged)
        assert handler.refused <= 4  # those in flight, and one more try each
        handler.tokens = {bad: float("inf")}
        path.write_text(bad)
        assert_undisturbed(model(jagged), jagged)


def test_a_server_that_refuses_is_told_from_one_that_is_not_there(enforcing):
    handler, url = enforcing
    with pytest.raises(NotAuthorized, match="refuses your token: it has expired"):
        eaf_inference.connect(url, token=make_token())
    with pytest.raises(NotAuthorized):
        eaf_inference.connect(url)
    with pytest.raises(NoServerFound):
        eaf_inference.connect("grpc://127.0.0.1:1", token=make_token())


def test_no_token_goes_over_an_unencrypted_channel_to_another_machine():
    with pytest.raises(ConfigurationError, match=r"would travel unencrypted to grpc://192\.0\.2\.1:8001"):
        eaf_inference.connect("grpc://192.0.2.1:8001", token=make_token())


def test_a_token_goes_unencrypted_where_that_is_allowed():
    address = Address.parse("grpc://192.0.2.1:8001")
    credentials = Credentials(StaticToken(make_token()))
    server = Server(address, credentials, TlsFiles(), allow_insecure_token=True)
    assert [key for key, _ in server.metadata(credentials.token())] == ["authorization"]
    server.close()


def test_a_token_of_wlcg_discovery_is_sent(enforcing, jagged, monkeypatch):
    handler, url = enforcing
    token = make_token("bob")
    monkeypatch.setenv("BEARER_TOKEN", f" {token}\n")
    handler.tokens = {token: float("inf")}
    with eaf_inference.connect(url) as connection:
        assert connection.user == "bob"
        assert_undisturbed(connection.model("sums")(jagged), jagged)


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


def test_tls_trusts_the_given_authority_and_no_other(zoo, authority, jagged, tmp_path):
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    token = make_token()
    with door(zoo.grpc.removeprefix("grpc://"), credentials=credentials) as (handler, port):
        handler.tokens = {token: float("inf")}
        url = f"grpcs://localhost:{port}"
        with eaf_inference.connect(url, token=token, ca=ca) as connection:
            assert_undisturbed(connection.model("sums")(jagged), jagged)
        with pytest.raises(NoServerFound, match="certificate is not trusted"):
            eaf_inference.connect(url, token=token)
        with pytest.raises(ConfigurationError, match="not a PEM file"):
            eaf_inference.connect(url, token=token, ca=__file__)


def test_a_grid_proxy_is_the_client_certificate(zoo, authority, jagged, tmp_path, monkeypatch):
    ca, proxy = tmp_path / "ca.pem", tmp_path / "x509up"
    authority.cert_pem.write_to_path(str(ca))
    server, client = authority.issue_cert("localhost"), authority.issue_cert("alice@example.org")
    client.private_key_and_cert_chain_pem.write_to_path(str(proxy))
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    with door(zoo.grpc.removeprefix("grpc://"), credentials=credentials) as (_, port):
        url = f"grpcs://localhost:{port}"
        with pytest.raises(NoServerFound):
            eaf_inference.connect(url, ca=ca)
        monkeypatch.setenv("X509_USER_PROXY", str(proxy))
        with eaf_inference.connect(url, ca=ca) as connection:
            np.testing.assert_array_equal(connection.model("sums")(jagged[:0]), np.zeros((0, 2)))
            assert_undisturbed(connection.model("sums")(jagged), jagged)
