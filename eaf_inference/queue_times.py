"""How long requests have waited in the queue in the last minute, from counters that Triton keeps since its start.

Triton's ModelStatistics counts requests and nanoseconds since a model was loaded. Each reading of them is kept for a
minute, and what is told is what came since the oldest. Counters that went back were reset, by a restart of Triton or
by loading the model again; what they have now came after that, as for Prometheus's ``increase``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["QueueTime", "QueueTimes"]

_WINDOW = 60.0  # seconds
_SHORTEST = 0.5  # seconds between two readings that tell anything
_SPACING = 5.0  # seconds between readings that are kept, so that they are few however often somebody looks

_Key: TypeAlias = "tuple[str, str]"  # name and version of a model
_Counts: TypeAlias = "dict[_Key, tuple[int, int]]"  # requests, and nanoseconds that they waited


@dataclass(frozen=True, slots=True)
class QueueTime:
    """What is known of one version of one model, all replicas together.

    Attributes
    ----------
    requests : int or None
        In the last minute; None before a second reading.
    ms : float or None
        That a mean request of these has waited; None where there was none.
    since_start : int
        Requests since the model was loaded.
    """

    requests: int | None = None
    ms: float | None = None
    since_start: int = 0


class QueueTimes:
    """The readings of the last minute, by replica.

    Parameters
    ----------
    clock : callable
        Seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._readings: dict[str, list[tuple[float, _Counts]]] = {}

    def add(self, replica: str, statistics: Any) -> None:
        """Keep what a replica's ModelStatistics says now."""
        counts: _Counts = {}
        for each in statistics.model_stats:
            queue = each.inference_stats.queue
            counts[each.name, each.version] = (queue.count, queue.ns)
        with self._lock:
            now = self._clock()
            kept = [(when, before) for when, before in self._readings.get(replica, []) if now - when <= _WINDOW]
            if len(kept) > 1 and now - kept[-2][0] < _SPACING:
                kept.pop()
            self._readings[replica] = [*kept, (now, counts)]

    def of(self, name: str, version: str) -> QueueTime:
        """What the replicas say of a model."""
        with self._lock:
            measured, total = False, Counter[str]()
            for readings in self._readings.values():
                counted = [counts.get((name, version), (0, 0)) for _, counts in readings]
                total["since start"] += counted[-1][0]
                if self._clock() - readings[0][0] > _WINDOW or readings[-1][0] - readings[0][0] < _SHORTEST:
                    continue
                measured = True
                for before, after in pairwise(counted):
                    requests, ns = (b - a for a, b in zip(before, after, strict=True))
                    if requests < 0 or ns < 0:
                        requests, ns = after
                    total.update(requests=requests, ns=ns)
        if not measured:
            return QueueTime(since_start=total["since start"])
        ms = total["ns"] / total["requests"] / 1e6 if total["requests"] else None
        return QueueTime(total["requests"], ms, total["since start"])
