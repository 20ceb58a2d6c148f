"""One HTTP request and one gRPC call, each within a few seconds, with the time of the server's clock."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._http import Reply, exchange
from eaf_inference._text import printable
from eaf_inference.auth.tls import TlsFiles, tls_context
from eaf_inference.inference._grpc_workarounds import CHANNEL_OPTIONS
from eaf_inference.inference.reply import SERVICE

if TYPE_CHECKING:
    from eaf_inference.address import Address
    from eaf_inference.auth.token import Token

__all__ = ["OK", "SECONDS", "Answer", "call", "connects", "get"]

SECONDS = 3.0  # for each request
OK = "OK"


def get(url: str, ca: str | None = None) -> Reply:
    """Return the reply to GET.

    Raises
    ------
    OSError
        There is none.
    ConfigurationError
        The certificate authorities cannot be used.
    """
    return exchange(url, headers={}, timeout=SECONDS, tls=tls_context(url, ca))


def connects(address: Address) -> bool:
    """Return whether the port takes a connection, whatever it answers."""
    try:
        with socket.create_connection((address.host, address.port), SECONDS):
            return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a call: name of the gRPC status, its details, the reply, and the header Date."""

    status: str
    details: str = ""
    reply: bytes = b""
    date: str = ""


def call(
    address: Address, method: str, *, ca: str | None = None, token: Token | None = None, request: bytes = b""
) -> Answer:
    """Call a method of Triton's service once, and return the outcome whatever it is.

    Raises
    ------
    ConfigurationError
        The certificate authorities cannot be used.
    """
    import grpc

    options = [*CHANNEL_OPTIONS, ("grpc.enable_retries", 0)]
    channel: Any = (
        grpc.secure_channel(address.target, TlsFiles(ca).channel_credentials(), options)
        if address.tls
        else grpc.insecure_channel(address.target, options)
    )
    metadata = [("authorization", token.authorization)] if token else None
    with channel:
        asked = channel.unary_unary(f"/{SERVICE}/{method}").with_call
        try:
            reply, done = asked(request, timeout=SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            details = printable((error.details() or "").strip())[:300]
            return Answer(error.code().name, details, date=_date(error))
        return Answer(OK, "", reply, _date(done))


def _date(done: Any) -> str:
    headers = dict(done.initial_metadata() or ()) | dict(done.trailing_metadata() or ())
    return str(headers.get("date", ""))
