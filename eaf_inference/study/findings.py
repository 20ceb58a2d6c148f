"""The study's numbers in sentences and tables: for the terminal and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from eaf_inference.bench.workloads import TOLERANCE
from eaf_inference.study.outcome import (
    AFFINITY,
    ALONE,
    APART,
    BLOCKING,
    LEAST_BUSY,
    LEAST_REQUEST,
    PIPELINED,
    QUEUE_LIMIT,
    TOGETHER,
    UNSPILT,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eaf_inference.study.outcome import Outcome, Scaled

__all__ = ["capacity", "sentences", "tables"]

Row: TypeAlias = "tuple[str, ...]"
Table: TypeAlias = "tuple[str, Row, list[Row]]"
_SATURATED = 0.95  # of the peak
_FAR_BEYOND = 4  # times the workers that saturate
_BALANCED = {LEAST_REQUEST: "by Envoy's LEAST_REQUEST", LEAST_BUSY: "to the least busy one"}


def sentences(outcome: Outcome) -> list[str]:
    """What was found, one sentence each, of the parts that were measured."""
    return [*_timing(outcome), *_beyond_saturation(outcome), *_mixtures(outcome), *capacity(outcome)]


def _timing(outcome: Outcome) -> Iterator[str]:
    for workload in dict.fromkeys(each.workload for each in outcome.timings):
        curves = [each for each in outcome.timings if each.workload == workload]
        rates = {each.client: each.points[-1][0] / each.points[-1][1] for each in curves}
        difference = max(each.difference for each in curves)
        told = ", ".join(f"{client} {rate:,.0f} jets/s" for client, rate in rates.items())
        yield (
            f"{curves[0].title}, {curves[0].points[-1][0]:,} jets: {told}; scores differ by at most {difference:.1e} "
            f"(≤ {TOLERANCE:g} is asked for)."
        )


def _beyond_saturation(outcome: Outcome) -> Iterator[str]:
    """Throughput with many times the workers that saturate, and p99 against the bound of the window."""
    for simulated in (False, True):
        of = "simulated" if simulated else "real"
        points = [each for each in outcome.scaled if each.client == PIPELINED and each.simulated == simulated]
        for instances in sorted({each.instances for each in points}):
            own = sorted((each for each in points if each.instances == instances), key=lambda each: each.workers)
            peak = max(each.inferences_per_second for each in own)
            saturating = next(each for each in own if each.inferences_per_second >= _SATURATED * peak)
            beyond = [each for each in own if each.workers >= _FAR_BEYOND * saturating.workers]
            if not beyond:
                continue
            least = min(each.inferences_per_second for each in beyond)
            said = (
                f"{instances} {of} instance{'s' if instances > 1 else ''}: {saturating.workers} workers reach "
                f"{100 * _SATURATED:.0f} % of the peak ({peak:,.0f} jets/s); with {_FAR_BEYOND} times as many and "
                f"more it stays at {least / peak:.2f} of it"
            )
            yield f"{said}{_tail(own[-1])}."


def _tail(last: Scaled) -> str:
    """The latency with the most workers, against what windows that are always full give by Little's law."""
    if last.p99 is None or not last.window:
        return ""
    full = last.workers * last.window / last.requests_per_second
    return (
        f"; p99 with {last.workers} workers is {last.p99:.2f} s, {last.p99 / full:.2f} of the {full:.2f} s that a "
        f"mean request takes when their windows of {last.window} are always full"
    )


