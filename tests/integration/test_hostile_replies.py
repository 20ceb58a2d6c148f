"""Hostile answers of a token service or Hub: malformed, endless, or repeating the secrets it was sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from urllib.parse import quote

import grpc
import pytest
from dask_facility import ONES
from edge_proxy import EdgeProxy, edge_proxy
from hostile_http import dripping, saying, serving
from jupyterhub.services.auth import HubAuth
from token_service import HUB_TOKEN, token_service
from tokens import MARK, make_token

import eaf_inference
from eaf_facility.hub.callers import Refusal, caller_of
from eaf_inference.auth.token_service import TokenService
from eaf_inference.dask import worker_plugin
from eaf_inference.dask.worker_plugin import Secret, fetch_token
from eaf_inference.discovery.hub_document import known_facility
from eaf_inference.errors import ConfigurationError, InferenceError, NotAuthorized, ServerUnavailable
from eaf_inference.metrics.http import make_fetch

HUB = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN}
OPAQUE = f"opaque{MARK}opaque"  # not recognisable as a token by its form
A_MINUTE = 1200  # bytes, at 20 per second
SLOW = {
    "status": b"HTTP/1.1 " + b"2" * A_MINUTE,
    "headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (A_MINUTE // 6),
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" * (A_MINUTE // 25),
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * A_MINUTE,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * (A_MINUTE // 6),
}


def as_http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("reply", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("ask", ["client", "scheduler"])
def test_a_dripping_token_service_is_abandoned_in_time(reply, ask, monkeypatch):
    monkeypatch.setattr(worker_plugin, "_ANSWER_WITHIN", 0.5)
    with dripping(reply) as url:
        client = TokenService(url, environment=HUB, timeout=0.5)
        read = {"client": client.read, "scheduler": lambda: fetch_token(url, Secret(HUB_TOKEN), None)}[ask]
        started = time.monotonic()
        with pytest.raises((ServerUnavailable, OSError, ValueError)):
            read()
        assert time.monotonic() - started < 20  # and not 60


@pytest.mark.parametrize("reply", SLOW.values(), ids=SLOW)
def test_dripping_metrics_are_abandoned_in_time(reply):
    async def ask(url):
        await make_fetch()(url, timeout=0.5)

    with dripping(reply) as url:
        started = time.monotonic()
        with pytest.raises(InferenceError):
            asyncio.run(ask(url))
        assert time.monotonic() - started < 20  # and not 60


def test_connect_keeps_its_timeout_with_a_slow_token_service(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with dripping(SLOW["headers"]) as url:
        monkeypatch.setenv("EAF_TOKEN_SERVICE", url)
        started = time.monotonic()
        with pytest.raises(ServerUnavailable, match="no answer within"):
            eaf_inference.connect(timeout=1)
        assert time.monotonic() - started < 20  # and not 120


MALFORMED = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "brackets": as_http(b"[" * 200_000),
    "braces": as_http(b'{"facility":' * 50_000),
    "large": as_http(b" " * 2_000_000),
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000,
    "a long line": b"HTTP/1.1 200 OK\r\na: " + b"b" * 200_000,
    "bytes": as_http(b"\xff\xfe"),
    "number": as_http(b"1" * 10_000),
    "overflow": as_http(b'{"facility": 1, "models": [], "at": 1' + b"0" * 400 + b"}"),
    "list": as_http(b'{"facility": [1], "access_token": [1], "models": [1], "at": 1}'),
}


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=MALFORMED)
def test_any_malformed_token_service_answer_is_a_typed_error(reply):
    with saying(reply) as url:
        service = TokenService(url, environment=HUB)
        for ask in (service.read, service.facility, lambda: service.usage("1d")):
            with pytest.raises(ServerUnavailable, match="token service http://127.0.0.1"):
                ask()
        with pytest.raises((OSError, ValueError)) as raised:
            fetch_token(url, Secret(HUB_TOKEN), None)
        assert MARK not in str(raised.value)


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=MALFORMED)
def test_no_malformed_hub_answer_lets_anybody_in(reply, caplog):
    async def ask(url):
        hub = HubAuth(api_url=url, access_scopes={"access:services"}, api_token="its own")  # noqa: S106
        try:
            return await caller_of(f"token {HUB_TOKEN}", hub, "us")
        finally:
            with contextlib.suppress(ImportError):  # JupyterHub 5 has no session
                from jupyterhub.httpclient import JupyterHubHTTPClient

                await JupyterHubHTTPClient.loop_instance().close()

    with saying(reply) as url, pytest.raises(Refusal) as raised:
        asyncio.run(ask(url))
    assert (raised.value.status, raised.value.error) == (503, "hub_unavailable")
    assert MARK not in str(raised.value)
    (line,) = [each.getMessage() for each in caplog.records if each.name == "eaf_facility.hub.callers"]
    assert line.startswith(f"JupyterHub, {url}: ")
    assert MARK not in line


@pytest.mark.parametrize(
    "settings",
    [
        *({name: value} for name in ("time_budget", "request_timeout") for value in (-1, float("nan"), 1e300, "1")),
        *({"max_in_flight": value} for value in (0, -5, 2**62, 1.5)),
        {"prometheus_window": 0},
        {"urls": ["grpc://127.0.0.1:1"] * 10_000},
        {"urls": [["grpc://127.0.0.1:1"]]},
        {"metrics_urls": ["http://127.0.0.1:1/"] * 10_000},
        {"documentation_url": "javascript:alert(1)"},
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_facility_document_with_an_invalid_value_is_a_typed_error(settings, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", HUB_TOKEN)
    with token_service({}) as service:
        service.facility = settings
        monkeypatch.setenv("EAF_TOKEN_SERVICE", service.url)
        error = known_facility().document.error
    assert isinstance(error, ConfigurationError)
    assert "facility document" in str(error)
    assert len(str(error)) < 1200


def repeated(secret: str):
    """Return texts in which a server repeats a secret, in various encodings."""
    wrapped = base64.b64encode(f"token {secret}".encode()).decode()
    return [f"who is {secret}?", f"[{quote(secret, safe='')}]", wrapped, secret.encode().hex(), "x" * 990 + secret]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("status", ["403 Forbidden", "500 Internal Server Error"])
def test_a_hub_token_repeated_by_the_token_service_is_not_shown(number, status, caplog):
    caplog.set_level(logging.DEBUG)
    said = repeated(HUB_TOKEN)[number]
    reply = as_http(json.dumps({"message": said}).encode(), f"{status} {HUB_TOKEN}")
    with saying(reply) as url:
        with pytest.raises(InferenceError) as raised:
            TokenService(url, environment=HUB).read()
        with pytest.raises(ValueError, match="it answers") as from_scheduler:
            fetch_token(url, Secret(HUB_TOKEN), None)
    shown = f"{raised.value!r} {raised.value.reason} {from_scheduler.value} {caplog.text}"
    assert "…" in shown
    for form in (MARK, MARK.encode().hex(), base64.b64encode(f"token {HUB_TOKEN}".encode()).decode()[12:28]):
        assert form not in shown


def test_a_hub_token_that_is_no_valid_header_is_not_shown():
    with serving(lambda connection: connection.recv(1)) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(ServerUnavailable) as raised:
            TokenService(url, environment={"JUPYTERHUB_API_TOKEN": f"{HUB_TOKEN}\nX: 1"}).read()
        with pytest.raises(ValueError, match="not HTTP") as from_scheduler:
            fetch_token(url, Secret(f"{HUB_TOKEN}\nX: 1"), None)
    assert MARK not in f"{raised.value} {from_scheduler.value}"


class Repeating(EdgeProxy):
    """Answers only discovery, refuses inferences, and repeats the token in the refusal."""

    say = 0

    def _enter(self, context, is_inference):
        shown = dict(context.invocation_metadata()).get("authorization", "")
        if not is_inference:
            return None
        token = shown.removeprefix("Bearer ")
        return grpc.StatusCode.PERMISSION_DENIED, repeated(token)[self.say], (("retry-after", token),)


@pytest.mark.parametrize("say", range(5))
@pytest.mark.parametrize("token", [make_token(), OPAQUE, f"ab{MARK}"], ids=["JWT", "opaque", "short"])
def test_a_token_repeated_by_triton_is_not_shown(zoo, token, say, caplog):
    caplog.set_level(logging.DEBUG)
    with edge_proxy(zoo.grpc.removeprefix("grpc://"), handler=Repeating) as (handler, port):
        handler.say = say
        with eaf_inference.connect(f"grpc://127.0.0.1:{port}", token=token) as triton:
            model = triton.model("sums")
            with pytest.raises(NotAuthorized) as raised:
                model(ONES)
    shown = f"{raised.value!r} {raised.value.reason} {caplog.text}"
    assert "…" in shown
    for form in (MARK, MARK.encode().hex(), base64.b64encode(f"token {token}".encode()).decode()[12:28]):
        assert form not in shown
