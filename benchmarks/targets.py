"""The client's performance targets, as ratios within one run, and their verdicts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.clients import PERF_ANALYZER
from benchmarks.rounds import Spread
from benchmarks.workloads import ACCELERATOR
from eaf_facility.study.clients import COFFEA, EAF_INFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.rounds import Result

    Figures = Mapping[str, Sequence[float]]
    Values = Callable[[Sequence[Result], Figures], list[float]]

__all__ = ["Target", "Verdict", "verdicts"]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound, and a function that gives the value of each round; it gives none for what was not measured."""

    what: str
    bound: float
    values: Values
    at_least: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and its result; None if it was not measured."""

    what: str
    target: str
    spread: Spread | None
    met: bool | None


def verdicts(results: Sequence[Result], figures: Figures) -> list[Verdict]:
    """Judge every target by the median over the rounds."""
    found = []
    for target in _TARGETS:
        spread = Spread.of(target.values(results, figures))
        met = None
        if spread is not None:
            met = spread.median >= target.bound if target.at_least else spread.median <= target.bound
        sign = "≥" if target.at_least else "≤"
        found.append(Verdict(target.what, f"{sign} {target.bound:,.7g}", spread, met))
    return found


def _against(workload: str, metric: str, name: str) -> Values:
    """Divide our value by that of another client's fastest entry, round by round."""

    def values(results: Sequence[Result], figures: Figures) -> list[float]:  # noqa: ARG001
        ours = _of(results, workload, EAF_INFERENCE.name)
        best = _of(results, workload, name)
        if ours is None or best is None:
            return []
        pairs = zip(ours.values(metric), best.values(metric), strict=False)
        return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]

    return values


def _of(results: Sequence[Result], workload: str, name: str) -> Result | None:
    measured = [
        each for each in results if each.workload == workload and each.entry.name == name and each.measurements
    ]
    return max(measured, key=_median_rate, default=None)


def _median_rate(result: Result) -> float:
    return statistics.median(each.client.inferences_per_second for each in result.measurements)


def _share_of_limit(workload: str) -> Values:
    def values(results: Sequence[Result], figures: Figures) -> list[float]:  # noqa: ARG001
        found = _of(results, workload, EAF_INFERENCE.name)
        return [each.client.inferences_per_second / ACCELERATOR.limit for each in found.measurements] if found else []

    return values


def _difference(workload: str) -> Values:
    def values(results: Sequence[Result], figures: Figures) -> list[float]:  # noqa: ARG001
        ours = _of(results, workload, EAF_INFERENCE.name)
        return [value for value in ours.values("largest difference") if value is not None] if ours else []

    return values


def _figure(name: str) -> Values:
    return lambda results, figures: list(figures.get(name, []))  # noqa: ARG005


def _at_least(what: str, bound: float, values: Values) -> Target:
    return Target(what, bound, values, at_least=True)


def _at_most(what: str, bound: float, values: Values) -> Target:
    return Target(what, bound, values, at_least=False)


_TARGETS = (
    _at_most("(a) client CPU per jet, ours / coffea", 0.6, _against("a", "client CPU µs/jet", COFFEA.name)),
    _at_least("(a) jets/s, ours / perf_analyzer's best", 1.0, _against("a", "jets/s", PERF_ANALYZER.name)),
    _at_least("(b) jets/s, ours / coffea at its best batch", 1.6, _against("b", "jets/s", COFFEA.name)),
    _at_most("(b) server CPU per jet, ours / coffea", 0.65, _against("b", "server CPU µs/jet", COFFEA.name)),
    _at_most("(b) largest difference to local ONNX Runtime", 1e-6, _difference("b")),
    _at_least("(d) ours / the simulated server's limit, 0 ms", 0.97, _share_of_limit("d0")),
    _at_least("(d) ours / the simulated server's limit, 2 ms", 0.97, _share_of_limit("d2")),
    _at_least("(d) ours / the simulated server's limit, 10 ms", 0.95, _share_of_limit("d10")),
    _at_least("(e) packing of seven fields, jets/s of one core", 400e3, _figure("packing jets/s")),
    _at_least("(e) feature arithmetic, jets/s of one core", 400e3, _figure("feature jets/s")),
    _at_most("memory: slope of RSS, MB per 100k jets", 1.0, _figure("RSS MB per 100k jets")),
    _at_most("import eaf_inference, s", 0.25, _figure("import s")),
    _at_most("warm connect() on loopback, s", 0.15, _figure("warm connect s")),
    _at_most("sampler at 1 s, 50 listeners, % of a core", 1.0, _figure("sampler % of a core")),
)
