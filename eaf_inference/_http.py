"""One HTTP request with a credential: sent to the named server alone, answered within a time and a size.

Proxies of the environment are not used and redirects are not followed: both would show the credential to somebody
else. The time covers everything, from the look-up of the name to the last byte, so that a server that sends a byte a
second keeps nobody waiting.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = ["LARGEST_REPLY", "Reply", "exchange"]

LARGEST_REPLY = 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer, whatever its status."""

    status: int
    body: bytes


def exchange(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str],
    timeout: float,
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """Send one request without a body, and wait for the answer.

    Parameters
    ----------
    url : str
        http or https.
    method : str
    headers : mapping
    timeout : float
        Seconds for all of it.
    tls : ssl.SSLContext, optional
        What an https URL is verified against.

    Raises
    ------
    OSError
        There is no answer, not within the timeout, it is no HTTP, or it is larger than `LARGEST_REPLY`.
    """
    connection, path = _prepared(url, timeout, tls)
    answer: Future[Reply] = Future()
    given_up = threading.Event()

    def run() -> None:
        try:
            connection.connect()
            if not given_up.is_set():
                answer.set_result(_talk(connection, method, path, headers))
        except Exception as error:  # noqa: BLE001  (it belongs to the thread that waits)
            answer.set_exception(error)
        finally:
            connection.close()

    threading.Thread(target=run, name="eaf-inference-http", daemon=True).start()
    try:
        return answer.result(timeout)
    except (FutureTimeoutError, TimeoutError):
        why = f"no answer within {timeout:g} s: timed out"
    except OSError as error:
        why = str(error.strerror or error)
    except (HTTPException, ValueError):  # ValueError: the address or a header cannot be sent
        why = "it cannot be asked, or its answer is not HTTP"
    finally:
        given_up.set()
        if (taken := connection.sock) is not None:  # a thread that reads from it ends
            with contextlib.suppress(OSError):
                socket.socket.shutdown(taken, socket.SHUT_RDWR)
    raise OSError(why)  # here, so that no traceback leads to the frames that hold the request


def _prepared(url: str, timeout: float, tls: ssl.SSLContext | None) -> tuple[HTTPConnection, str]:
    """A connection to the URL's host that is not made yet, and what to ask for there."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise OSError(f"{url} is not the address of a server") from error
    if parts.scheme not in ("http", "https") or not host:
        raise OSError(f"{url} is not an http or https address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        return HTTPSConnection(host, port, timeout=timeout, context=tls), path
    return HTTPConnection(host, port, timeout=timeout), path


def _talk(connection: HTTPConnection, method: str, path: str, headers: Mapping[str, str]) -> Reply:
    connection.request(method, path, headers=dict(headers))
    reply = connection.getresponse()
    body = reply.read(LARGEST_REPLY + 1)
    if len(body) > LARGEST_REPLY:
        raise OSError(f"its answer is larger than {LARGEST_REPLY} bytes")
    return Reply(reply.status, body)