def _mixtures(outcome: Outcome) -> Iterator[str]:
    measured = {each.title: each for each in outcome.mixtures}
    if {ALONE, TOGETHER} <= measured.keys():
        alone, together = measured[ALONE], measured[TOGETHER]
        yield (
            f"Simulated: {together.models} models on one instance give "
            f"{alone.requests_per_second / together.requests_per_second:.1f} times fewer requests/s than one."
        )
    plain = measured.get(LEAST_REQUEST) or measured.get(LEAST_BUSY)
    if plain is None:
        return
    for title in (AFFINITY, UNSPILT, APART):
        if each := measured.get(title):
            yield (
                f"Simulated, {each.instances} instances, {title}: "
                f"{each.requests_per_second / plain.requests_per_second:.1f} times as many requests/s as "
                f"{_BALANCED[plain.title]}; {100 * each.met:.0f} % of the requests for a model met on one instance "
                f"({100 * plain.met:.0f} % there), and waited {1e3 * each.queue:,.0f} ms "
                f"({1e3 * plain.queue:,.0f} ms there)."
            )
    if each := measured.get(UNSPILT):
        yield (
            f"Where requests for a model meet is a hash's choice, by the instances' addresses: here it gave "
            f"{each.models} models {each.used} of {each.instances} instances, and with other addresses it differs."
        )


def crossing(points: Sequence[Scaled]) -> tuple[int | None, int | None]:
    """The most workers measured below the limit of the queue, and the fewest above it."""
    below = [each.workers for each in points if each.queue <= QUEUE_LIMIT]
    above = [each.workers for each in points if each.queue > QUEUE_LIMIT]
    return max(below, default=None), min(above, default=None)


def capacity(outcome: Outcome) -> Iterator[str]:
    """What was predicted of the workers that fit, and what was measured."""
    predicted = outcome.predicted
    if predicted is None:
        return
    said = (
        f"Measured with {predicted.measured_with} workers, utilization {predicted.utilization:.2f}: up to "
        f"{predicted.workers} workers wait at most {1e3 * QUEUE_LIMIT:.0f} ms in the queue by prediction"
    )
    own = [each for each in outcome.scaled if each.simulated and each.client == BLOCKING and each.instances == 1]
    below, above = crossing(own)
    if below is not None:
        said += f"; measured, {below} do" + (f" and {above} do not" if above is not None else "")
    yield said + f". The advice of that time: {predicted.advice}"


def tables(outcome: Outcome) -> list[Table]:
    """Title, heads and rows of each table."""
    found: list[Table] = []
    if outcome.scaled:
        heads = ("client", "instances", "workers", "jets/s", "requests/s", "queue ms", "p50 ms", "p99 ms", "window")
        found.append(("Workers", ("", *heads), [_row(each) for each in outcome.scaled]))
    if outcome.mixtures:
        rows: list[Row] = [
            (
                each.title,
                str(each.models),
                str(each.instances),
                str(each.used),
                f"{each.requests_per_second:,.1f}",
                f"{1e3 * each.queue:,.1f}",
                f"{100 * each.met:.0f}",
            )
            for each in outcome.mixtures
        ]
        columns = ("", "models", "instances", "used", "requests/s", "queue ms", "% met")
        found.append(("Several models (simulated)", columns, rows))
    if outcome.predicted:
        found.append(_prediction(outcome))
    return found


def _row(each: Scaled) -> tuple[str, ...]:
    return (
        "simulated" if each.simulated else "real",
        each.client,
        str(each.instances),
        str(each.workers),
        f"{each.inferences_per_second:,.0f}",
        f"{each.requests_per_second:,.1f}",
        f"{1e3 * each.queue:,.1f}",
        "–" if each.p50 is None else f"{1e3 * each.p50:,.0f}",
        "–" if each.p99 is None else f"{1e3 * each.p99:,.0f}",
        str(each.window) if each.window else "–",
    )


def _prediction(outcome: Outcome) -> Table:
    assert outcome.predicted is not None  # noqa: S101  (the caller has looked)
    measured = {
        each.workers: each
        for each in outcome.scaled
        if each.simulated and each.client == BLOCKING and each.instances == 1
    }
    rows: list[Row] = []
    for workers, rate, queue in outcome.predicted.points:
        seen = measured.get(workers)
        rows.append(
            (
                str(workers),
                f"{rate:,.1f}",
                f"{seen.requests_per_second:,.1f}" if seen else "–",
                f"{1e3 * queue:,.1f}",
                f"{1e3 * seen.queue:,.1f}" if seen else "–",
            )
        )
    heads = ("workers", "requests/s predicted", "measured", "queue ms predicted", "measured")
    return "Capacity: prediction against measurement", heads, rows
