"""Tokens from the facility's token service, over HTTP."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import dask.config
import grpc
import pytest
import trustme
from dask_facility import ONES, THREES, eventually
from edge_proxy import edge_proxy
from token_service import HUB_TOKEN, token_service
from tokens import MARK

import eaf_inference
from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.token_service import TokenService
from eaf_inference.discovery import hub_document
from eaf_inference.errors import NotAuthorized, ServerUnavailable

HUB = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN}


@contextmanager
def answering(status: int, body: bytes, **headers: str):
    """A service that gives every request the same reply and records the requests."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815  (the base class's name)

        def log_message(self, *_):
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_hub_token_gets_a_token_and_another_after_a_refusal():
    with token_service({}) as service:
        credentials = Credentials(TokenService(service.url, environment=HUB))
        first = credentials.token()
        assert first.user == "alice"
        assert credentials.token() is first
        assert credentials.renewed_after(first)
        assert credentials.token().reveal() == service.given[1]
        assert MARK not in repr(credentials)


def test_a_shared_token_is_renewed_at_half_its_life():
    with token_service({}, lives=100) as service:
        now = [0.0]
        credentials = Credentials(TokenService(service.url, environment=HUB), clock=lambda: now[0])
        first = credentials.token()
        now[0] = first.issued_at + 44
        assert credentials.token() is first
        assert credentials.token(renew_fraction=0.4) is not first


def test_a_missing_hub_token_is_explained():
    with pytest.raises(NotAuthorized, match="JUPYTERHUB_API_TOKEN is not set"):
        TokenService("http://127.0.0.1:1", environment={}).read()


USED = {"model": "nap", "requests": 3, "inferences": 48, "failures": 1, "bytes_in": 900, "bytes_out": 800}
OWNED = {"model": "alice.m", "users": 2, "requests": 5, "inferences": 9, "failures": 0, "estimated": True}


def test_usage_is_read_if_the_service_publishes_it():
    told = {"since": "1d", "at": 1000.5, "models": [{**USED, "estimated": False, "of a newer service": 7}]}
    with token_service({}) as service:
        assert TokenService(service.url, environment=HUB).usage("1d") is None
        service.usage = told
        read = {"at": 1000.5, "models": [{**USED, "estimated": False}]}
        assert TokenService(service.url, environment=HUB).usage("1d") == {**read, "owned": []}  # an older service
        service.usage = {**told, "owned": [{**OWNED, "user": "bob"}]}
        assert TokenService(service.url, environment=HUB).usage("1d") == {**read, "owned": [OWNED]}


@pytest.mark.parametrize(
    ("status", "reply", "says"),
    [
        (503, {"message": "Prometheus is away."}, r"gives no usage: Prometheus is away\.$"),
        (200, {"at": 1, "models": [USED]}, "its reply holds no usage"),
        (200, {"at": 1, "models": [{**USED, "requests": "3", "estimated": False}]}, "its reply holds no usage"),
        (200, {"at": "now", "models": []}, "its reply holds no usage"),
        (200, {"at": 1, "models": [], "owned": [{**OWNED, "users": None}]}, "its reply holds no usage"),
        (200, [], "its reply holds no usage"),
    ],
)
def test_a_malformed_usage_reply_is_explained(status, reply, says):
    with token_service({}) as service:
        service.usage = (status, reply)
        with pytest.raises(ServerUnavailable, match=says):
            TokenService(service.url, environment=HUB).usage("1d")


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (403, b"no", NotAuthorized, "refuses your JupyterHub token \\(403"),
        (500, b"", ServerUnavailable, "gives no token: 500"),
        (200, b"<html>", ServerUnavailable, "holds no token"),
        (200, b"{}", ServerUnavailable, "holds no token"),
        (200, json.dumps({"access_token": "with white space"}).encode(), ServerUnavailable, "holds no token"),
        (200, json.dumps({"access_token": 7}).encode(), ServerUnavailable, "holds no token"),
    ],
)
def test_a_malformed_token_reply_is_explained(status, body, error, says):
    with answering(status, body) as (url, _), pytest.raises(error, match=says) as raised:
        TokenService(url, environment=HUB).read()
    assert MARK not in str(raised.value)


def test_the_hub_token_is_not_sent_to_a_redirect():
    with answering(200, b"{}") as (elsewhere, seen), answering(302, b"", Location=elsewhere) as (url, _):
        with pytest.raises(ServerUnavailable, match="it redirects, but your JupyterHub token is not sent elsewhere"):
            TokenService(url, environment=HUB).read()
        assert seen == []


