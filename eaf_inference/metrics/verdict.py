"""What is shown of a server's load, made in one place: the figures of the present run, and the advice on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eaf_inference.metrics.advice import RULES, Advice, Facts, Kind, window_of
from eaf_inference.metrics.average import LONGEST, PAUSE, averaged, mean_of, run_of
from eaf_inference.metrics.capacity import Capacity
from eaf_inference.metrics.reading import total
from eaf_inference.metrics.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eaf_inference.metrics.advice import Rule, Workers
    from eaf_inference.metrics.snapshot import ModelLoad

__all__ = ["Verdict", "advise", "judge"]

_ENOUGH = PAUSE  # seconds of load, or of none, before anything is said of it
_RECENT = (PAUSE / 2, PAUSE)  # seconds: what holds in neither is said no longer
_GROWING = 1.5  # times the queue of the half minute before
_HALF = LONGEST / 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures of a server's load, and what they say.

    Attributes
    ----------
    average : Snapshot
        The figures; see `eaf_inference.metrics.average.averaged`. Its `window` is the time that they are of.
    advice : Advice or None
        None while there has been too little load, or too short a pause, to say anything.
    """

    average: Snapshot
    advice: Advice | None

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"average": self.average.as_dict(), "advice": self.advice.as_dict() if self.advice else None}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Verdict:
        """What `as_dict` gave."""
        advice = content["advice"]
        return cls(
            Snapshot.from_dict(content["average"]),
            Advice(Kind(advice["kind"]), advice["title"], advice["text"]) if advice else None,
        )


def advise(
    snapshots: Sequence[Snapshot], *, workers: Workers | None = None, max_batch: Mapping[str, int] | None = None
) -> Advice | None:
    """The advice of `judge` alone."""
    return judge(snapshots, workers=workers, max_batch=max_batch).advice


def judge(
    snapshots: Sequence[Snapshot], *, workers: Workers | None = None, max_batch: Mapping[str, int] | None = None
) -> Verdict:
    """The figures of the present run, and what they say.

    Advice needs five seconds of load. What the whole run says and its last seconds deny is taken back: figures and
    advice are then of the time in which each five seconds said what the last ones say, until the run says the same.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Oldest first.
    workers : Workers, optional
        The user's own; with them, the advice says in workers how much the server carries.
    max_batch : mapping, optional
        Model name → ``max_batch_size`` of its configuration, which says what a full batch is. Metrics do not.
    """
    run = run_of(snapshots)
    if not run or not snapshots[-1].models:  # the server may have gone since
        average = averaged(snapshots)
        return Verdict(average, _without_load(average, snapshots))

    def part(begins: float, ends: float = 0.0) -> Sequence[Snapshot]:
        """What is older than the newest by less than the one number of seconds, and not by less than the other."""
        return [snapshot for snapshot in run if ends <= run[-1].time - snapshot.time < begins]

    def judged(snapshots_of_it: Sequence[Snapshot]) -> tuple[Facts, Rule]:
        facts = _facts(snapshots_of_it, snapshots[-1], workers, max_batch or {})
        return facts, next(rule for rule in RULES if rule.applies(facts))

    facts, rule = judged(run)
    if (facts.average.window or 0.0) < _ENOUGH:
        return Verdict(facts.average, None)
    recent = [judged(part(seconds)) for seconds in _RECENT]
    if not any(_still_holds(rule, now, of) for of, now in recent):
        since, (facts, rule) = PAUSE, recent[-1]
        while (before := part(since + PAUSE, since)) and judged(before)[1].kind is rule.kind:
            since += PAUSE
        facts, rule = judged(part(since)) if since > PAUSE else (facts, rule)
    return Verdict(facts.average, rule.advice(facts))


def _still_holds(rule: Rule, now: Rule, recently: Facts) -> bool:
    """Whether the last seconds say the same, or do not deny it; "well used" is what remains, and applies always."""
    if rule.kind is Kind.STUCK:  # which takes longer than a few seconds to see
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
    """That nobody asks for anything, or why that is not known; None in the first seconds."""
    if total(model.requests_per_second for model in average.models) is not None:
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
        return "This facility names no place where metrics are."
    if any(source.age is not None for source in average.sources):
        return "The server answers, but reports no rates of models yet."
    return "No source has answered yet."
