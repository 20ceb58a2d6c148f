"""The last hour in columns, for charts: every snapshot of ten minutes, and means of five seconds of the hour.

A snapshot holds many numbers of one moment, a chart wants a few numbers of many moments. A `Timeline` therefore keeps
only those few: an hour of 64 GPUs and 500 models takes a few MB, where its snapshots would take hundreds.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eaf_inference.metrics.snapshot import Gpu, Snapshot

__all__ = ["EACH", "HOUR", "STEP", "Point", "Timeline"]

HOUR = 3600.0  # seconds that are kept
EACH = 600.0  # seconds of which every snapshot is kept
STEP = 5.0  # seconds that a mean is taken over
_MODELS = 20  # the busiest of each snapshot, and of each answer
_MOST_NUMBERS = 200_000  # in an answer, about 1 MB of JSON
_OF_A_GPU = ("host", "name", "profile", "memory_total")

# The service as a whole → decimals in an answer.
_SERVICE = {
    "busy": 3,  # `Snapshot.busy`
    "cpu": 3,  # mean of the hosts
    "memory_used": 0,  # bytes, all hosts together
    "queue_ms": 2,  # of a mean request of any model
    "waiting": 2,  # requests in the queue, all models together
    "inferences_per_second": 1,  # all models together, also those that have no column
}


@dataclass(frozen=True, slots=True)
class Point:
    """What is kept of a snapshot, or of several: numbers in arrays, NaN for what was not reported.

    Attributes
    ----------
    service : array
        A number for each key of `_SERVICE`.
    gpus, models : tuple
        Whose numbers the next attribute holds: ids, and pairs of name and version.
    of_gpus : array
        Two numbers for each GPU: its utilization, and bytes of memory in use.
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
    """Keeps an hour of what a sampler measures. It belongs to one thread; what `points` gives, any thread may use."""

    def __init__(self) -> None:
        self._each: deque[Point] = deque()
        self._means: deque[Point] = deque()
        self._open: list[Point] = []  # of the five seconds that are not over yet
        self._gpus: dict[str, Gpu] = {}  # as each was described last

    def add(self, snapshot: Snapshot) -> None:
        """Keep the newest snapshot's numbers."""
        for kept in (self._each, self._means, self._open):
            while kept and kept[-1].time >= snapshot.time:  # the clock was set back
                kept.pop()
        point = _point_of(snapshot)
        if self._open and self._open[0].time // STEP != point.time // STEP:
            self._means.append(_mean_of(self._open))
            self._open = []
            self._forget(point.time - HOUR)
        self._open.append(point)
        self._each.append(point)
        while self._each[0].time < point.time - EACH:
            self._each.popleft()
        self._gpus.update((gpu.id, gpu) for gpu in snapshot.gpus)

    def points(self, seconds: float, now: float) -> tuple[Point, ...]:
        """Those of the last so many seconds, oldest first: each at most ten minutes, means beyond that."""
        means = [*self._means, _mean_of(self._open)] if self._open else self._means
        return tuple(point for point in (self._each if seconds <= EACH else means) if point.time >= now - seconds)

    def columns(self, points: Sequence[Point]) -> dict[str, Any]:
        """The points' numbers by what they belong to: lists as long as that of the times, oldest first.

        Of more numbers than a browser should get, only every second point is told, or every third, and so on.
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
        if len(self._gpus) > 2 * len(newest) + 100:  # they come and go
            known = {gpu for point in self._means for gpu in point.gpus}
            self._gpus = {gpu: self._gpus[gpu] for gpu in known}


class _Columns:
    """A list for each key, None where a point has no number for it."""

    def __init__(self, points: Sequence[Point], decimals: int) -> None:
        length = len(points)
        self._decimals = decimals
        self.of: dict[Any, list[float | None]] = defaultdict(lambda: [None] * length)

    def put(self, place: int, keys: Iterable[Any], values: Iterable[float]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.of[key][place] = _plain(value, self._decimals)

    def largest(self, count: int) -> list[tuple[Any, list[float | None]]]:
        """Those with the largest sums, the largest first."""
        return sorted(self.of.items(), key=lambda item: -sum(value or 0.0 for value in item[1]))[:count]


def _point_of(snapshot: Snapshot) -> Point:
    models, busiest = snapshot.models, snapshot.busiest(_MODELS).models
    waited = [
        (model.queue_ms * model.requests_per_second, model.requests_per_second)
        for model in models
        if model.queue_ms is not None and model.requests_per_second
    ]
    requests = math.fsum(each for _, each in waited)
    service = {
        "busy": snapshot.busy.value if snapshot.busy else None,
        "cpu": _mean([host.cpu_utilization for host in snapshot.hosts]),
        "memory_used": _sum([host.memory_used for host in snapshot.hosts]),
        "queue_ms": math.fsum(each for each, _ in waited) / requests if requests else None,
        "waiting": _sum([model.waiting for model in models]),
        "inferences_per_second": _sum([model.inferences_per_second for model in models]),
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
    """The mean of each number over the points that have it."""
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
    """Sums and counts of so many numbers for each key."""

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
        return _array(_mean(each) for lists in self._found.values() for each in lists)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def _array(values: Iterable[float | None]) -> array[float]:
    return array("f", (math.nan if value is None else value for value in values))


def _plain(value: float, decimals: int) -> float | None:
    return None if value != value else round(value, decimals)
