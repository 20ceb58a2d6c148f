"""Credentials and an edge proxy that requires them: sent, renewed, refused, never shown."""

from __future__ import annotations

import time

import awkward as ak
import grpc
import numpy as np
import pytest
import trustme
from edge_proxy import edge_proxy
from rows import assert_undisturbed, chunks
from tokens import make_token

import eaf_inference
from eaf_inference import TokenFile
from eaf_inference.address import Address
from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import StaticToken
from eaf_inference.auth.tls import TlsFiles
from eaf_inference.errors import ConfigurationError, NoServerFound, NotAuthorized
from eaf_inference.inference.transport import Channel


@pytest.fixture
def enforcing(zoo):
    """An edge proxy that requires tokens, and its URL."""
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {"none-yet": 0.0}
        yield handler, f"grpc://127.0.0.1:{port}"


def replace(path, text):
    """Replace the file as a renewing agent does: it is never half-written."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


def test_a_token_file_replaced_during_a_run_is_read_again(enforcing, jagged, tmp_path):
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


def test_a_token_is_renewed_before_it_expires(enforcing, jagged, tmp_path):
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


def test_a_permanently_bad_token_causes_one_error_and_few_calls(enforcing, jagged, tmp_path):
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
        assert handler.refused <= 4  # the requests in flight, and one retry each
        handler.tokens = {bad: float("inf")}
        path.write_text(bad)
        assert_undisturbed(model(jagged), jagged)


def test_a_refusing_server_is_distinguished_from_an_absent_one(enforcing):
    handler, url = enforcing
    with pytest.raises(NotAuthorized, match="refuses your token: it has expired"):
        eaf_inference.connect(url, token=make_token())
    with pytest.raises(NotAuthorized):
        eaf_inference.connect(url)
    with pytest.raises(NoServerFound):
        eaf_inference.connect("grpc://127.0.0.1:1", token=make_token())


def test_no_token_is_sent_unencrypted_to_another_machine():
    with pytest.raises(ConfigurationError, match=r"would travel unencrypted to grpc://192\.0\.2\.1:8001"):
        eaf_inference.connect("grpc://192.0.2.1:8001", token=make_token())


def test_a_token_is_sent_unencrypted_if_that_is_allowed():
    address = Address.parse("grpc://192.0.2.1:8001")
    credentials = Credentials(StaticToken(make_token()))
    server = Channel(address, credentials, TlsFiles(), allow_insecure_token=True)
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


def test_tls_trusts_only_the_given_authority(zoo, authority, jagged, tmp_path):
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    token = make_token()
    with edge_proxy(zoo.grpc.removeprefix("grpc://"), credentials=credentials) as (handler, port):
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
    with edge_proxy(zoo.grpc.removeprefix("grpc://"), credentials=credentials) as (_, port):
        url = f"grpcs://localhost:{port}"
        with pytest.raises(NoServerFound):
            eaf_inference.connect(url, ca=ca)
        monkeypatch.setenv("X509_USER_PROXY", str(proxy))
        with eaf_inference.connect(url, ca=ca) as connection:
            np.testing.assert_array_equal(connection.model("sums")(jagged[:0]), np.zeros((0, 2)))
            assert_undisturbed(connection.model("sums")(jagged), jagged)