def test_a_silent_or_absent_service_does_not_block_for_long():
    with token_service({}) as service:
        service.answers.clear()
        with pytest.raises(ServerUnavailable, match="no answer within"):
            TokenService(service.url, environment=HUB, timeout=0.2).read()
    with pytest.raises(ServerUnavailable, match="refused"):
        TokenService(service.url, environment=HUB).read()


def test_connect_reports_that_the_token_service_is_down(monkeypatch, tmp_path):
    (tmp_path / "jupyter").mkdir()
    settings = {"Facility": {"token_service": "http://127.0.0.1:1", "urls": ["grpc://127.0.0.1:1"]}}
    (tmp_path / "jupyter" / "eaf_inference_config.json").write_text(json.dumps(settings))
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with pytest.raises(ServerUnavailable, match="token service http://127.0.0.1:1 gives no token"):
        eaf_inference.connect()


def test_the_user_sees_the_services_own_message():
    said = json.dumps({"error": "not_authorised", "message": "not authorised for inference: ask us."}).encode()
    with (
        answering(403, said) as (url, _),
        pytest.raises(NotAuthorized, match=r"^not authorised for inference: ask us\.$"),
    ):
        TokenService(url, environment=HUB).read()
    said = json.dumps({"message": "Too many."}).encode()
    with answering(429, said) as (url, _), pytest.raises(ServerUnavailable, match=r"gives no token: Too many\.$"):
        TokenService(url, environment=HUB).read()


def test_explain_shows_the_facility_document_that_named_the_server(zoo, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with token_service({}) as service:
        monkeypatch.setenv("EAF_TOKEN_SERVICE", service.url)
        service.facility = {"urls": [zoo.grpc], "max_in_flight": 3}
        for _ in range(3):
            with eaf_inference.connect(explain=True) as triton:
                assert (triton.endpoint.source, triton.user) == ("Hub facility document", "alice")
                assert triton.limits.max_in_flight == 3
        assert service.documents == 1
    monkeypatch.setattr(hub_document, "_GOOD_FOR", 0.0)
    with pytest.raises(ServerUnavailable, match="gives no token") as raised:
        eaf_inference.connect()
    assert "refused" in str(raised.value.attempts)
    with eaf_inference.connect(token="opaque", explain=True) as triton:  # noqa: S106
        rows = [each for each in triton.attempts if each.source == "Hub facility document"]
        assert [bool(row.value) for row in rows] == [True, False], "what it said before, and why it says nothing now"
        assert "gives no facility document" in rows[1].outcome


def test_authorities_may_be_given_as_pem_text(zoo, monkeypatch, tmp_path):
    """Pass the authorities as a facility document does."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with (
        edge_proxy(zoo.grpc.removeprefix("grpc://"), credentials=credentials) as (_, port),
        token_service({}) as service,
    ):
        monkeypatch.setenv("EAF_TOKEN_SERVICE", service.url)
        service.facility = {
            "urls": [f"grpcs://127.0.0.1:{port}"],
            "ca": authority.cert_pem.bytes().decode(),
            "gateway_url": "http://gateway.example",
        }
        with (
            dask.config.set({"gateway.address": None, "gateway.auth.type": "basic"}),
            eaf_inference.connect() as triton,
        ):
            assert triton.names()
            assert dask.config.get("gateway.address") == "http://gateway.example"
            assert dask.config.get("gateway.auth.type") == "jupyterhub"


def test_a_call_waits_for_the_token_service_after_its_token_expires(zoo):
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {"nobody": 0.0}
        with token_service(handler.tokens, lives=1.0) as service:
            source = TokenService(service.url, environment=HUB)
            triton = eaf_inference.connect(f"grpc://127.0.0.1:{port}", token=source)
            model = triton.model("sums")
            assert model(ONES).tolist() == THREES.tolist()
        with triton, ThreadPoolExecutor(1) as pool:
            time.sleep(max(0.0, triton.credentials.known.expires_at - time.time()))  # no event announces the expiry
            refused = handler.refused
            waiting = pool.submit(model, ONES)
            eventually(lambda: handler.refused, lambda now: now > refused + 1)
            with token_service(handler.tokens, port=int(service.url.rpartition(":")[2])):
                assert waiting.result(60).tolist() == THREES.tolist()


def test_a_user_removed_from_the_group_learns_why_on_expiry(zoo):
    said = json.dumps({"message": "not authorised for inference: ask us."}).encode()
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.tokens = {"nobody": 0.0}
        with token_service(handler.tokens) as service:
            source = TokenService(service.url, environment=HUB)
            triton = eaf_inference.connect(f"grpc://127.0.0.1:{port}", token=source)
            model = triton.model("sums")
        handler.tokens = {"nobody": 0.0}  # the token has expired
        refused = pytest.raises(NotAuthorized, match="not authorised for inference: ask us")
        with triton, answering(403, said) as (source.url, _), refused:
            model(ONES)
