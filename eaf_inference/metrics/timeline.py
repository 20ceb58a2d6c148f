"""The numbers of charts: every snapshot of the last ten minutes, and means over five seconds of the last hour.

A chart needs few numbers of many moments, so a `Timeline` keeps only these: an hour of 64 GPUs and 500 models takes a
few MB, while its snapshots would take hundreds.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference.metrics.totals import inference_rate, mean, mean_queue_ms, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eaf_inference.metrics.snapshot import Gpu, Snapshot

__all__ = ["EACH", "STEP", "Point", "Timeline"]

_HOUR = 3600.0  # seconds of means
EACH = 600.0  # seconds for which every snapshot is kept
STEP = 5.0  # seconds per mean
_MODELS = 20  # the busiest of each snapshot and of each answer
_MOST_NUMBERS = 200_000  # in an answer, about 1 MB of JSON
_OF_A_GPU = ("host", "name", "profile", "memory_total")

# The service as a whole → decimals in an answer.
_SERVICE = {
    "busy": 3,  # `Snapshot.busy`
    "cpu": 3,  # mean of the hosts
    "memory_used": 0,  # bytes, all hosts together
    "queue_ms": 2,  # of a mean request of any model
    "waiting": 2,  # requests in the queue, all models together
    "inferences_per_second": 1,  # all models together, also those without a column
}


@dataclass(frozen=True, slots=True)
class Point:
    """The numbers of one snapshot, or the means of several; NaN if not reported.

    Attributes
    ----------
    service : array
        One number per key of `_SERVICE`.
    gpus, models : tuple
        Ids of the GPUs in `of_gpus`, and (name, version) of the models in `rates`.
    of_gpus : array
        Two numbers per GPU: utilization, and bytes of memory in use.
    rates : array
        Inferences per second of each model.
    """

    time: float
    service: array[float]
    gpus: tuple[str, ...]
    of_gpus: array[float]
    models: tuple[tuple[str, str], ...]
    rates: array[float]


class Timeline:
    """Keeps an hour of a sampler's numbers. It belongs to one thread; any thread may use the result of `points`."""

    def __init__(self) -> None:
        self._each: deque[Point] = deque()
        self._means: deque[Point] = deque()
        self._open: list[Point] = []  # of the current five seconds
        self._gpus: dict[str, Gpu] = {}  # the latest description of each

    def add(self, snapshot: Snapshot) -> None:
        """Add the newest snapshot."""
        for kept in (self._each, self._means, self._open):
            while kept and kept[-1].time >= snapshot.time:  # the clock was set back
                kept.pop()
        point = _point_of(snapshot)
        if self._open and self._open[0].time // STEP != point.time // STEP:
            self._means.append(_mean_of(self._open))
            self._open = []
            self._forget(point.time - _HOUR)
        self._open.append(point)
        self._each.append(point)
        while self._each[0].time < point.time - EACH:
            self._each.popleft()
        self._gpus.update((gpu.id, gpu) for gpu in snapshot.gpus)

    def points(self, seconds: float, now: float) -> tuple[Point, ...]:
        """Return the points of the last `seconds`, oldest first: every snapshot up to ten minutes, else means."""
        means = [*self._means, _mean_of(self._open)] if self._open else self._means
        return tuple(point for point in (self._each if seconds <= EACH else means) if point.time >= now - seconds)

    def columns(self, points: Sequence[Point]) -> dict[str, Any]:
        """Return the numbers as lists of equal length: times, and columns of the service, GPUs and models.

        If these are too many numbers for a browser, only every second point is returned, or every third, and so on.
        """
        width = len(_SERVICE) + _MODELS + 2 * max((len(point.gpus) for point in points), default=0)
        step = math.ceil(len(points) * width / _MOST_NUMBERS) or 1
        points = points[::-1][::step][::-1]
        utilization, memory, rates = _Columns(points, 3), _Columns(points, 0), _Columns(points, 1)
        for place, point in enumerate(points):
            utilization.put(place, point.gpus, point.of_gpus[0::2])
            memory.put(place, point.gpus, point.of_gpus[1::2])
            rates.put(place, point.models, point.rates)
        described = self._gpus
        return {
            "times": [round(point.time, 3) for point in points],
            **{
                name: [_plain(point.service[place], decimals) for point in points]
                for place, (name, decimals) in enumerate(_SERVICE.items())
            },
            "gpus": [
                {
                    "id": gpu,
                    **{name: getattr(described.get(gpu), name, None) for name in _OF_A_GPU},
                    "utilization": column,
                    "memory_used": memory.of[gpu],
                }
                for gpu, column in utilization.of.items()
            ],
            "models": [
                {"name": name, "version": version, "inferences_per_second": column}
                for (name, version), column in rates.largest(_MODELS)
            ],
        }

    def _forget(self, before: float) -> None:
        while self._means and self._means[0].time < before:
            self._means.popleft()
        newest = self._means[-1].gpus if self._means else ()
        if len(self._gpus) > 2 * len(newest) + 100:  # GPUs come and go
            known = {gpu for point in self._means for gpu in point.gpus}
            self._gpus = {gpu: self._gpus[gpu] for gpu in known}


