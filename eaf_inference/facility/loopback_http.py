"""One HTTP request to a server on this machine, whatever ``http_proxy`` says (urllib's answer would depend on it)."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from eaf_inference.facility.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OK", "ask"]

OK = 200


def ask(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, timeout: float = 5.0
) -> tuple[int | None, bytes]:
    """The status and the body of what answers; None for the status where nobody does."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
