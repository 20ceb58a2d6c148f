"""Advice to the user: what limits the throughput of the current run, and what to change.

The rules are a table, and the first that applies gives the advice. All look at the same `Facts`, which are the
figures that are shown beside the advice. Every number in it was measured or follows from measurements, and it says
when the server does not report enough.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._text import printable
from eaf_inference.metrics.average import window_of
from eaf_inference.metrics.capacity import COMFORTABLE, Capacity

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.metrics.facts import Facts

__all__ = ["RULES", "Advice", "Kind", "Rule"]

_FAILING = 0.01  # share of requests
_ROOM = 1.2  # times the current load; a resource with room for more is not the limit
_BUSY = COMFORTABLE / _ROOM  # the same as a utilization
_IDLE = 0.5
_FULL = 0.8  # of a model's max_batch_size
_SMALL = 0.5
_FEW = 10  # rows; in a smaller request, most CPU time goes to the request itself
_LONG = 30.0  # seconds without any answer; a single request may take several


class Kind(enum.Enum):
    """The kind of advice. The same strings are in ``openapi.yaml`` and in the labextension."""

    NOTHING_MEASURED = "nothing measured"
    FAILURES = "failures"
    STUCK = "stuck"
    NO_LOAD = "no load"
    UNEVEN = "uneven"
    IDLE_GPU = "idle GPU"
    SMALL_BATCHES = "small batches"
    SERVER_BOUND = "server bound"
    CPU_BOUND = "CPU bound"
    CLIENT_BOUND = "client bound"
    KEEPS_UP = "keeps up"
    BALANCED = "balanced"


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice.

    Attributes
    ----------
    kind : Kind
    title : str
        The limit, in a few words.
    text : str
        The reason, and what to change.
    capacity : Capacity or None
        The source of the numbers in the text, if enough is reported. None if it does not see the limit: one of the
        replicas, or the instances of a model.
    """

    kind: Kind
    title: str
    text: str
    capacity: Capacity | None = None

    def __str__(self) -> str:
        return printable(f"{self.title} {self.text}".strip())

    def as_dict(self) -> dict[str, Any]:
        """Return kind, title and text for JSON."""
        return {"kind": self.kind.value, "title": self.title, "text": self.text}


def _is_idle(facts: Facts) -> bool:
    return not any(model.requests_per_second for model in facts.average.models)


def _has_pending(facts: Facts) -> bool:
    """Requests are pending, and none was answered."""
    return _is_idle(facts) and any(model.pending for model in facts.average.models)


def _is_cpu_bound(facts: Facts) -> bool:
    """The CPUs are full, and requests do not wait for a busy GPU."""
    return facts.full_host is not None and not (facts.waits and (facts.gpu or 0.0) >= _BUSY)


def _is_uneven(facts: Facts) -> bool:
    busy, busiest = facts.average.busy, facts.busiest
    return facts.waits and busy is not None and busiest is not None and busy.value < _BUSY <= (busiest.busy or 0.0)


def _is_idle_gpu(facts: Facts) -> bool:
    """Instances of the model are busy while the GPU is not. Short queues and bursts do not count."""
    if facts.gpu is None or facts.gpu >= _BUSY:
        return False
    return facts.waits if facts.executing is None else facts.executing >= _BUSY and not facts.is_short


def _is_server_bound(facts: Facts) -> bool:
    return facts.waits and (facts.utilization is None or facts.utilization >= _BUSY)


def _is_client_bound(facts: Facts) -> bool:
    if facts.utilization is None:
        return facts.is_short
    if facts.executing is not None and facts.executing >= _BUSY:
        return False  # its instances may be the limit even if GPUs and CPUs are idle
    return facts.utilization < _IDLE or (facts.utilization < _BUSY and (facts.is_short or facts.waits))


def _keeps_up(facts: Facts) -> bool:
    """Requests hardly wait, and neither GPU nor CPUs are busy, although an instance of the model may be."""
    cpu = facts.cpu.cpu_utilization if facts.cpu else None
    return facts.is_short and facts.average.busy is not None and (facts.gpu or 0.0) < _BUSY and (cpu or 0.0) < _BUSY


