"""One HTTP request: sent to the named server alone, and answered within a time and a size.

The request goes through httpx's transport, without its client. So it uses no proxy of the environment and follows no
redirect, which would both show a credential to somebody else, and it is not logged: a client logs each request at
level INFO, and metrics are read every second. httpcore does not log it at level DEBUG either, because a server may
repeat the credential in its reply.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import ssl
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

__all__ = ["NotHttp", "Reply", "exchange", "send"]

_LARGEST = 1024 * 1024  # bytes
_quiet = ContextVar("_quiet", default=False)


def _is_logged(_: logging.LogRecord) -> bool:
    return not _quiet.get()


for _name in ("httpcore.connection", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_is_logged)


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply, whatever its status; `date` is the header with the time of its clock."""

    status: int
    body: bytes
    date: str = ""


class NotHttp(OSError):
    """The server's reply is not HTTP."""


def exchange(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str],
    body: str | None = None,
    timeout: float,
    tls: ssl.SSLContext | None = None,
    largest: int = _LARGEST,
) -> Reply:
    """Send one request and wait for the reply, also where an event loop is running.

    Parameters and errors are those of `send`.
    """
    import asyncio  # here and below, because importing the client should not import it

    reply: Future[Reply] = Future()

    def run() -> None:
        try:
            request = send(url, method=method, headers=headers, body=body, timeout=timeout, tls=tls, largest=largest)
            reply.set_result(asyncio.run(request))
        except Exception as error:  # noqa: BLE001  (raised in the thread that waits)
            reply.set_exception(error)

    threading.Thread(target=run, name="eaf-inference-http", daemon=True).start()
    try:
        return reply.result(timeout)
    except (FutureTimeoutError, TimeoutError):  # the look-up of a name cannot be cancelled
        failure: OSError = _timed_out(timeout)
    except OSError as error:
        failure = error
    raise failure.with_traceback(None)  # the thread's frames hold the credential


async def send(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str],
    body: str | None = None,
    timeout: float,
    tls: ssl.SSLContext | None = None,
    largest: int = _LARGEST,
) -> Reply:
    """Send one request and wait for the reply.

    Parameters
    ----------
    url : str
        http or https.
    method : str
    headers : mapping
    body : str, optional
    timeout : float
        Seconds from the look-up of the name to the last byte, so that a server cannot delay the caller by sending a
        byte a second.
    tls : ssl.SSLContext, optional
        Verifies the server of an https URL; by default with the system's certificate authorities.
    largest : int
        Bytes of the reply's body.

    Raises
    ------
    NotHttp
        The reply is not HTTP.
    OSError
        There is no reply within the timeout, or it is larger than allowed.
    """
    import asyncio

    import httpx

    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise OSError(f"{url} is not the address of a server") from None
    if target.scheme not in ("http", "https") or not target.host:
        raise OSError(f"{url} is not an http or https address")
    try:
        request = httpx.Request(method, target, headers=dict(headers), content=body)
        return await asyncio.wait_for(_reply(request, tls, largest), timeout)
    except (asyncio.TimeoutError, TimeoutError, httpx.TimeoutException):
        failure: OSError = _timed_out(timeout)
    except httpx.RemoteProtocolError as error:
        ended = any(word in str(error) for word in ("disconnected", "peer closed"))
        failure = OSError("it closed the connection") if ended else NotHttp("its answer is not HTTP")
    except (httpx.LocalProtocolError, ValueError):  # a header that HTTP does not allow, which the error would show
        failure = OSError("the request cannot be sent")
    except (httpx.TransportError, OSError) as error:
        failure = OSError(_reason(error))
    raise failure  # outside of the handlers, so that no traceback leads to a frame that holds the credential


async def _reply(request: httpx.Request, tls: ssl.SSLContext | None, largest: int) -> Reply:
    import httpx

    if tls is None:
        tls = ssl.create_default_context() if request.url.scheme == "https" else _no_tls()
    streams: list[Any] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            streams.append(info["return_value"])

    request.extensions["trace"] = trace
    quiet = _quiet.set(True)
    try:
        async with httpx.AsyncHTTPTransport(verify=tls, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > largest:
                    raise OSError(f"its answer is larger than {largest} bytes")
            return Reply(response.status_code, bytes(body), response.headers.get("date", ""))
    finally:
        for stream in streams:  # httpcore leaves it open if the TLS handshake is interrupted
            await stream.aclose()
        _quiet.reset(quiet)


@functools.cache
def _no_tls() -> ssl.SSLContext:
    """Return an unused context, because httpx would make one for each request, which takes longer than the rest."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _timed_out(timeout: float) -> OSError:
    return OSError(f"no answer within {timeout:g} s")


def _reason(error: BaseException) -> str:
    """Return the operating system's words for the first cause of an error."""
    cause: BaseException | None = error
    while cause is not None:
        error = cause
        several = getattr(error, "exceptions", None)  # one for each of the host's addresses
        cause = several[0] if several else error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', None) or error.reason or error}"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error)
    return "the connection broke off"
