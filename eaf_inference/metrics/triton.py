"""Scrapes of one Triton: the current values, and rates since the previous scrape."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from eaf_inference.auth.tls import tls_context
from eaf_inference.metrics.exposition import parse, reading
from eaf_inference.metrics.http import check_url
from eaf_inference.metrics.reading import Reading, Replica

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from eaf_inference.metrics.exposition import Scrape
    from eaf_inference.metrics.http import Fetch

__all__ = ["TritonMetrics"]

_LONGEST_WINDOW = 90.0  # seconds; a rate over a longer time is not current. The panel's longest interval is 60
_ASLEEP = 1.0  # seconds that the monotonic clock may miss between two scrapes; it stands still while a machine sleeps
_LARGE = 64 * 1024  # characters; a longer text would block the event loop and is parsed in a thread


class TritonMetrics:
    """One Triton's ``/metrics``.

    Each replica needs its own: a scrape through a load balancer mixes the counters of several.

    Parameters
    ----------
    url : str
        ``http://host:port/metrics``.
    ca : path, optional
        For https: PEM file of the certificate authorities to trust, or its text.
    timeout : float
        Seconds to wait for an answer.
    clock : callable
        Monotonic seconds.
    """

    kind = "Triton"
    every = 0.0

    def __init__(
        self,
        url: str,
        *,
        ca: str | os.PathLike[str] | None = None,
        timeout: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = check_url(url)
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._id = parts.netloc
        self._tls = tls_context(url, ca)
        self._timeout = timeout
        self._clock = clock
        self._earlier: tuple[float, float, Scrape] | None = None  # monotonic time, seconds since the epoch, scrape

    async def read(self, fetch: Fetch) -> Reading:
        """Scrape once; raise an `InferenceError` if that fails."""
        body = await fetch(self.name, timeout=self._timeout, tls=self._tls)
        received, wall = self._clock(), time.time()
        text = body.decode("utf-8", errors="replace")
        scrape = parse(text) if len(text) < _LARGE else await asyncio.to_thread(parse, text)
        before, then, earlier = self._earlier or (received, wall, None)
        self._earlier = (received, wall, scrape)
        seconds = received - before
        if seconds > _LONGEST_WINDOW or wall - then > seconds + _ASLEEP:
            earlier = None
        return reading(scrape, earlier, seconds, id=self._id, host=self._host, url=self.name)

    def down(self) -> Reading:
        """Return the reading of a server that does not answer."""
        return Reading((Replica(self._id, self._host, self.name, up=False, models={}),))

    def __repr__(self) -> str:
        return f"<metrics of {self.name}>"
