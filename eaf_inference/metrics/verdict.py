"""The verdict on a server's load: the figures of the current run and the advice that every view shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eaf_inference.metrics.advice import RULES, Advice, Kind
from eaf_inference.metrics.average import LONGEST, PAUSE, averaged, mean_of, run_of, window_of
from eaf_inference.metrics.capacity import Capacity
from eaf_inference.metrics.facts import Facts
from eaf_inference.metrics.snapshot import Snapshot
from eaf_inference.metrics.totals import request_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eaf_inference.metrics.advice import Rule
    from eaf_inference.metrics.snapshot import ModelLoad
    from eaf_inference.metrics.workers import Workers

__all__ = ["Verdict", "advise", "judge"]

_ENOUGH = PAUSE  # seconds of load, or of idleness, before there is advice
_RECENT = (PAUSE / 2, PAUSE)  # seconds; advice that holds in neither is withdrawn
_GROWING = 1.5  # times the queue of the previous half minute
_HALF = LONGEST / 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures of a server's load, and the advice.

    Attributes
    ----------
    average : Snapshot
        The figures, see `eaf_inference.metrics.average.averaged`. Its `window` is the time that they cover.
    advice : Advice or None
        None after too little load, or too short a pause.
    """

    average: Snapshot
    advice: Advice | None

    def as_dict(self) -> dict[str, Any]:
        """Return figures and advice for JSON."""
        return {"average": self.average.as_dict(), "advice": self.advice.as_dict() if self.advice else None}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Verdict:
        """Rebuild a verdict from the result of `as_dict`."""
        advice = content["advice"]
        return cls(
            Snapshot.from_dict(content["average"]),
            Advice(Kind(advice["kind"]), advice["title"], advice["text"]) if advice else None,
        )


def advise(
    snapshots: Sequence[Snapshot], *, workers: Workers | None = None, max_batch: Mapping[str, int] | None = None
) -> Advice | None:
    """Return only the advice of `judge`."""
    return judge(snapshots, workers=workers, max_batch=max_batch).advice


def judge(
    snapshots: Sequence[Snapshot], *, workers: Workers | None = None, max_batch: Mapping[str, int] | None = None
) -> Verdict:
    """Return the figures of the current run, and the advice.

    Advice needs five seconds of load. If the last seconds contradict the advice for the whole run, figures and advice
    cover only the latest part of the run: as long as each five seconds give the same advice as the last ones.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Oldest first.
    workers : Workers, optional
        The user's own workers; with them, the advice states the server's capacity in workers.
    max_batch : mapping, optional
        Model name → ``max_batch_size`` of its configuration. Metrics do not report the size of a full batch.
    """
    run = run_of(snapshots)
    if not run or not snapshots[-1].models:  # the server may have gone since
        average = averaged(snapshots)
        return Verdict(average, _without_load(average, snapshots))

    def part(begins: float, ends: float = 0.0) -> Sequence[Snapshot]:
        """Return the snapshots whose age is at least `ends` and less than `begins` seconds."""
        return [snapshot for snapshot in run if ends <= run[-1].time - snapshot.time < begins]

    def judged(chosen: Sequence[Snapshot]) -> tuple[Facts, Rule]:
        facts = _facts(chosen, snapshots[-1], workers, max_batch or {})
        return facts, next(rule for rule in RULES if rule.applies(facts))

    facts, rule = judged(run)
    if (facts.average.window or 0.0) < _ENOUGH:
        return Verdict(facts.average, None)
    recent = [judged(part(seconds)) for seconds in _RECENT]
    if not any(_still_holds(rule, now, recently) for recently, now in recent):
        since, (facts, rule) = PAUSE, recent[-1]
        while (before := part(since + PAUSE, since)) and judged(before)[1].kind is rule.kind:
            since += PAUSE
        facts, rule = judged(part(since)) if since > PAUSE else (facts, rule)
    return Verdict(facts.average, rule.advice(facts))


def _still_holds(rule: Rule, now: Rule, recently: Facts) -> bool:
    """Return whether the rule still holds.

    `Kind.BALANCED` always applies, so it holds only while no other rule comes first.
    """
    if rule.kind is Kind.STUCK:  # a few seconds are too short to see it again
        return now.kind is Kind.NOTHING_MEASURED
    return now.kind is rule.kind or (rule.kind is not Kind.BALANCED and rule.applies(recently))


def _facts(run: Sequence[Snapshot], newest: Snapshot, workers: Workers | None, max_batch: Mapping[str, int]) -> Facts:
    average = replace(mean_of(run, of=newest), time=newest.time)
    model = max(average.models, key=_under_way)
    most = max_batch.get(model.name) or None
    return Facts(average, model, _is_growing(run, model), most, workers, Capacity.measured(average))


def _under_way(model: ModelLoad) -> float:
    return (model.waiting or 0.0) + (model.executing or 0.0) + (model.pending or 0.0)


def _is_growing(run: Sequence[Snapshot], model: ModelLoad) -> bool:
    halves = (
        [snapshot for snapshot in run if run[-1].time - snapshot.time > _HALF],
        [snapshot for snapshot in run if run[-1].time - snapshot.time <= _HALF],
    )
    if not all(halves):
        return False
    before, after = (
        next((m.queue_ms for m in mean_of(half).models if (m.name, m.version) == (model.name, model.version)), None)
        for half in halves
    )
    return before is not None and after is not None and after > _GROWING * before


def _without_load(average: Snapshot, snapshots: Sequence[Snapshot]) -> Advice | None:
    """Return that there is no load, or why that is not known; None in the first seconds."""
    if request_rate(average) is not None:
        if (average.window or 0.0) < _ENOUGH:
            return None
        return Advice(Kind.NO_LOAD, "No load.", f"No request came in {window_of(average)}.")
    is_early = bool(snapshots) and snapshots[-1].time - snapshots[0].time < _ENOUGH
    if is_early and average.sources and not any(source.error for source in average.sources):
        return None
    return Advice(Kind.NOTHING_MEASURED, "Nothing is measured.", _why_nothing(average))


def _why_nothing(average: Snapshot) -> str:
    errors = [f"{source.name}: {source.error}" for source in average.sources if source.error]
    if errors:
        return f"{errors[0]}." if len(errors) == 1 else f"{errors[0]} (and {len(errors) - 1} more)."
    if not average.sources:
        return "No metrics endpoint is configured for this facility."
    if any(source.age is not None for source in average.sources):
        return "The server answers, but reports no rates of models yet."
    return "No metrics endpoint has answered yet."
