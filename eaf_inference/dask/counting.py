"""The number of jets that a submission's workers have scored so far.

A chunk may take a minute and chunks are returned in order, so returned chunks are a poor measure of the rate. Workers
count the jets that they score, and report the count with their heartbeats, a second or two later.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from tornado.ioloop import PeriodicCallback

from eaf_inference.dask.link import scheduler_of
from eaf_inference.dask.worker_plugin import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from eaf_inference.inference.traffic import Traffic

__all__ = ["WorkersCount"]

_EVERY = 1.0  # seconds between requests to the scheduler …
_A_WORKER = 0.02  # … or this many per worker on a large cluster, because the answer contains all workers


class WorkersCount:
    """Counts every jet once, when a heartbeat or a returned chunk first reports it.

    Parameters
    ----------
    client : distributed.Client
        Held weakly.
    traffic : Traffic
        The counters of the submission's connection.
    """

    def __init__(self, client: Client, traffic: Traffic) -> None:
        self._client = weakref.ref(client)
        self._traffic = traffic
        self._lock = threading.Lock()
        self._totals: dict[str, int] | None = None  # by worker, as last reported; None before the first answer
        self._reported = self._returned = self._counted = 0
        self._polling = PeriodicCallback(self._poll, 1000 * _EVERY)
        traffic.submitted()
        _on_its_loop(client, self._start)

    def returned(self, jets: int) -> None:
        """Count the jets of a chunk whose scores were returned to the user."""
        self._count(returned=jets)

    def stop(self) -> None:
        """Stop polling. Call it once; any thread may, also after the client was closed."""
        self._traffic.submission_ended()
        client = self._client()
        if client is not None:
            _on_its_loop(client, self._polling.stop)

    async def _start(self) -> None:
        self._polling.start()
        await self._poll()

    async def _poll(self) -> None:
        client = self._client()
        if client is None or client.status != "running":
            return
        try:
            identity = await scheduler_of(client).identity(n_workers=-1)
        except OSError:  # the next request may succeed
            return
        metrics = {address: worker["metrics"].get(NAME) or {} for address, worker in identity["workers"].items()}
        totals = {address: each["inferences"] for address, each in metrics.items() if "inferences" in each}
        before = totals if self._totals is None else self._totals
        self._totals = {**before, **totals}
        self._polling.callback_time = 1000 * max(_EVERY, _A_WORKER * len(metrics))
        grown = (total - before.get(address, 0) for address, total in totals.items())
        self._count(reported=sum(max(0, each) for each in grown))  # smaller: another worker at that address

    def _count(self, *, reported: int = 0, returned: int = 0) -> None:
        with self._lock:
            self._reported += reported
            self._returned += returned
            new = max(self._reported, self._returned) - self._counted
            self._counted += new
        if new:
            self._traffic.scored_elsewhere(new)


def _on_its_loop(client: Client, function: Callable[[], Any]) -> None:
    loop: Any = client.loop
    loop.add_callback(function)
