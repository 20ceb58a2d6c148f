"""One HTTP client: bounded in time and size, and no other server or log gets what is sent."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import traceback

import pytest
from hostile_http import dripping, hostile_proxy, request_of, saying, serving

from eaf_inference._http import NotHttp, Reply, exchange, send
from eaf_inference._redact import SecretText

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def headers():
    return {"Authorization": SecretText("Bearer opaque")}


def ask(url, **options):
    return exchange(url, **{"headers": headers(), "timeout": 10.0, **options})


def test_a_reply_is_read_where_an_event_loop_is_running():
    async def cell(url):
        return ask(url), await send(url, headers=headers(), timeout=10.0)

    with saying(EMPTY) as url:
        assert asyncio.run(cell(url)) == (Reply(200, b""), Reply(200, b""))


def test_the_credential_is_sent_to_the_server_and_not_to_a_proxy(monkeypatch):
    requests = []

    def answer(connection):
        requests.append(request_of(connection))
        connection.sendall(EMPTY)

    with hostile_proxy(monkeypatch) as seen, serving(answer) as port:
        ask(f"http://127.0.0.1:{port}/token")
    assert seen == []
    assert b"\r\nAuthorization: Bearer opaque\r\n" in requests[0]


def test_a_redirect_is_not_followed():
    with saying(EMPTY) as elsewhere:
        reply = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n".encode()
        with saying(reply) as url:
            assert ask(url).status == 302


def test_a_body_is_bounded():
    with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"a" * 2000) as url:
        assert len(ask(url, largest=2000).body) == 2000
        with pytest.raises(OSError, match="larger than 1999 bytes"):
            ask(url, largest=1999)


def test_the_timeout_covers_the_whole_reply():
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b"a" * 999) as url:
        started = time.monotonic()
        with pytest.raises(OSError, match="no answer within 0.5 s"):
            ask(url, timeout=0.5)
        assert time.monotonic() - started < 20  # of fifty


def test_a_connection_is_closed_if_its_tls_handshake_times_out():
    closed = threading.Event()

    def answer(connection):
        while connection.recv(4096):
            pass
        closed.set()

    gc.disable()  # which would close it some day
    try:
        with serving(answer) as port:
            with pytest.raises(OSError, match="no answer within 0.5 s"):
                ask(f"https://127.0.0.1:{port}", timeout=0.5)
            assert closed.wait(10)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("reply", "kind", "why"),
    [
        (b"", OSError, "it closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", OSError, "it closed the connection"),
        (b"HTTP/1.1 999999 OK\r\n\r\n", NotHttp, "its answer is not HTTP"),
    ],
)
def test_an_incomplete_reply_is_told_apart_from_one_that_is_not_http(reply, kind, why):
    with saying(reply) as url, pytest.raises(OSError, match=why) as caught:
        ask(url)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host", "ftp://host is not an http or https address"),
        ("http://[::1", r"http://\[::1 is not the address of a server"),
        ("http://127.0.0.1:9", "Connection refused"),
    ],
)
def test_an_error_names_its_cause(url, why):
    with pytest.raises(OSError, match=f"^{why}$"):
        ask(url)


def test_a_header_that_http_does_not_allow_is_not_shown():
    with saying(EMPTY) as url, pytest.raises(OSError, match="^the request cannot be sent$") as caught:
        ask(url, headers={"Authorization": SecretText("Bearer opaque\r\nX: y")})
    assert "opaque" not in str(caught.value)


def test_a_request_is_not_logged_and_no_frame_of_an_error_holds_it(caplog):
    caplog.set_level(logging.DEBUG)
    with saying(EMPTY) as url:
        ask(url)
    with saying(b"") as url, pytest.raises(OSError, match="closed") as caught:
        ask(url)
    assert [record for record in caplog.records if record.name.startswith("http")] == []
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert {frame.name for frame in traceback.extract_tb(error.__traceback__)} <= {
        "test_a_request_is_not_logged_and_no_frame_of_an_error_holds_it",
        "ask",
        "exchange",
    }
