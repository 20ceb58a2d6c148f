"""Requests for metrics: `eaf_inference._http` with this room's errors and its bounds."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from eaf_inference._http import NotHttp, send
from eaf_inference.errors import BadReply, ConfigurationError, InferenceError, NotAuthorized, ServerUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = ["Fetch", "check_url", "make_fetch"]

_LARGEST_BODY = 16 * 1024 * 1024  # bytes
_CONNECTIONS = 64  # at the same time


class Fetch(Protocol):
    """Fetch one URL and return the body of the answer, or raise an `InferenceError` with a `reason`."""

    async def __call__(
        self,
        url: str,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        form: str | None = None,
    ) -> bytes:
        """Send GET, or POST if there is a form."""


def make_fetch() -> Fetch:
    """Return a `Fetch` for one event loop, which sends a bounded number of requests at the same time."""
    connections = asyncio.Semaphore(_CONNECTIONS)

    async def fetch(
        url: str,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        form: str | None = None,
    ) -> bytes:
        headers = dict(headers or {})
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            async with connections:
                reply = await send(
                    url,
                    method="GET" if form is None else "POST",
                    headers=headers,
                    body=form,
                    timeout=timeout,
                    tls=tls,
                    largest=_LARGEST_BODY,
                )
        except NotHttp as error:
            raise _failed(BadReply, url, str(error)) from None
        except OSError as error:
            raise _failed(ServerUnavailable, url, str(error)) from None
        if reply.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise _failed(NotAuthorized, url, f"not authorised ({reply.status})")
        if not HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
            raise _failed(ServerUnavailable, url, f"it answers {reply.status} {_phrase(reply.status)}".strip())
        return reply.body

    return fetch


def check_url(url: str) -> str:
    """Return the URL if it can be fetched and shown.

    Raises
    ------
    ConfigurationError
        It is not http or https, has no host, or contains a password.
    """
    if "@" in url:  # not shown, because it may contain a password
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
