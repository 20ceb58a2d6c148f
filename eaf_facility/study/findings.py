"""The detailed findings below the headline and the tables, one sentence for each fact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_facility.study.curves import curves, largest_disagreement, predicted_curve
from eaf_facility.study.formatting import duration, plural, tritons
from eaf_facility.study.outcome import (
    AFFINITY,
    AFFINITY_WITHOUT_SPILL,
    LEAST_BUSY,
    LEAST_REQUEST,
    ONE_EACH,
    PIPELINED,
)
from eaf_facility.study.workloads import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eaf_facility.study.curves import Curve
    from eaf_facility.study.outcome import Outcome

__all__ = ["findings"]

_FAR_BEYOND = 4  # times the workers at saturation


def findings(outcome: Outcome) -> list[str]:
    """Return the findings of the parts that were measured."""
    return [*_timing(outcome), *_saturation(outcome), *_mixtures(outcome), *_capacity(outcome)]


def _timing(outcome: Outcome) -> Iterator[str]:
    for workload in dict.fromkeys(each.workload for each in outcome.timings):
        own = [each for each in outcome.timings if each.workload == workload]
        difference = max(each.difference for each in own)
        yield (
            f"{own[0].title}: all scores agree with those of local ONNX Runtime; they differ by at most "
            f"{difference:.1g}, and {TOLERANCE:g} is allowed."
        )


def _saturation(outcome: Outcome) -> Iterator[str]:
    """Report this client's throughput far beyond saturation, and its latency there."""
    for curve in curves(outcome.scaled):
        if curve.client != PIPELINED or curve.saturation is None:
            continue
        beyond = [each for each in curve.points if each.workers >= _FAR_BEYOND * curve.saturation.workers]
        if not beyond:
            continue
        setting = f"{tritons(curve.replicas, simulated=curve.simulated)}, {curve.client}"
        least = min(each.inferences_per_second for each in beyond)
        many = f"{beyond[0].workers}{' or more' if len(beyond) > 1 else ''}"
        yield f"{setting}: with {many} workers, throughput is at least {100 * least / curve.peak:.0f} % of the peak."
        yield from _latency(setting, curve)


def _latency(setting: str, curve: Curve) -> Iterator[str]:
    """Report the latency with the most workers."""
    last = curve.last
    if last.p99 is not None:
        yield f"{setting}: with {last.workers} workers, 99 % of the requests take at most {duration(last.p99)}."


def _mixtures(outcome: Outcome) -> Iterator[str]:
    measured = {each.title: each for each in outcome.mixtures}
    plain = measured.get(LEAST_REQUEST) or measured.get(LEAST_BUSY)
    if plain is None:
        return
    for title in (AFFINITY, AFFINITY_WITHOUT_SPILL, ONE_EACH):
        if each := measured.get(title):
            yield (
                f"{each.models} models on {tritons(each.replicas, simulated=True)}, {title}: "
                f"{each.requests_per_second / plain.requests_per_second:.1f} times the requests/s of {plain.title}; "
                f"{100 * each.locality:.0f} % of a model's requests go to the same Triton "
                f"({100 * plain.locality:.0f} %)."
            )
    if each := measured.get(AFFINITY_WITHOUT_SPILL):
        yield (
            f"Affinity places models by a hash of the Tritons' addresses: here {each.models} models used "
            f"{each.replicas_used} of {each.replicas} Tritons. Other addresses give another placement."
        )


def _capacity(outcome: Outcome) -> Iterator[str]:
    """Report the prediction, and where the measurement differs most."""
    predicted = outcome.predicted
    if predicted is None:
        return
    load = f"a load of {plural(predicted.measured_with, 'worker')}"
    yield f"The prediction is from {load} that kept the server {100 * predicted.utilization:.0f} % busy."
    curve = predicted_curve(outcome.scaled)
    if curve and (found := largest_disagreement(predicted, curve)):
        workers, rate, measured = found
        yield (
            f"Predicted and measured throughput differ most with {plural(workers, 'worker')}: {rate:,.1f} and "
            f"{measured:,.1f} requests/s."
        )
    yield f"The advice shown during that load: {predicted.advice}"
