"""Tokens from the facility's token service, over HTTP."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from token_service import HUB_TOKEN, token_service
from tokens import MARK

import eaf_inference
from eaf_inference.credentials import Credentials
from eaf_inference.errors import NotAuthorized, ServerUnavailable
from eaf_inference.token_service import TokenService

HUB = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN}


@contextmanager
def answering(status: int, body: bytes, **headers: str):
    """A service that answers all alike, and notes what it was sent."""
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
            """It says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_whoever_holds_a_hub_token_gets_a_token_and_a_new_one_when_it_is_refused():
    with token_service({}) as service:
        credentials = Credentials(TokenService(service.url, environment=HUB))
        first = credentials.token()
        assert first.user == "alice"
        assert credentials.token() is first
        assert credentials.renewed_after(first)
        assert credentials.token().reveal() == service.given[1]
        assert MARK not in repr(credentials)


def test_half_of_a_tokens_life_is_enough_where_it_is_shared():
    with token_service({}, lives=100) as service:
        now = [0.0]
        credentials = Credentials(TokenService(service.url, environment=HUB), clock=lambda: now[0])
        first = credentials.token()
        now[0] = first.issued_at + 44
        assert credentials.token() is first
        assert credentials.token(spent=0.4) is not first


def test_without_a_hub_token_it_is_said_where_to_start_from():
    with pytest.raises(NotAuthorized, match="JUPYTERHUB_API_TOKEN is not set"):
        TokenService("http://127.0.0.1:1", environment={}).read()


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
def test_what_is_no_token_is_said_in_words(status, body, error, says):
    with answering(status, body) as (url, _), pytest.raises(error, match=says) as raised:
        TokenService(url, environment=HUB).read()
    assert MARK not in str(raised.value)


def test_the_hub_token_does_not_follow_a_redirection():
    with answering(200, b"{}") as (elsewhere, seen), answering(302, b"", Location=elsewhere) as (url, _):
        with pytest.raises(ServerUnavailable):
            TokenService(url, environment=HUB).read()
        assert seen
        assert HUB_TOKEN not in str(seen)


def test_a_service_that_is_silent_or_gone_keeps_nobody_for_long():
    with token_service({}) as service:
        service.answers.clear()
        with pytest.raises(ServerUnavailable, match="timed out"):
            TokenService(service.url, environment=HUB, timeout=0.2).read()
    with pytest.raises(ServerUnavailable, match="refused"):
        TokenService(service.url, environment=HUB).read()


def test_connect_says_that_the_token_service_is_down(monkeypatch, tmp_path):
    (tmp_path / "jupyter").mkdir()
    settings = {"Facility": {"token_service": "http://127.0.0.1:1", "urls": ["grpc://127.0.0.1:1"]}}
    (tmp_path / "jupyter" / "eaf_inference_config.json").write_text(json.dumps(settings))
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with pytest.raises(ServerUnavailable, match="token service http://127.0.0.1:1 gives no token"):
        eaf_inference.connect()
