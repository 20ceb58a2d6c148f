"""What this client is to reach, as ratios within one run: one table, and what was measured beside it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.bench.measuring import Spread
from eaf_inference.bench.plan import OURS
from eaf_inference.bench.workloads import ACCELERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from eaf_inference.bench.measuring import Result

    Figures = Mapping[str, Sequence[float]]
    Values = Callable[[Sequence[Result], Figures], list[float]]

__all__ = ["TARGETS", "Target", "Verdict", "verdicts"]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound, and how the values of each round follow from what was measured; no value where that was not."""

    what: str
    bound: float
    values: Values
    at_least: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what came of it; None where it was not measured."""

    what: str
    target: str
    spread: Spread | None
    met: bool | None


def verdicts(results: Sequence[Result], figures: Figures) -> list[Verdict]:
    """All targets' verdicts, by the medians."""
    found = []
    for target in TARGETS:
        spread = Spread.of(target.values(results, figures))
        met = None
        if spread is not None:
            met = spread.median >= target.bound if target.at_least else spread.median <= target.bound
        sign = "≥" if target.at_least else "≤"
        found.append(Verdict(target.what, f"{sign} {target.bound:,.7g}", spread, met))
    return found


def _against(workload: str, figure: str, name: str) -> Values:
    """Ours over the best entry's of another contender, round by round; the best is the one of most jets/s."""

    def values(results: Sequence[Result], figures: Figures) -> list[float]:  # noqa: ARG001
        ours = _of(results, workload, OURS.name)
        best = _of(results, workload, name)
        if ours is None or best is None:
            return []
        both = zip(ours.values(figure), best.values(figure), strict=False)
        return [mine / theirs for mine, theirs in both if mine is not None and theirs]

    return values


def _of(results: Sequence[Result], workload: str, name: str) -> Result | None:
    measured = [each for each in results if each.workload == workload and each.entry.name == name and each.measures]
    return max(measured, key=_median_rate, default=None)


def _median_rate(result: Result) -> float:
    return statistics.median(measure.seen.jets_per_second for measure in result.measures)


def _share_of_limit(workload: str, name: str = OURS.name) -> Values:
    def values(results: Sequence[Result], figures: Figures) -> list[float]:  # noqa: ARG001
        found = _of(results, workload, name)
        return [each.seen.jets_per_second / ACCELERATOR.limit for each in found.measures] if found else []

    return values


def _difference(workload: str) -> Values:
    def values(results: Sequence[Result], figures: Figures) -> list[float]:  # noqa: ARG001
        ours = _of(results, workload, OURS.name)
        return [value for value in ours.values("largest difference") if value is not None] if ours else []

    return values


def _figure(name: str) -> Values:
    return lambda results, figures: list(figures.get(name, []))  # noqa: ARG005


def _at_least(what: str, bound: float, values: Values) -> Target:
    return Target(what, bound, values, at_least=True)


def _at_most(what: str, bound: float, values: Values) -> Target:
    return Target(what, bound, values, at_least=False)


_COFFEA = "coffea triton_wrapper"

TARGETS = (
    _at_most("(a) client CPU per jet, ours / coffea", 0.6, _against("a", "client CPU µs/jet", _COFFEA)),
    _at_least("(a) jets/s, ours / perf_analyzer's best", 1.0, _against("a", "jets/s", "perf_analyzer (C++)")),
    _at_least("(b) jets/s, ours / coffea at its best batch", 1.6, _against("b", "jets/s", _COFFEA)),
    _at_most("(b) server CPU per jet, ours / coffea", 0.65, _against("b", "server CPU µs/jet", _COFFEA)),
    _at_most("(b) largest difference to local ONNX Runtime", 1e-6, _difference("b")),
    _at_least("(d) ours / the simulated server's limit, 0 ms", 0.97, _share_of_limit("d0")),
    _at_least("(d) the same at 2 ms", 0.97, _share_of_limit("d2")),
    _at_least("(d) the same at 10 ms", 0.95, _share_of_limit("d10")),
    _at_least("(e) packing of seven fields, jets/s of one core", 400e3, _figure("packing jets/s")),
    _at_least("(e) feature arithmetic, jets/s of one core", 400e3, _figure("feature jets/s")),
    _at_most("memory: slope of RSS, MB per 100k jets", 1.0, _figure("RSS MB per 100k jets")),
    _at_most("import eaf_inference, s", 0.25, _figure("import s")),
    _at_most("warm connect() on loopback, s", 0.15, _figure("warm connect s")),
    _at_most("sampler at 1 s, 50 listeners, % of a core", 1.0, _figure("sampler % of a core")),
)
