"""gRPC calls to Envoy as no library would send them: any headers, and a body in any pieces."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager

from envoy_facility import SERVICE

_DATA, _HEADERS, _RESET, _SETTINGS, _GO_AWAY = 0, 1, 3, 4, 7  # kinds of frames
_END, _END_HEADERS = 1, 4  # flags


def message(content, flag=0):
    return bytes([flag]) + len(content).to_bytes(4) + content


@contextmanager
def raw_connection(server):
    """Connect by TLS and HTTP/2 without a library, to send what none would."""
    context = ssl.create_default_context(cadata=server.authority)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0))
        yield connection


def frame(kind, flags, stream, content=b""):
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


def literal(text):
    """Encode a header's name or value as HPACK does without compression."""
    data, size = text.encode(), b""
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest = len(data) - 127
    while rest > 127:
        size, rest = size + bytes([rest % 128 + 128]), rest // 128
    return b"\x7f" + size + bytes([rest]) + data


def send_raw(server, method, chunks, token, **headers):
    """Send a body in these chunks, each in a frame of its own, and wait until the call has ended."""
    path = f"{SERVICE}/{method}"
    chosen = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost", "te": "trailers"}
    chosen |= {"content-type": "application/grpc", "authorization": f"Bearer {token}"}
    chosen |= {name.replace("_", "-"): value for name, value in headers.items()}
    block = b"".join(b"\x00" + literal(name) + literal(value) for name, value in chosen.items() if value)
    with raw_connection(server) as connection:
        connection.sendall(frame(_HEADERS, _END_HEADERS, 1, block))
        for number, chunk in enumerate(chunks, 1):
            connection.sendall(frame(_DATA, _END if number == len(chunks) else 0, 1, chunk))
        reader = connection.makefile("rb")
        while head := reader.read(9):
            reader.read(int.from_bytes(head[:3]))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
            if kind in (_RESET, _GO_AWAY) or (stream == 1 and kind in (_DATA, _HEADERS) and flags & _END):
                return
