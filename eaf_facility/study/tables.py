"""The study's tables: a summary for the terminal and the report, and every point for the report's details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_facility.study.curves import curves, predicted_curve
from eaf_facility.study.formatting import LIMIT, duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_facility.study.curves import Curve
    from eaf_facility.study.outcome import Mixture, Outcome, Predicted, Scaled, Timing

__all__ = ["Table", "details", "summary"]

_NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells; all columns except the first are numbers."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def summary(outcome: Outcome) -> list[Table]:
    """Return how many workers each number of Tritons carries, and the times of all clients."""
    found = []
    for simulated in (True, False):
        own = curves(each for each in outcome.scaled if each.simulated == simulated)
        if own:
            found.append(_scaling(own))
    workloads = dict.fromkeys(each.workload for each in outcome.timings)
    found += [_timing([each for each in outcome.timings if each.workload == workload]) for workload in workloads]
    return found


def _scaling(own: Sequence[Curve]) -> Table:
    most = max(curve.last.workers for curve in own)
    heads = [
        "client",
        "Tritons",
        "workers to 95 % of the peak",
        "peak jets/s",
        f"workers with queue ≤ {LIMIT}",
    ]
    rows = [_scaling_row(curve) for curve in own]
    if any(each.p99 is not None for curve in own for each in curve.points):
        heads += ["p99 with these", f"p99 with {plural(most, 'worker')}"]
        rows = [
            (*row, _p99(curve.last_within_limit), _p99(curve.last if curve.last.workers == most else None))
            for row, curve in zip(rows, own, strict=True)
        ]
    return Table(f"{'Simulated' if own[0].simulated else 'Real'} workers and Tritons", tuple(heads), rows)


def _scaling_row(curve: Curve) -> tuple[str, ...]:
    if curve.last_within_limit is None:
        within = f"< {curve.points[0].workers}"
    else:
        within = f"{'' if curve.first_over_limit else '≥ '}{curve.last_within_limit.workers}"
    saturated = str(curve.saturation.workers) if curve.saturation else "not reached"
    return curve.client, str(curve.replicas), saturated, f"{curve.peak:,.0f}", within


def _p99(point: Scaled | None) -> str:
    return _NOT_MEASURED if point is None or point.p99 is None else duration(point.p99)


def _timing(own: Sequence[Timing]) -> Table:
    local = next((each for each in own if each.client.startswith("local")), None)
    rows = []
    for each in own:
        ratio = f"{each.rate / local.rate:.2f}" if local else _NOT_MEASURED
        seconds = duration(each.points[-1][1])
        rows.append((each.client, seconds, f"{each.rate:,.0f}", ratio, f"{each.difference:.1g}"))
    title = f"Timing: {own[0].title}, {own[0].points[-1][0]:,} jets"
    return Table(title, ("client", "time", "jets/s", "speed / local", "largest score difference"), rows)


def details(outcome: Outcome) -> list[Table]:
    """Return every measured and predicted point."""
    found = []
    if outcome.scaled:
        found.append(Table("Workers", _POINT, [_point(each) for each in outcome.scaled]))
    if outcome.mixtures:
        found.append(Table("Several models (simulated)", _MIXTURE, [_mixture(each) for each in outcome.mixtures]))
    if outcome.predicted:
        found.append(_prediction(outcome.predicted, predicted_curve(outcome.scaled)))
    return found


_POINT = ("client", "", "Tritons", "workers", "jets/s", "requests/s", "queue", "p50", "p99", "in flight")
_MIXTURE = ("", "models", "Tritons", "Tritons used", "requests/s", "queue", "requests of a model to the same Triton")


def _mixture(each: Mixture) -> tuple[str, ...]:
    return (
        each.title,
        str(each.models),
        str(each.replicas),
        str(each.replicas_used),
        f"{each.requests_per_second:,.1f}",
        duration(each.queue),
        f"{100 * each.locality:.0f} %",
    )


def _point(each: Scaled) -> tuple[str, ...]:
    return (
        each.client,
        "simulated" if each.simulated else "real",
        str(each.replicas),
        str(each.workers),
        f"{each.inferences_per_second:,.0f}",
        f"{each.requests_per_second:,.1f}",
        duration(each.queue),
        *("–" if value is None else duration(value) for value in (each.p50, each.p99)),
        str(each.window) if each.window else "–",
    )


def _prediction(predicted: Predicted, curve: Curve | None) -> Table:
    measured = {each.workers: each for each in curve.points} if curve else {}
    rows = []
    for workers, rate, queue in predicted.points:
        point = measured.get(workers)
        rows.append(
            (
                str(workers),
                f"{rate:,.1f}",
                f"{point.requests_per_second:,.1f}" if point else _NOT_MEASURED,
                duration(queue),
                duration(point.queue) if point else _NOT_MEASURED,
            )
        )
    heads = ("workers", "requests/s predicted", "requests/s measured", "queue predicted", "queue measured")
    return Table("Prediction and measurement", heads, rows)
