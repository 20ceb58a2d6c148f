"""One sentence a human wants: what limits the throughput of the present run, and what to change.

The rules are a table, tried from the top; each looks at the same few facts, which are the figures that are shown
beside the sentence (`eaf_inference.metrics.average.averaged`). No number is said that was not measured, or follows
from what was, and where a server does not report what it takes, that is said.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._text import printable
from eaf_inference.metrics.capacity import COMFORTABLE, Capacity
from eaf_inference.metrics.reading import total

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.metrics.snapshot import Host, Instance, ModelLoad, Snapshot

__all__ = ["RULES", "Advice", "Facts", "Kind", "Rule", "Workers", "window_of"]

_FAILING = 0.01  # share of requests
_ROOM = 1.2  # times the present load: what carries so much more is not the limit
_BUSY = COMFORTABLE / _ROOM  # of the time: the same, as a utilization
_IDLE = 0.5
_FULL = 0.8  # of a model's max_batch_size
_SMALL = 0.5
_FEW = 10  # rows, of which a request takes a CPU longer than its rows
_CPU_FULL = 0.95
_SHORT_QUEUE = 0.25  # of the compute time
_LONG = 30.0  # seconds without any answer: a single request may take several


class Kind(enum.Enum):
    """What the present run is like."""

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
class Workers:
    """The listener's own workers, and the inferences/s that they get together."""

    count: int
    inferences_per_second: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What to tell the user.

    Attributes
    ----------
    kind : Kind
    title : str
        What is the limit, in a few words.
    text : str
        Why, and what to change.
    capacity : Capacity or None
        What the numbers in the text follow from, where enough is reported; None where the limit is one that it does
        not see: a replica, or the instances of a model.
    """

    kind: Kind
    title: str
    text: str
    capacity: Capacity | None = None

    def __str__(self) -> str:
        return printable(f"{self.title} {self.text}".strip())

    def as_dict(self) -> dict[str, Any]:
        """Kind, title and text, for JSON."""
        return {"kind": self.kind.value, "title": self.title, "text": self.text}


@dataclass(frozen=True, slots=True)
class Facts:
    """The figures of a run, as the rules look at them.

    Attributes
    ----------
    average : Snapshot
        What is shown.
    model : ModelLoad
        The one with the most requests under way.
    growing : bool
        Whether its queue grows.
    max_batch : int or None
        Its ``max_batch_size``.
    workers : Workers or None
    capacity : Capacity or None
    """

    average: Snapshot
    model: ModelLoad
    growing: bool
    max_batch: int | None
    workers: Workers | None
    capacity: Capacity | None

    @property
    def waits(self) -> bool:
        """Whether requests wait at least as long as they are computed."""
        return _waits(self.model)

    @property
    def is_short(self) -> bool:
        """Whether hardly any request waits."""
        queue, compute = self.model.queue_ms, self.model.compute_ms
        return queue is not None and compute is not None and queue <= _SHORT_QUEUE * compute

    @property
    def gpu(self) -> float | None:
        """Utilization of the GPUs, where it is reported."""
        busy = self.average.busy
        return busy.value if busy and not busy.estimated else None

    @property
    def busiest(self) -> Instance | None:
        """One replica may be saturated while others are idle."""
        known = [each for each in self.average.instances if each.busy is not None]
        return max(known, key=lambda each: each.busy or 0.0, default=None)

    @property
    def utilization(self) -> float | None:
        """Of the bottleneck; where capacity is not known, of what is reported."""
        if self.capacity is not None:
            return self.capacity.utilization
        reported = [self.average.busy.value] if self.average.busy else []
        reported += [each.cpu_utilization for each in self.average.hosts if each.cpu_utilization is not None]
        return max(reported, default=None)

    @property
    def executing(self) -> float | None:
        """Mean number of the model's executions under way in each replica: what runs at once at most is not known."""
        up = sum(instance.up for instance in self.average.instances)
        return None if self.model.executing is None else self.model.executing / max(1, up)

    @property
    def cpu(self) -> Host | None:
        """The machine whose CPUs are busiest."""
        known = [host for host in self.average.hosts if host.cpu_utilization is not None]
        return max(known, key=lambda host: host.cpu_utilization or 0.0, default=None)

    @property
    def full_host(self) -> Host | None:
        """The same, if they are full."""
        return self.cpu if self.cpu and (self.cpu.cpu_utilization or 0.0) >= _CPU_FULL else None

    @property
    def batch_share(self) -> float | None:
        return self.model.batch / self.max_batch if self.model.batch and self.max_batch else None

    @property
    def failing(self) -> float:
        """Share of all models' requests that failed."""
        failed = total(model.failures_per_second for model in self.average.models) or 0.0
        answered = total(model.requests_per_second for model in self.average.models) or 0.0
        return failed / (failed + answered) if failed else 0.0


def window_of(average: Snapshot) -> str:
    """The time that figures are of, in words: "the last 23 s"."""
    return f"the last {max(1.0, average.window or 0.0):.0f} s"


def _waits(model: ModelLoad) -> bool:
    return model.queue_ms is not None and model.compute_ms is not None and model.queue_ms >= model.compute_ms


def _is_idle(facts: Facts) -> bool:
    return not any(model.requests_per_second for model in facts.average.models)


def _has_pending(facts: Facts) -> bool:
    """Requests are there, and none was answered."""
    return _is_idle(facts) and any(model.pending for model in facts.average.models)


