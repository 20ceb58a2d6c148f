"""How many jets a submission's workers have scored, while they are still at it.

Chunks may take a minute each and are handed over in order, so what was handed over says little of the rate. Workers
count what they score and report it with their heartbeats, at most a second or two later.
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

_EVERY = 1.0  # seconds; the scheduler's answer has all workers, so that large clusters are asked less often …
_A_WORKER = 0.02  # … by these seconds a worker


class WorkersCount:
    """Counts jets once each, whichever tells of them first: a heartbeat, or a chunk that is handed over.

    Parameters
    ----------
    client : distributed.Client
        Held weakly.
    traffic : Traffic
        Of the connection that the submission is counted for.
    """

    def __init__(self, client: Client, traffic: Traffic) -> None:
        self._client = weakref.ref(client)
        self._traffic = traffic
        self._lock = threading.Lock()
        self._totals: dict[str, int] | None = None  # by worker, as it said last; None before the first answer
        self._reported = self._handed_over = self._told = 0
        self._looks = PeriodicCallback(self._look, 1000 * _EVERY)
        traffic.submitted()
        _on_its_loop(client, self._start)

    def handed_over(self, jets: int) -> None:
        """A chunk with this many jets was handed over."""
        self._count(handed_over=jets)

    def stop(self) -> None:
        """Ask no more, once; harmless on any thread, and after the client has ended."""
        self._traffic.submission_ended()
        client = self._client()
        if client is not None:
            _on_its_loop(client, self._looks.stop)

    async def _start(self) -> None:
        self._looks.start()
        await self._look()

    async def _look(self) -> None:
        client = self._client()
        if client is None or client.status != "running":
            return
        try:
            identity = await scheduler_of(client).identity(n_workers=-1)
        except OSError:  # the next one may answer
            return
        metrics = {address: worker["metrics"].get(NAME) or {} for address, worker in identity["workers"].items()}
        totals = {address: each["inferences"] for address, each in metrics.items() if "inferences" in each}
        before = totals if self._totals is None else self._totals
        self._totals = {**before, **totals}
        self._looks.callback_time = 1000 * max(_EVERY, _A_WORKER * len(metrics))
        grown = (total - before.get(address, 0) for address, total in totals.items())
        self._count(reported=sum(max(0, each) for each in grown))  # less than before: another worker at its address

    def _count(self, *, reported: int = 0, handed_over: int = 0) -> None:
        with self._lock:
            self._reported += reported
            self._handed_over += handed_over
            more = max(self._reported, self._handed_over) - self._told
            self._told += more
        if more:
            self._traffic.scored_elsewhere(more)


def _on_its_loop(client: Client, function: Callable[[], Any]) -> None:
    loop: Any = client.loop
    loop.add_callback(function)
