"""Queue times of the last minute, and times of last use, from Triton's counters since its start.

Triton's ModelStatistics counts requests and nanoseconds since a model was loaded. Each reading is kept for a minute,
and the queue time is the mean over the requests since the oldest one. If a counter is lower than in the previous
reading, it belongs to another Triton, which was restarted or is another replica behind a load balancer. Readings are
compared only with those of the same Triton. Of the times of last use, the latest that any replica gave is kept.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["QueueTime", "QueueTimes"]

_WINDOW = 60.0  # seconds
_SHORTEST = 0.5  # seconds between two readings that can be compared
_SPACING = 5.0  # seconds between the readings that are kept, to keep few of them
_ASLEEP = 1.0  # seconds that the clock may miss, because it stands still while this machine sleeps
_CLOCKS_DIFFER = 3600.0  # seconds, at most

_Key: TypeAlias = "tuple[str, str]"  # name and version of a model
_Counts: TypeAlias = "dict[_Key, tuple[int, int]]"  # requests, and nanoseconds that they waited
_Readings: TypeAlias = "list[tuple[float, _Counts]]"  # of one Triton, oldest first


@dataclass(frozen=True, slots=True)
class QueueTime:
    """The queue of one version of a model, over all replicas.

    Attributes
    ----------
    requests : int or None
        Requests in the last minute; None before a second reading.
    ms : float or None
        Their mean queue time; None without requests.
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
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._readings: dict[str, list[_Readings]] = {}  # by address; the Triton that answered last comes last
        self._last_used: dict[_Key, float] = {}
        self._started = float("inf")  # by the time of day, when the clock was at 0; a sleep of this machine moves it

    def add(self, address: str, statistics: Any) -> None:
        """Keep a reading of a replica's ModelStatistics."""
        counts: _Counts = {}
        used: dict[_Key, float] = {}
        latest = time.time() + _CLOCKS_DIFFER
        for each in statistics.model_stats:
            queue, last = each.inference_stats.queue, each.last_inference / 1000
            counts[each.name, each.version] = (queue.count, queue.ns)
            if last <= latest:
                used[each.name, each.version] = last
        with self._lock:
            now = self._clock()
            before, self._started = self._started, time.time() - now
            if self._started > before + _ASLEEP:
                self._readings.clear()
            for key, last in used.items():
                self._last_used[key] = max(last, self._last_used.get(key, 0.0))
            recent = ([each for each in one if now - each[0] <= _WINDOW] for one in self._readings.get(address, []))
            tritons = [one for one in recent if one]
            own = max((one for one in tritons if _may_follow(counts, one[-1][1])), key=_total, default=[])
            if own:
                tritons.remove(own)
            if len(own) > 1 and now - own[-2][0] < _SPACING:
                own.pop()
            self._readings[address] = [*tritons, [*own, (now, counts)]]
            there = {key for each in self._readings.values() for key in each[-1][-1][1]}
            self._last_used = {key: last for key, last in self._last_used.items() if key in there}

    def of(self, name: str, version: str) -> QueueTime:
        """Return a model's queue time over all replicas."""
        key, nothing = (name, version), (0, 0)
        requests = ns = since_start = 0
        measured = False
        with self._lock:
            for tritons in self._readings.values():
                since_start += tritons[-1][-1][1].get(key, nothing)[0]
                for readings in tritons:
                    (began, first), (ended, last) = readings[0], readings[-1]
                    if self._clock() - began > _WINDOW or ended - began < _SHORTEST:
                        continue
                    measured = True
                    if key in last:  # otherwise the model was unloaded
                        requests += last[key][0] - first.get(key, nothing)[0]
                        ns += max(0, last[key][1] - first.get(key, nothing)[1])
        if not measured:
            return QueueTime(since_start=since_start)
        return QueueTime(requests, ns / requests / 1e6 if requests else None, since_start)

    def last_used(self, name: str, version: str) -> float | None:
        """Return the time of a model's last inference on any replica, in seconds since the epoch by its clock.

        It is 0 if there was none since the model was loaded, and None if no replica has told.
        """
        return self._last_used.get((name, version))


def _may_follow(counts: _Counts, before: _Counts) -> bool:
    """Whether these counts can be a later reading of the same Triton."""
    return all(counts[key][0] >= requests for key, (requests, _) in before.items() if key in counts)


def _total(readings: _Readings) -> int:
    return sum(requests for requests, _ in readings[-1][1].values())