def _is_cpu_bound(facts: Facts) -> bool:
    """The CPUs are full, and no GPU is busy enough to be what requests wait for."""
    return facts.full_host is not None and not (facts.waits and (facts.gpu or 0.0) >= _BUSY)


def _is_uneven(facts: Facts) -> bool:
    busy, busiest = facts.average.busy, facts.busiest
    return facts.waits and busy is not None and busiest is not None and busy.value < _BUSY <= (busiest.busy or 0.0)


def _is_idle_gpu(facts: Facts) -> bool:
    """Requests that wait for a model which is idle at other times came in a burst."""
    if facts.gpu is None or facts.gpu >= _BUSY:
        return False
    return facts.waits if facts.executing is None else facts.executing >= _BUSY and not facts.is_short


def _is_server_bound(facts: Facts) -> bool:
    return facts.waits and (facts.utilization is None or facts.utilization >= _BUSY)


def _is_client_bound(facts: Facts) -> bool:
    if facts.utilization is None:
        return facts.is_short
    if facts.executing is not None and facts.executing >= _BUSY:
        return False  # its instances may be the limit, whatever GPUs and CPUs do
    return facts.utilization < _IDLE or (facts.utilization < _BUSY and (facts.is_short or facts.waits))


def _keeps_up(facts: Facts) -> bool:
    """Nothing waits, and what is busy all the time is some instance of a model, which may have others."""
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
    return f"{_pending(facts)} yet, in {window_of(facts.average)}."


def _server_bound(facts: Facts) -> str:
    share, batch = facts.batch_share, facts.model.batch
    if share is not None and share >= _FULL:
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
        f"{facts.max_batch:,}. Larger requests, or a dynamic batcher in the model's configuration, come before more "
        "servers."
    )


def _uneven(facts: Facts) -> str:
    busiest, busy = facts.busiest, facts.average.busy
    assert busiest is not None and busy is not None  # noqa: S101, PT018  (the rule says so)
    return (
        f"{facts.model.name}: {_wait(facts)} while {busiest.id} is busy {busiest.busy:.0%} of the time, and all "
        f"{len(facts.average.instances)} replicas {busy.value:.0%}. A connection stays with one replica; a balancer "
        "that spreads requests, or more connections, would use the rest."
    )


def _idle_gpu(facts: Facts) -> str:
    return (
        f"{facts.model.name}: {_wait(facts)} while the GPU is busy {facts.gpu:.0%} of the time. A second instance of "
        "the model on each GPU (instance_group in its configuration), or larger batches, would use the rest."
    )


def _cpu_bound(facts: Facts) -> str:
    host = facts.full_host
    assert host is not None  # noqa: S101  (the rule says so)
    batch = facts.model.batch
    larger = f"Batches hold {_number(batch)}: larger requests take less of them. " if batch and batch < _FEW else ""
    return (
        f"The CPUs of {host.name} are {host.cpu_utilization:.0%} busy with all that runs there, and {_wait(facts)}. "
        f"{larger}More workers will not help; another machine, or fewer other programs on this one, would."
    )


def _client_bound(facts: Facts) -> str:
    bursts = ", as they come in bursts" if facts.waits else ""
    more = "More workers, or more requests in flight, bring more."
    return f"{_how_busy(facts)}, and {_wait(facts)}{bursts}. {more} {_room(facts)}"


def _keeping_up(facts: Facts) -> str:
    return (
        f"{_how_busy(facts)}, and {_wait(facts)}. How many run at once at most is not "
        "reported: more requests in flight, or more workers, bring more until they wait."
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
    """How much more it carries, in workers where they are known; an estimate sees no two executions at once."""
    capacity, workers = facts.capacity, facts.workers
    if capacity is None:
        return "How much more this server carries is not reported."
    about = "at least" if capacity.estimated else "about"
    if workers and workers.count > 0 and workers.inferences_per_second > 0:
        carried = capacity.workers(workers.count, workers.inferences_per_second)
        if carried > workers.count:
            return f"With batches as they are, it carries {about} {carried:,} workers like your {workers.count:,}."
        if capacity.room < 1:
            return f"With batches as they are, it carries no more than your {workers.count:,} workers."
    if capacity.room >= 1.1:
        return f"With batches as they are, it carries {about} {capacity.room:,.1f} times this load."
    return "With batches as they are, it carries little more than this load."


def _one_more(instances: int) -> str:
    return {1: "a second", 2: "a third", 3: "a fourth", 4: "a fifth"}.get(instances, "another")


def _number(value: float | None) -> str:
    if value is None:
        return "(not reported)"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a kind of advice applies, and what it says.

    Attributes
    ----------
    kind : Kind
    applies : callable
        Whether the facts are such.
    title : str
    text : callable
        Of the facts.
    sees_limit : bool
        Whether the limit is one that `Capacity` sees.
    """

    kind: Kind
    applies: Callable[[Facts], bool]
    title: str
    text: Callable[[Facts], str]
    sees_limit: bool = True

    def advice(self, facts: Facts) -> Advice:
        """What it says."""
        return Advice(self.kind, self.title, self.text(facts), facts.capacity if self.sees_limit else None)


# the first that applies is said
RULES = (
    Rule(Kind.FAILURES, lambda facts: facts.failing >= _FAILING, "Requests fail.", _failures),
    Rule(
        Kind.STUCK,
        lambda facts: _has_pending(facts) and (facts.average.window or 0.0) >= _LONG,
        "The server does not get on.",
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