def _failures(facts: Facts) -> str:
    worst = max(facts.average.models, key=lambda model: model.failures_per_second or 0.0)
    return (
        f"{facts.failing:.0%} of requests fail, most of them of {worst.name} "
        f"({_number(worst.failures_per_second)} a second). See the error in the notebook, or the server's log."
    )


def _pending(facts: Facts) -> str:
    waiting = next(model for model in facts.average.models if model.pending)
    return f"{_number(waiting.pending)} requests to {waiting.name} are pending and none was answered"


def _stuck(facts: Facts) -> str:
    return f"{_pending(facts)} in {window_of(facts.average)}."


def _too_early(facts: Facts) -> str:
    return f"{_pending(facts)} in {window_of(facts.average)}, but they may take longer."


def _server_bound(facts: Facts) -> str:
    batch = facts.model.batch
    if _is_full(facts):
        batches = f"batches are full ({_number(batch)} of {facts.max_batch:,}) and "
    else:
        batches = "" if batch is None else f"batches hold {_number(batch)} and "
    up = sum(instance.up for instance in facts.average.instances)
    where = f", on another machine than {facts.full_host.name}, whose CPUs are full" if facts.full_host else ""
    more = f"More workers will not help; {_one_more(up)} replica would{where}."
    return f"{facts.model.name}: {batches}{_wait(facts)}. {more}"


def _small_batches(facts: Facts) -> str:
    return (
        f"{facts.model.name}: {_wait(facts)} while executed batches hold {_number(facts.model.batch)} of "
        f"{facts.max_batch:,}. Larger requests, or a dynamic batcher in the model's configuration, help more than "
        "another replica."
    )


def _is_full(facts: Facts) -> bool:
    return facts.batch_share is not None and facts.batch_share >= _FULL


def _uneven(facts: Facts) -> str:
    busiest, busy = facts.busiest, facts.average.busy
    assert busiest is not None and busy is not None  # noqa: S101, PT018  (or the rule does not apply)
    return (
        f"{facts.model.name}: {_wait(facts)} while {busiest.id} is busy {busiest.busy:.0%} of the time, and all "
        f"{len(facts.average.instances)} replicas {busy.value:.0%}. A connection stays with one replica; a balancer "
        "that spreads requests, or more connections, would use the rest."
    )


def _idle_gpu(facts: Facts) -> str:
    larger = "" if _is_full(facts) else ", or larger batches,"
    return (
        f"{facts.model.name}: {_wait(facts)} while the GPU is busy {facts.gpu:.0%} of the time. A second instance of "
        f"the model on each GPU (instance_group in its configuration){larger} would use the rest."
    )


def _cpu_bound(facts: Facts) -> str:
    host = facts.full_host
    assert host is not None  # noqa: S101  (or the rule does not apply)
    batch = facts.model.batch
    is_small = batch and batch < _FEW and not _is_full(facts)
    larger = f"Batches hold {_number(batch)}: larger requests need less CPU time. " if is_small else ""
    return (
        f"The CPUs of {host.name} are {host.cpu_utilization:.0%} busy with all programs there, and {_wait(facts)}. "
        f"{larger}More workers will not help; another machine, or fewer other programs on this one, would."
    )


def _client_bound(facts: Facts) -> str:
    bursts = ", because they come in bursts" if facts.waits else ""
    more = "More workers, or more requests in flight, will raise the rate."
    return f"{_how_busy(facts)}, and {_wait(facts)}{bursts}. {more} {_room(facts)}"


def _keeping_up(facts: Facts) -> str:
    return (
        f"{_how_busy(facts)}, and {_wait(facts)}. The limit of parallel executions is not reported: more workers, "
        "or more requests in flight, will raise the rate until requests wait."
    )


def _balanced(facts: Facts) -> str:
    return f"{_how_busy(facts)}, and {_wait(facts)}. {_room(facts)}"


