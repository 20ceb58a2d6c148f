"""What was found, one sentence for each fact: the details below the headline and the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.bench.workloads import TOLERANCE
from eaf_inference.study.curves import curves, most_different, predictable
from eaf_inference.study.outcome import (
    AFFINITY,
    APART,
    LEAST_BUSY,
    LEAST_REQUEST,
    PIPELINED,
    UNSPILT,
)
from eaf_inference.study.words import duration, plural, tritons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eaf_inference.study.curves import Curve
    from eaf_inference.study.outcome import Outcome

__all__ = ["sentences"]

_FAR_BEYOND = 4  # times the workers that saturate


def sentences(outcome: Outcome) -> list[str]:
    """Of the parts that were measured."""
    return [*_timing(outcome), *_saturation(outcome), *_mixtures(outcome), *_capacity(outcome)]


def _timing(outcome: Outcome) -> Iterator[str]:
    for workload in dict.fromkeys(each.workload for each in outcome.timings):
        own = [each for each in outcome.timings if each.workload == workload]
        difference = max(each.difference for each in own)
        yield (
            f"{own[0].title}: all scores agree with local ONNX Runtime's; they differ by at most {difference:.1g}, "
            f"and {TOLERANCE:g} is allowed."
        )


def _saturation(outcome: Outcome) -> Iterator[str]:
    """Throughput of ours with many times the workers that saturate, and p99 against the bound of the window."""
    for curve in curves(outcome.scaled):
        if curve.client != PIPELINED or curve.saturated is None:
            continue
        beyond = [each for each in curve.points if each.workers >= _FAR_BEYOND * curve.saturated.workers]
        if not beyond:
            continue
        who = f"{tritons(curve.instances, simulated=curve.simulated)}, {curve.client}"
        least = min(each.inferences_per_second for each in beyond)
        many = f"{beyond[0].workers}{' or more' if len(beyond) > 1 else ''}"
        yield (f"{who}: with {many} workers, throughput is at least {100 * least / curve.peak:.0f} % of the peak.")
        yield from _tail(who, curve)


def _tail(who: str, curve: Curve) -> Iterator[str]:
    """The latency with the most workers, against what windows that are always full give by Little's law."""
    last = curve.last
    if last.p99 is None or not last.window or not last.requests_per_second:
        return
    full = last.workers * last.window / last.requests_per_second
    yield f"{who}: with {last.workers} workers, 99 % of the requests take at most {duration(last.p99)}."
    yield (
        f"{who}: by Little's law a mean request then takes {duration(full)}, as {last.workers} workers keep "
        f"{plural(last.window, 'request')} each in flight."
    )


def _mixtures(outcome: Outcome) -> Iterator[str]:
    measured = {each.title: each for each in outcome.mixtures}
    plain = measured.get(LEAST_REQUEST) or measured.get(LEAST_BUSY)
    if plain is None:
        return
    for title in (AFFINITY, UNSPILT, APART):
        if each := measured.get(title):
            yield (
                f"{each.models} models on {tritons(each.instances, simulated=True)}, {title}: "
                f"{each.requests_per_second / plain.requests_per_second:.1f} times the requests/s of {plain.title}; "
                f"{100 * each.met:.0f} % of a model's requests go to the same Triton ({100 * plain.met:.0f} %)."
            )
    if each := measured.get(UNSPILT):
        yield (
            f"Affinity places models by a hash of the Tritons' addresses: here {each.models} models used {each.used} "
            f"of {each.instances} Tritons; with other addresses it differs."
        )


def _capacity(outcome: Outcome) -> Iterator[str]:
    """What was predicted, and what was measured."""
    predicted = outcome.predicted
    if predicted is None:
        return
    load = f"a load of {plural(predicted.measured_with, 'worker')}"
    yield f"The prediction is from {load}, during which the server was {100 * predicted.utilization:.0f} % busy."
    curve = predictable(outcome.scaled)
    if curve and (found := most_different(predicted, curve)):
        workers, rate, seen = found
        yield (
            f"Predicted and measured throughput differ most with {plural(workers, 'worker')}: {rate:,.1f} and "
            f"{seen:,.1f} requests/s."
        )
    yield f"The advice shown during that load: {predicted.advice}"
