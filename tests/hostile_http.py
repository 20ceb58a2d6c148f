"""Hostile HTTP servers: a proxy that records requests, and a server that sends its reply byte by byte."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from contextlib import contextmanager

_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@contextmanager
def serving(answer):
    """Call `answer` with each connection in a thread of its own; gives the port."""
    threads = []

    def run():
        with contextlib.suppress(OSError):  # the socket was closed
            while True:
                connection, _ = listening.accept()
                threads.append(threading.Thread(target=converse, args=(connection,)))
                threads[-1].start()

    def converse(connection):
        with connection, contextlib.suppress(OSError):
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=run)
        accepting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
    accepting.join()
    for thread in threads:
        thread.join(30)


def request_of(connection) -> bytes:
    """Read a request up to the end of its headers."""
    got = b""
    while b"\r\n\r\n" not in got and (more := connection.recv(4096)):
        got += more
    return got


@contextmanager
def hostile_proxy(patch):
    """Set all proxy variables to a proxy that poses as every server and asks for credentials; gives its requests."""
    seen = []

    def answer(connection):
        request = request_of(connection)
        seen.append(request)
        if request.startswith(b"CONNECT"):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            connection.settimeout(10)
            seen.append(connection.recv(4096))
        else:
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with serving(answer) as port:
        for name in list(os.environ):
            if name.lower() in ("no_proxy", "no_grpc_proxy"):
                patch.delenv(name)
        for name in _VARIABLES:
            patch.setenv(name, f"http://127.0.0.1:{port}")
            patch.setenv(name.upper(), f"http://127.0.0.1:{port}")
        yield seen


@contextmanager
def dripping(reply: bytes):
    """Serve a reply one byte at a time; gives the URL."""
    ended = threading.Event()

    def answer(connection):
        request_of(connection)
        for byte in reply:
            connection.sendall(bytes([byte]))
            if ended.wait(0.05):
                return

    with serving(answer) as port:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            ended.set()


@contextmanager
def saying(reply: bytes):
    """Serve the same reply to every request; gives the URL."""

    def answer(connection):
        request_of(connection)
        connection.sendall(reply)

    with serving(answer) as port:
        yield f"http://127.0.0.1:{port}"