class _Columns:
    """A list per key, with None where a point has no number for it."""

    def __init__(self, points: Sequence[Point], decimals: int) -> None:
        length = len(points)
        self._decimals = decimals
        self.of: dict[Any, list[float | None]] = defaultdict(lambda: [None] * length)

    def put(self, place: int, keys: Iterable[Any], values: Iterable[float]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.of[key][place] = _plain(value, self._decimals)

    def largest(self, count: int) -> list[tuple[Any, list[float | None]]]:
        """Return the lists with the largest sums, the largest first."""
        return sorted(self.of.items(), key=lambda item: -sum(value or 0.0 for value in item[1]))[:count]


def _point_of(snapshot: Snapshot) -> Point:
    models, busiest = snapshot.models, snapshot.busiest(_MODELS).models
    service = {
        "busy": snapshot.busy.value if snapshot.busy else None,
        "cpu": mean(host.cpu_utilization for host in snapshot.hosts),
        "memory_used": total(host.memory_used for host in snapshot.hosts),
        "queue_ms": mean_queue_ms(snapshot),
        "waiting": total(model.waiting for model in models),
        "inferences_per_second": inference_rate(snapshot),
    }
    return Point(
        time=snapshot.time,
        service=_array(service[name] for name in _SERVICE),
        gpus=tuple(sys.intern(gpu.id) for gpu in snapshot.gpus),
        of_gpus=_array(number for gpu in snapshot.gpus for number in (gpu.utilization, gpu.memory_used)),
        models=tuple((sys.intern(model.name), sys.intern(model.version)) for model in busiest),
        rates=_array(model.inferences_per_second for model in busiest),
    )


def _mean_of(points: Sequence[Point]) -> Point:
    """Return the mean of each number over the points that have it."""
    if len(points) == 1:
        return points[0]
    gpus, models = _Sums(2), _Sums(1)
    service = _Sums(len(_SERVICE))
    for point in points:
        service.add(("service",), point.service)
        gpus.add(point.gpus, point.of_gpus)
        models.add(point.models, point.rates)
    return Point(
        time=math.fsum(point.time for point in points) / len(points),
        service=service.means(),
        gpus=tuple(gpus.keys),
        of_gpus=gpus.means(),
        models=tuple(models.keys),
        rates=models.means(),
    )


class _Sums:
    """Collects `width` numbers per key from each point, for their means."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._found: dict[Any, list[list[float]]] = {}

    @property
    def keys(self) -> Iterable[Any]:
        return self._found

    def add(self, keys: Sequence[Any], numbers: array[float]) -> None:
        for place, key in enumerate(keys):
            lists = self._found.setdefault(key, [[] for _ in range(self._width)])
            for each, number in zip(lists, numbers[place * self._width : (place + 1) * self._width], strict=True):
                if number == number:  # not NaN
                    each.append(number)

    def means(self) -> array[float]:
        return _array(mean(each) for lists in self._found.values() for each in lists)


def _array(values: Iterable[float | None]) -> array[float]:
    return array("f", (math.nan if value is None else value for value in values))


def _plain(value: float, decimals: int) -> float | None:
    return None if value != value else round(value, decimals)
