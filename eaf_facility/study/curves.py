"""Curves through the points of part 2: where throughput saturates and where queue times exceed the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_facility.study.outcome import BLOCKING, QUEUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eaf_facility.study.outcome import Predicted, Scaled

__all__ = ["Curve", "curves", "fewest_tritons", "largest_disagreement", "predicted_curve"]

_SATURATED = 0.95  # of the peak


@dataclass(frozen=True, slots=True)
class Curve:
    """One client against a number of Tritons, with at least one point, sorted by workers."""

    client: str
    replicas: int
    simulated: bool
    points: tuple[Scaled, ...]

    @property
    def is_predicted(self) -> bool:
        """Whether part 4 predicts this curve: blocking workers on one Triton with a simulated accelerator."""
        return self.simulated and self.client == BLOCKING and self.replicas == 1

    @property
    def peak(self) -> float:
        """The highest measured rate, in jets/s."""
        return max(each.inferences_per_second for each in self.points)

    @property
    def last(self) -> Scaled:
        """The point with the most workers."""
        return self.points[-1]

    @property
    def saturation(self) -> Scaled | None:
        """The first point with 95 % of the peak; None if it is the last one, as the rate may still rise."""
        first = next(each for each in self.points if each.inferences_per_second >= _SATURATED * self.peak)
        return None if first is self.last else first

    @property
    def first_over_limit(self) -> Scaled | None:
        """The point with the fewest workers whose requests wait longer than the limit."""
        return next((each for each in self.points if each.queue > QUEUE_LIMIT), None)

    @property
    def last_within_limit(self) -> Scaled | None:
        """The last point before `first_over_limit`."""
        over = self.first_over_limit
        within = self.points[: self.points.index(over)] if over else self.points
        return within[-1] if within else None


def curves(points: Iterable[Scaled]) -> list[Curve]:
    """Sort points into curves: real ones first, then by number of Tritons, then by a client's first appearance."""
    found: dict[tuple[bool, int, str], list[Scaled]] = {}
    for each in points:
        found.setdefault((each.simulated, each.replicas, each.client), []).append(each)
    return [
        Curve(client, replicas, simulated, tuple(sorted(own, key=lambda each: each.workers)))
        for (simulated, replicas, client), own in sorted(found.items(), key=lambda item: item[0][:2])
    ]


def predicted_curve(points: Iterable[Scaled]) -> Curve | None:
    """Return the curve that part 4 predicts, if it was measured."""
    return next((each for each in curves(points) if each.is_predicted), None)


def largest_disagreement(predicted: Predicted, curve: Curve) -> tuple[int, float, float] | None:
    """Return workers, predicted and measured requests/s at the largest relative difference; None without a pair."""
    measured = {each.workers: each.requests_per_second for each in curve.points}
    pairs = [(workers, rate, measured[workers]) for workers, rate, _ in predicted.points if workers in measured]
    return max(pairs, key=lambda pair: abs(pair[1] - pair[2]) / max(pair[1:]), default=None)


def fewest_tritons(points: Iterable[Scaled], client: str) -> list[tuple[int, int]]:
    """For each number of workers, return the fewest measured Tritons that keep the queue within the limit."""
    fewest: dict[int, int] = {}
    for each in points:
        if each.client == client and each.queue <= QUEUE_LIMIT:
            fewest[each.workers] = min(each.replicas, fewest.get(each.workers, each.replicas))
    return sorted(fewest.items())
