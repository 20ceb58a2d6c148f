"""One bounded HTTP request: in time, in size, in the places it may go.

Tornado's client, because the Jupyter server and every kernel have it already; the simple one, whatever the process
has configured, because it takes a limit for a body. Redirects are not followed, so that a bearer token stays where it
was sent, and proxies of the environment are not used.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from eaf_inference.errors import BadReply, ConfigurationError, InferenceError, NotAuthorized, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["Fetch", "check_url", "fetching"]

_LARGEST_BODY = 16 * 1024 * 1024  # bytes
_CONNECTIONS = 64  # at the same time


class Fetch(Protocol):
    """Ask one URL and return the body of its answer, or raise an `InferenceError` with a `reason`."""

    async def __call__(
        self,
        url: str,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        form: str | None = None,
    ) -> bytes:
        """GET, or POST where there is a form."""


@asynccontextmanager
async def fetching() -> AsyncIterator[Fetch]:
    """A `Fetch` that lives on this event loop until the block ends."""
    from tornado.httpclient import HTTPClientError
    from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError, SimpleAsyncHTTPClient

    client = SimpleAsyncHTTPClient(force_instance=True, max_clients=_CONNECTIONS, max_body_size=_LARGEST_BODY)

    async def fetch(
        url: str,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        form: str | None = None,
    ) -> bytes:
        try:
            response = await client.fetch(
                url,
                method="GET" if form is None else "POST",
                body=form,
                headers=dict(headers or {}),
                ssl_options=tls,
                connect_timeout=timeout,
                request_timeout=timeout,
                follow_redirects=False,
                decompress_response=False,
            )
        except HTTPTimeoutError:
            raise _failed(ServerUnavailable, url, f"no answer within {timeout:g} s") from None
        except HTTPStreamClosedError:
            raise _failed(ServerUnavailable, url, "it closed the connection, or its answer is too large") from None
        except HTTPClientError as error:
            if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise _failed(NotAuthorized, url, f"not authorised ({error.code})") from None
            raise _failed(ServerUnavailable, url, f"it answers {error.code} {_phrase(error.code)}".strip()) from None
        except ssl.SSLError as error:
            raise _failed(ServerUnavailable, url, f"TLS: {error.reason or error}") from None
        except OSError as error:
            raise _failed(ServerUnavailable, url, error.strerror or str(error)) from None
        except ValueError:
            raise _failed(BadReply, url, "its answer is not HTTP") from None
        return response.body

    try:
        yield fetch
    finally:
        client.close()


def check_url(url: str) -> str:
    """The URL, if it can be asked and shown.

    Raises
    ------
    ConfigurationError
        It is not http or https, names no host, or carries a password.
    """
    if "@" in url:  # the text may hold a password: it is not shown
        raise ConfigurationError(
            "A metrics URL cannot carry a user name or password. Expected http://host:port/path or https://…"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"The metrics URL {url!r} cannot be used. Expected http://host:port/path or https://…"
        )
    return url


def _failed(kind: type[InferenceError], url: str, why: str) -> InferenceError:
    error = kind(f"The metrics of {url} cannot be read: {why}.")
    error.reason = why
    return error


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""
