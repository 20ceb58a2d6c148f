"""The first lines of the report: what an operator can act on, from what was measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eaf_inference.study.curves import curves, fewest_tritons, most_different, predictable
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
from eaf_inference.study.words import LIMIT, duration, plural, tritons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eaf_inference.study.curves import Curve
    from eaf_inference.study.outcome import Outcome, Predicted

__all__ = ["headline", "lead"]

_WITHIN = f"within {LIMIT} of queue time"
_SIMILAR = 0.2  # by which predicted and measured throughput may differ
_LIKE_THESE = {
    BLOCKING: "sends a request, waits for its reply and prepares the next one, as with coffea's triton_wrapper",
    PIPELINED: "keeps several requests in flight, as with eaf-inference",
}


def headline(outcome: Outcome) -> str:
    """One sentence."""
    curve, predicted = _main(outcome), outcome.predicted
    if curve is not None:
        return f"{_carried(curve, predicted if curve.is_predictable else None)}; {_growth(curve)}."
    if predicted is not None:
        who = "one simulated Triton" if outcome.accelerator else "the facility"
        return f"By prediction, {who} carries {_load(outcome, predicted)} {_WITHIN}."
    return next(iter((*_mixtures(outcome), *_fastest(outcome))), "Nothing was measured.")


def lead(outcome: Outcome) -> list[str]:
    """What the headline rests on, and what else to act on."""
    curve, predicted = _main(outcome), outcome.predicted
    said: list[str] = []
    if curve is not None:
        said.append(f"Workers like these: each {_LIKE_THESE[curve.client]}.")
    if predicted is not None:
        compared = predictable(outcome.scaled)
        said.append(_compared(compared, predicted) if compared else _uncompared(outcome, predicted))
    if curve is not None:
        said += _more_tritons(outcome, curve)
    return said + [each for each in _mixtures(outcome) if each != headline(outcome)]


def _main(outcome: Outcome) -> Curve | None:
    """The curve that the headline is about: the one that was predicted, else one on the fewest Tritons."""
    ours = [each for each in curves(outcome.scaled) if each.client == PIPELINED]
    return predictable(outcome.scaled) or next(iter(ours or curves(outcome.scaled)), None)


def _carried(curve: Curve, predicted: Predicted | None) -> str:
    who = tritons(curve.instances, simulated=curve.simulated).replace("1 ", "One ", 1)
    does = "carries" if curve.instances == 1 else "carry"
    if predicted is not None and _agrees(curve, predicted):
        return f"{who} {does} {plural(predicted.workers, 'worker')} like these {_WITHIN}"
    if curve.comfortable is None:
        most = f"fewer than {plural(curve.points[0].workers, 'worker')}"
    elif curve.too_many is None:
        most = f"at least {plural(curve.last.workers, 'worker')}"
    else:
        most = f"at least {curve.comfortable.workers} and fewer than {plural(curve.too_many.workers, 'worker')}"
    remark = "" if predicted is None else f" (measured; {predicted.workers} were predicted)"
    return f"{who} {does} {most} like these {_WITHIN}{remark}"


def _growth(curve: Curve) -> str:
    if curve.saturated is not None:
        return f"above {curve.saturated.workers}, more workers bring hardly more jets/s"
    if len(curve.points) == 1:
        return "more workers were not measured"
    return f"jets/s still rise at {plural(curve.last.workers, 'worker')}, the most measured"


def _agrees(curve: Curve, predicted: Predicted) -> bool:
    """Whether no measured point is on the wrong side of the limit, nor has quite another throughput."""
    sides = all((each.queue <= QUEUE_LIMIT) == (each.workers <= predicted.workers) for each in curve.points)
    return sides and not _other_throughput(curve, predicted)


def _other_throughput(curve: Curve, predicted: Predicted) -> str:
    """What was predicted and measured where that differs most, if it differs much."""
    found = most_different(predicted, curve)
    if found is None or abs(found[1] - found[2]) <= _SIMILAR * max(found[1:]):
        return ""
    workers, expected, seen = found
    said = f" Predicted with {plural(workers, 'worker')}: {expected:,.0f} requests/s; measured: {seen:,.0f}."
    if expected < seen:
        said += " Other programs on the machine lower a prediction: repeat the study when it is idle."
    return said


def _load(outcome: Outcome, predicted: Predicted) -> str:
    """On a facility, requests in flight stand for workers."""
    if outcome.accelerator:
        return f"{plural(predicted.workers, 'worker')} like these"
    return f"{plural(predicted.workers, 'request')} in flight"


def _compared(curve: Curve, predicted: Predicted) -> str:
    verdict = "agree" if _agrees(curve, predicted) else "disagree"
    load, most = plural(predicted.measured_with, "worker"), plural(predicted.workers, "worker")
    points = [each for each in (curve.comfortable, curve.too_many) if each is not None]
    measured = ", ".join(f"{plural(each.workers, 'worker')} wait {duration(each.queue)}" for each in points)
    return (
        f"Prediction and measurement {verdict}. Predicted from a load of {load}: {most} wait at most {LIMIT}. "
        f"Measured: {measured}.{_other_throughput(curve, predicted)}"
    )


def _uncompared(outcome: Outcome, predicted: Predicted) -> str:
    if outcome.accelerator:
        return f"Predicted from a load of {plural(predicted.measured_with, 'worker')}. More were not measured."
    return f"Predicted from this process's own load: {_load(outcome, predicted)} wait at most {LIMIT}. Not measured."


def _more_tritons(outcome: Outcome, curve: Curve) -> Iterator[str]:
    points = [each for each in outcome.scaled if each.simulated == curve.simulated and each.client == curve.client]
    fitting = fewest_tritons(points, curve.client)
    if more := [(workers, count) for workers, count in fitting if count > curve.instances]:
        told = ", ".join(f"{workers} workers with {count} Tritons" for workers, count in more)
        yield f"More Tritons carry more of them within {LIMIT}, as measured: {told}."
    most = max(points, key=lambda each: (each.workers, each.instances))
    if most.queue > QUEUE_LIMIT and most.instances > curve.instances:
        yield (
            f"With {plural(most.workers, 'worker')} requests wait {duration(most.queue)} even with {most.instances} "
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
    others = [measured[title] for title in (AFFINITY, UNSPILT, APART) if title in measured]
    if plain and others:
        told = ", ".join(f"{each.requests_per_second:,.0f} with {each.title}" for each in (plain, *others))
        yield f"Requests/s of {plain.models} models on {tritons(plain.instances, simulated=True)}: {told}."


def _fastest(outcome: Outcome) -> Iterator[str]:
    """Ours beside the alternatives, of the first workload."""
    own = [each for each in outcome.timings if each.workload == outcome.timings[0].workload]
    ours = next((each for each in own if each.client == PIPELINED), None)
    if ours is None:
        return
    others = "; ".join(f"{each.client}: {each.rate:,.0f}" for each in own if each is not ours)
    beside = f" ({others})" if others else ""
    yield f"{ours.client} scores {ours.rate:,.0f} jets/s{beside} with {ours.title}."
