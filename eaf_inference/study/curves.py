"""What the points of part 2 say about one client: where throughput saturates, and where the queue grows too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.study.outcome import BLOCKING, QUEUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eaf_inference.study.outcome import Predicted, Scaled

__all__ = ["SATURATED", "Curve", "curves", "fewest_tritons", "most_different", "predictable"]

SATURATED = 0.95  # of the peak


@dataclass(frozen=True, slots=True)
class Curve:
    """One client against one number of Tritons; its points by rising number of workers, at least one."""

    client: str
    instances: int
    simulated: bool
    points: tuple[Scaled, ...]

    @property
    def is_predictable(self) -> bool:
        return self.simulated and self.client == BLOCKING and self.instances == 1

    @property
    def peak(self) -> float:
        """The most jets/s that were measured."""
        return max(each.inferences_per_second for each in self.points)

    @property
    def last(self) -> Scaled:
        """With the most workers."""
        return self.points[-1]

    @property
    def saturated(self) -> Scaled | None:
        """The fewest workers with 95 % of the peak; None where only the most workers have it: it may grow."""
        first = next(each for each in self.points if each.inferences_per_second >= SATURATED * self.peak)
        return None if first is self.last else first

    @property
    def too_many(self) -> Scaled | None:
        """The fewest workers whose requests wait longer than the limit."""
        return next((each for each in self.points if each.queue > QUEUE_LIMIT), None)

    @property
    def comfortable(self) -> Scaled | None:
        """The most workers, of those below `too_many`."""
        short = self.points[: self.points.index(self.too_many)] if self.too_many else self.points
        return short[-1] if short else None


def curves(points: Iterable[Scaled]) -> list[Curve]:
    """The points sorted into curves: real ones first, then by number of Tritons, clients as they came."""
    found: dict[tuple[bool, int, str], list[Scaled]] = {}
    for each in points:
        found.setdefault((each.simulated, each.instances, each.client), []).append(each)
    return [
        Curve(client, instances, simulated, tuple(sorted(own, key=lambda each: each.workers)))
        for (simulated, instances, client), own in sorted(found.items(), key=lambda item: item[0][:2])
    ]


def predictable(points: Iterable[Scaled]) -> Curve | None:
    """The curve of the workers that part 4 predicts on simulated accelerators: blocking ones on one Triton."""
    return next((each for each in curves(points) if each.is_predictable), None)


def most_different(predicted: Predicted, curve: Curve) -> tuple[int, float, float] | None:
    """Workers, requests/s predicted and measured, where these differ most; None where no such number was measured."""
    seen = {each.workers: each.requests_per_second for each in curve.points}
    pairs = [(workers, rate, seen[workers]) for workers, rate, _ in predicted.points if workers in seen]
    return max(pairs, key=lambda pair: abs(pair[1] - pair[2]) / max(pair[1:]), default=None)


def fewest_tritons(points: Iterable[Scaled], client: str) -> list[tuple[int, int]]:
    """For each number of workers the fewest Tritons whose queue stays below the limit; of those measured."""
    fitting: dict[int, int] = {}
    for each in points:
        if each.client == client and each.queue <= QUEUE_LIMIT:
            fitting[each.workers] = min(each.instances, fitting.get(each.workers, each.instances))
    return sorted(fitting.items())
