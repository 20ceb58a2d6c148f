"""The study's tables: a summary for the terminal and the top of the report, and every point for its details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.study.curves import curves, predictable
from eaf_inference.study.words import LIMIT, duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.study.curves import Curve
    from eaf_inference.study.outcome import Mixture, Outcome, Predicted, Scaled, Timing

__all__ = ["Table", "details", "summary"]

_NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; all columns but the first are numbers."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def summary(outcome: Outcome) -> list[Table]:
    """What each number of Tritons carries, and the time of ours beside the alternatives."""
    found = []
    for simulated in (True, False):
        own = curves(each for each in outcome.scaled if each.simulated == simulated)
        if own:
            found.append(_carried(own))
    workloads = dict.fromkeys(each.workload for each in outcome.timings)
    found += [_timing([each for each in outcome.timings if each.workload == workload]) for workload in workloads]
    return found


def _carried(own: Sequence[Curve]) -> Table:
    most = max(curve.last.workers for curve in own)
    heads = ["client", "Tritons", "workers to 95 % of the peak", "peak jets/s", f"workers within {LIMIT} of queue"]
    rows = [_carries(curve) for curve in own]
    if any(each.p99 is not None for curve in own for each in curve.points):
        heads += ["p99 with these", f"p99 with {plural(most, 'worker')}"]
        rows = [
            (*row, _p99(curve.comfortable), _p99(curve.last if curve.last.workers == most else None))
            for row, curve in zip(rows, own, strict=True)
        ]
    return Table(f"{'Simulated' if own[0].simulated else 'Real'} workers and Tritons", tuple(heads), rows)


def _carries(curve: Curve) -> tuple[str, ...]:
    if curve.comfortable is None:
        within = f"< {curve.points[0].workers}"
    else:
        within = f"{'' if curve.too_many else '≥ '}{curve.comfortable.workers}"
    saturated = str(curve.saturated.workers) if curve.saturated else "not reached"
    return curve.client, str(curve.instances), saturated, f"{curve.peak:,.0f}", within


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
    """Every point."""
    found = []
    if outcome.scaled:
        found.append(Table("Workers", _POINT, [_point(each) for each in outcome.scaled]))
    if outcome.mixtures:
        found.append(Table("Several models (simulated)", _MIXTURE, [_mixture(each) for each in outcome.mixtures]))
    if outcome.predicted:
        found.append(_prediction(outcome.predicted, predictable(outcome.scaled)))
    return found


_POINT = ("client", "", "Tritons", "workers", "jets/s", "requests/s", "queue", "p50", "p99", "in flight")
_MIXTURE = ("", "models", "Tritons", "Tritons used", "requests/s", "queue", "of a model to the same Triton")


def _mixture(each: Mixture) -> tuple[str, ...]:
    return (
        each.title,
        str(each.models),
        str(each.instances),
        str(each.used),
        f"{each.requests_per_second:,.1f}",
        duration(each.queue),
        f"{100 * each.met:.0f} %",
    )


def _point(each: Scaled) -> tuple[str, ...]:
    return (
        each.client,
        "simulated" if each.simulated else "real",
        str(each.instances),
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
        seen = measured.get(workers)
        rows.append(
            (
                str(workers),
                f"{rate:,.1f}",
                f"{seen.requests_per_second:,.1f}" if seen else _NOT_MEASURED,
                duration(queue),
                duration(seen.queue) if seen else _NOT_MEASURED,
            )
        )
    heads = ("workers", "requests/s predicted", "requests/s measured", "queue predicted", "queue measured")
    return Table("Prediction and measurement", heads, rows)
