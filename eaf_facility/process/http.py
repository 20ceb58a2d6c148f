"""One HTTP request to a server on this machine, which may not listen yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_facility.process.ports import LOOPBACK
from eaf_inference._http import exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OK", "ask"]

OK = 200
_LARGEST = 16 * 1024 * 1024  # bytes


def ask(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, timeout: float = 5.0
) -> tuple[int | None, bytes]:
    """Return the status and the body of the reply; None and nothing if there is no reply."""
    url = f"http://{LOOPBACK}:{port}{path}"
    try:
        reply = exchange(url, method=method, headers=headers or {}, timeout=timeout, largest=_LARGEST)
    except OSError:
        return None, b""
    return reply.status, reply.body