def _wait(facts: Facts) -> str:
    queue = facts.model.queue_ms
    if queue is None:
        return "queue time is not reported"
    return f"requests wait {_number(queue)} ms{' and ever longer' if facts.growing and facts.waits else ''}"


def _how_busy(facts: Facts) -> str:
    busy, cpu = facts.average.busy, facts.cpu
    cpus = f", the CPUs of {cpu.name} are {cpu.cpu_utilization:.0%} busy" if cpu else ""
    missing = "GPU utilization is not reported" if facts.average.gpus else "no GPU is reported"
    if busy is None:
        return missing[0].upper() + missing[1:] + cpus
    if busy.estimated:
        return f"Models compute {busy.value:.0%} of the time (estimated; {missing}){cpus}"
    return f"The GPU is busy {busy.value:.0%} of the time"


def _room(facts: Facts) -> str:
    """Return how much more the server carries; "at least", because an estimate misses parallel executions."""
    capacity, workers = facts.capacity, facts.workers
    if capacity is None:
        return "The server does not report enough to say how much more it carries."
    about = "at least" if capacity.estimated else "about"
    if workers and workers.count > 0 and workers.inferences_per_second > 0:
        carried = capacity.workers(workers.count, workers.inferences_per_second)
        if carried > workers.count:
            return f"With batches of this size, it carries {about} {carried:,} workers like your {workers.count:,}."
        if capacity.room < 1:
            return f"With batches of this size, it carries no more than your {workers.count:,} workers."
    if capacity.room >= 1.1:
        return f"With batches of this size, it carries {about} {capacity.room:,.1f} times this load."
    return "With batches of this size, it carries little more than this load."


def _one_more(instances: int) -> str:
    return {1: "a second", 2: "a third", 3: "a fourth", 4: "a fifth"}.get(instances, "another")


def _number(value: float | None) -> str:
    if value is None:
        return "(not reported)"
    if 0 < value < 0.001:
        return "<0.001"  # not 4e-05
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of advice: when it applies, and its text.

    Attributes
    ----------
    kind : Kind
    applies : callable
        Returns whether it applies to these facts.
    title : str
    text : callable
        Returns the text for these facts.
    sees_limit : bool
        Whether `Capacity` sees this limit.
    """

    kind: Kind
    applies: Callable[[Facts], bool]
    title: str
    text: Callable[[Facts], str]
    sees_limit: bool = True

    def advice(self, facts: Facts) -> Advice:
        """Return the advice for these facts."""
        return Advice(self.kind, self.title, self.text(facts), facts.capacity if self.sees_limit else None)


# In order: the first that applies is shown.
RULES = (
    Rule(Kind.FAILURES, lambda facts: facts.failing >= _FAILING, "Requests fail.", _failures),
    Rule(
        Kind.STUCK,
        lambda facts: _has_pending(facts) and (facts.average.window or 0.0) >= _LONG,
        "The server makes no progress.",
        _stuck,
    ),
    Rule(Kind.NOTHING_MEASURED, _has_pending, "Nothing is measured yet.", _too_early),
    Rule(Kind.CPU_BOUND, _is_cpu_bound, "The server's CPUs are the limit.", _cpu_bound),
    Rule(Kind.UNEVEN, _is_uneven, "One replica is the limit.", _uneven, sees_limit=False),
    Rule(Kind.IDLE_GPU, _is_idle_gpu, "The model's instances are the limit.", _idle_gpu, sees_limit=False),
    Rule(
        Kind.SMALL_BATCHES,
        lambda facts: _is_server_bound(facts) and facts.batch_share is not None and facts.batch_share < _SMALL,
        "Small batches are the limit.",
        _small_batches,
    ),
    Rule(Kind.SERVER_BOUND, _is_server_bound, "The server is the limit.", _server_bound),
    Rule(Kind.CLIENT_BOUND, _is_client_bound, "The clients are the limit.", _client_bound),
    Rule(Kind.KEEPS_UP, _keeps_up, "The server keeps up.", _keeping_up, sees_limit=False),
    Rule(Kind.BALANCED, lambda _: True, "The server is well used.", _balanced),
)
