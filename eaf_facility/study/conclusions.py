"""The first lines of the report: conclusions that an operator can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_facility.study.curves import curves, fewest_tritons, largest_disagreement, predicted_curve
from eaf_facility.study.formatting import LIMIT, duration, plural, tritons
from eaf_facility.study.outcome import (
    AFFINITY,
    AFFINITY_WITHOUT_SPILL,
    ALONE,
    BLOCKING,
    LEAST_BUSY,
    LEAST_REQUEST,
    ONE_EACH,
    PIPELINED,
    QUEUE_LIMIT,
    TOGETHER,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eaf_facility.study.curves import Curve
    from eaf_facility.study.outcome import Outcome, Predicted

__all__ = ["headline", "key_points"]

_WITHIN = f"with queue times up to {LIMIT}"
_SIMILAR = 0.2  # relative difference of predicted and measured throughput that counts as agreement
_LIKE_THESE = {
    BLOCKING: "sends a request, waits for its reply and prepares the next one, as with coffea's triton_wrapper",
    PIPELINED: "keeps several requests in flight, as with eaf-inference",
}


def headline(outcome: Outcome) -> str:
    """Return the main conclusion, in one sentence."""
    curve, predicted = _main(outcome), outcome.predicted
    if curve is not None:
        return f"{_carried(curve, predicted if curve.is_predicted else None)}; {_growth(curve)}."
    if predicted is not None:
        who = "one simulated Triton" if outcome.accelerator else "the facility"
        return f"By prediction, {who} carries {_load(outcome, predicted)} {_WITHIN}."
    return next(iter((*_mixtures(outcome), *_fastest(outcome))), "Nothing was measured.")


def key_points(outcome: Outcome) -> list[str]:
    """Return the facts behind the headline and further recommendations."""
    curve, predicted = _main(outcome), outcome.predicted
    points: list[str] = []
    if curve is not None:
        points.append(f"Workers like these: each {_LIKE_THESE[curve.client]}.")
    if predicted is not None:
        measured = predicted_curve(outcome.scaled)
        points.append(_compared(measured, predicted) if measured else _uncompared(outcome, predicted))
    if curve is not None:
        points += _more_tritons(outcome, curve)
    return points + [each for each in _mixtures(outcome) if each != headline(outcome)]


def _main(outcome: Outcome) -> Curve | None:
    """Return the curve for the headline: the predicted one, else one on the fewest Tritons."""
    ours = [each for each in curves(outcome.scaled) if each.client == PIPELINED]
    return predicted_curve(outcome.scaled) or next(iter(ours or curves(outcome.scaled)), None)


def _carried(curve: Curve, predicted: Predicted | None) -> str:
    servers = tritons(curve.replicas, simulated=curve.simulated).replace("1 ", "One ", 1)
    carry = "carries" if curve.replicas == 1 else "carry"
    if predicted is not None and _agrees(curve, predicted):
        return f"{servers} {carry} {plural(predicted.workers, 'worker')} like these {_WITHIN}"
    within, over = curve.last_within_limit, curve.first_over_limit
    if within is None:
        most = f"fewer than {plural(curve.points[0].workers, 'worker')}"
    elif over is None:
        most = f"at least {plural(curve.last.workers, 'worker')}"
    else:
        most = f"at least {within.workers} and fewer than {plural(over.workers, 'worker')}"
    remark = "" if predicted is None else f" (measured; {predicted.workers} were predicted)"
    return f"{servers} {carry} {most} like these {_WITHIN}{remark}"


def _growth(curve: Curve) -> str:
    if curve.saturation is not None:
        return f"above {curve.saturation.workers}, more workers hardly add jets/s"
    if len(curve.points) == 1:
        return "more workers were not measured"
    return f"jets/s still rise at {plural(curve.last.workers, 'worker')}, the most measured"


def _agrees(curve: Curve, predicted: Predicted) -> bool:
    """Return whether all measured points are on the predicted side of the limit, with a similar throughput."""
    sides = all((each.queue <= QUEUE_LIMIT) == (each.workers <= predicted.workers) for each in curve.points)
    return sides and not _throughput_difference(curve, predicted)


def _throughput_difference(curve: Curve, predicted: Predicted) -> str:
    """Describe the largest difference in throughput, if it is large."""
    found = largest_disagreement(predicted, curve)
    if found is None or abs(found[1] - found[2]) <= _SIMILAR * max(found[1:]):
        return ""
    workers, expected, measured = found
    text = f" Predicted with {plural(workers, 'worker')}: {expected:,.0f} requests/s; measured: {measured:,.0f}."
    if expected < measured:
        text += " Other programs on the machine lower a prediction: repeat the study when it is idle."
    return text


def _load(outcome: Outcome, predicted: Predicted) -> str:
    """Name the predicted load. On a facility, requests in flight stand for workers."""
    if outcome.accelerator:
        return f"{plural(predicted.workers, 'worker')} like these"
    return f"{plural(predicted.workers, 'request')} in flight"


def _compared(curve: Curve, predicted: Predicted) -> str:
    verdict = "agree" if _agrees(curve, predicted) else "disagree"
    load, most = plural(predicted.measured_with, "worker"), plural(predicted.workers, "worker")
    points = [each for each in (curve.last_within_limit, curve.first_over_limit) if each is not None]
    measured = ", ".join(f"{plural(each.workers, 'worker')} wait {duration(each.queue)}" for each in points)
    return (
        f"Prediction and measurement {verdict}. Predicted from a load of {load}: {most} wait at most {LIMIT}. "
        f"Measured: {measured}.{_throughput_difference(curve, predicted)}"
    )


def _uncompared(outcome: Outcome, predicted: Predicted) -> str:
    if outcome.accelerator:
        return f"Predicted from a load of {plural(predicted.measured_with, 'worker')}. More were not measured."
    return f"Predicted from this process's own load: {_load(outcome, predicted)} wait at most {LIMIT}. Not measured."


def _more_tritons(outcome: Outcome, curve: Curve) -> Iterator[str]:
    points = [each for each in outcome.scaled if each.simulated == curve.simulated and each.client == curve.client]
    fitting = fewest_tritons(points, curve.client)
    if more := [(workers, count) for workers, count in fitting if count > curve.replicas]:
        pairs = ", ".join(f"{workers} workers with {count} Tritons" for workers, count in more)
        yield f"More Tritons carry more workers within {LIMIT}, as measured: {pairs}."
    most = max(points, key=lambda each: (each.workers, each.replicas))
    if most.queue > QUEUE_LIMIT and most.replicas > curve.replicas:
        yield (
            f"With {plural(most.workers, 'worker')} requests wait {duration(most.queue)} even with {most.replicas} "
            "Tritons, the most measured."
        )


def _mixtures(outcome: Outcome) -> Iterator[str]:
    measured = {each.title: each for each in outcome.mixtures}
    alone, together = measured.get(ALONE), measured.get(TOGETHER)
    if alone and together:
        yield (
            f"{together.models} models that share one simulated Triton get {together.requests_per_second:,.0f} "
            f"requests/s together; one model alone gets {alone.requests_per_second:,.0f}."
        )
    plain = measured.get(LEAST_REQUEST) or measured.get(LEAST_BUSY)
    others = [measured[title] for title in (AFFINITY, AFFINITY_WITHOUT_SPILL, ONE_EACH) if title in measured]
    if plain and others:
        rates = ", ".join(f"{each.requests_per_second:,.0f} with {each.title}" for each in (plain, *others))
        yield f"Requests/s of {plain.models} models on {tritons(plain.replicas, simulated=True)}: {rates}."


def _fastest(outcome: Outcome) -> Iterator[str]:
    """Compare this client with the others on the first workload."""
    own = [each for each in outcome.timings if each.workload == outcome.timings[0].workload]
    ours = next((each for each in own if each.client == PIPELINED), None)
    if ours is None:
        return
    others = "; ".join(f"{each.client}: {each.rate:,.0f}" for each in own if each is not ours)
    beside = f" ({others})" if others else ""
    yield f"{ours.client} scores {ours.rate:,.0f} jets/s{beside} with {ours.title}."
