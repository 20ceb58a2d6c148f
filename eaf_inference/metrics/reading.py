"""From what sources measured to one `Snapshot`: sums over replicas, ratios of sums, and who is believed.

A `Reading` is what one source told, still in the counters' own units and per replica, so that Triton's text and
Prometheus' answers meet here and every formula of `snapshot` is computed in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from eaf_inference.metrics.snapshot import Busy, Gpu, Host, Instance, ModelLoad, Snapshot, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["MOST_GPUS", "MOST_INSTANCES", "MOST_MODELS", "Reading", "Replica", "assemble", "clip", "is_plausible"]

MOST_MODELS = 1000  # versions of models of one source
MOST_GPUS = 256
MOST_INSTANCES = 256
_LONGEST_NAME = 200  # characters
_LARGEST = 1e18  # of anything: 30,000 years in µs, or an exabyte


@dataclass(frozen=True, slots=True)
class Replica:
    """What one Triton told.

    Attributes
    ----------
    id, host, url
        As in `Instance`.
    up : bool
    models : mapping
        (name, version) → field → increase per second of a counter, or a gauge's value. Fields are those of
        `eaf_inference.metrics.exposition.TABLE`.
    gpus : tuple of Gpu
        That it reports itself.
    machine : Host or None
    """

    id: str
    host: str | None
    url: str | None
    up: bool
    models: Mapping[tuple[str, str], Mapping[str, float]]
    gpus: tuple[Gpu, ...] = ()
    machine: Host | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source told at one moment; `gpus` are those that belong to no replica in particular."""

    replicas: tuple[Replica, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    window: float | None = None
    left_out: int = 0


def assemble(readings: Sequence[Reading], *, time: float, sources: Sequence[Source] = ()) -> Snapshot:
    """One snapshot of what all sources told.

    Readings come in the order of trust. Replicas are taken from the first that measured rates, or else saw a
    replica up: two sources that watch the same replicas must not count them twice. GPUs are taken from all, one's
    gaps filled by the next.
    """
    chosen = _most_telling(readings)
    gpus = _merged([*(gpu for replica in chosen.replicas for gpu in replica.gpus), *_all_gpus(readings)])
    instances = _with_shares([_instance(replica) for replica in chosen.replicas])
    hosts = {replica.machine.name: replica.machine for replica in chosen.replicas if replica.machine}
    return Snapshot(
        time=time,
        window=chosen.window,
        busy=_busy(gpus, instances),
        gpus=gpus,
        models=_models(chosen.replicas),
        instances=instances,
        hosts=tuple(hosts.values()),
        sources=tuple(sources),
    )


def is_plausible(value: float) -> bool:
    """Whether it can be a count or a measure: not NaN, not negative, and sums of it stay finite."""
    return 0 <= value <= _LARGEST


def clip(name: str) -> str:
    """A label's text, at a length that a screen and a memory can bear."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _most_telling(readings: Sequence[Reading]) -> Reading:
    """The direct scrapes together, each being of one replica; or what stands in for them."""
    direct = [reading for reading in readings if all(replica.url for replica in reading.replicas)]
    together = Reading(
        tuple(replica for reading in direct for replica in reading.replicas),
        window=max((reading.window for reading in direct if reading.window), default=None),
    )
    candidates = [together, *(reading for reading in readings if reading not in direct)]
    for telling in (_has_rates, _is_up):
        for reading in candidates:
            if any(telling(replica) for replica in reading.replicas):
                return reading
    return next((reading for reading in candidates if reading.replicas), together)


def _has_rates(replica: Replica) -> bool:
    return any("inferences" in fields for fields in replica.models.values())


def _is_up(replica: Replica) -> bool:
    return replica.up


def _all_gpus(readings: Iterable[Reading]) -> list[Gpu]:
    return [gpu for reading in readings for gpu in reading.gpus]


def _merged(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """One entry for each id; the later fills what the earlier lacks."""
    found: dict[str, Gpu] = {}
    for gpu in gpus:
        known = found.get(gpu.id)
        if known is None:
            found[gpu.id] = gpu
        else:
            gaps = [field.name for field in fields(Gpu) if getattr(known, field.name) is None]
            found[gpu.id] = replace(known, **{name: getattr(gpu, name) for name in gaps})
    return tuple(found.values())[:MOST_GPUS]


def _models(replicas: Sequence[Replica]) -> tuple[ModelLoad, ...]:
    """Busiest first, then by name."""
    by_model: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for replica in replicas:
        for key, measured in replica.models.items():
            by_model.setdefault(key, []).append(measured)
    loads = [_load(name, version, rows) for (name, version), rows in by_model.items()]
    return tuple(sorted(loads, key=lambda load: (-(load.inferences_per_second or 0.0), load.name, load.version)))


def _load(name: str, version: str, rows: Sequence[Mapping[str, float]]) -> ModelLoad:
    compute = [ratio(rows, f"compute_{part}_us", "requests") for part in ("input", "infer", "output")]
    queue = ratio(rows, "queue_us", "requests")
    waiting = total(row.get("queue_us") for row in rows)
    return ModelLoad(
        name=name,
        version=version,
        inferences_per_second=total(row.get("inferences") for row in rows),
        requests_per_second=total(row.get("requests") for row in rows),
        failures_per_second=total(row.get("failures") for row in rows),
        batch=ratio(rows, "inferences", "executions") or None,  # failed executions count no inference
        queue_ms=None if queue is None else queue / 1e3,
        compute_ms=None if None in compute else sum(part or 0.0 for part in compute) / 1e3,
        pending=total(row.get("pending") for row in rows),
        waiting=None if waiting is None else waiting / 1e6,
        executing=total(_executing(row) for row in rows),
    )


def _executing(row: Mapping[str, float]) -> float | None:
    """See `ModelLoad.executing`. Failed executions have no request beside them: a ratio above 1 says nothing."""
    try:
        compute, executions, requests = row["compute_infer_us"], row["executions"], row["requests"]
    except KeyError:
        return None
    return compute / 1e6 * (min(1.0, executions / requests) if requests > 0 else 1.0)


def _instance(replica: Replica) -> Instance:
    measured = [gpu.utilization for gpu in replica.gpus if gpu.utilization is not None]
    executing = total(_executing(row) for row in replica.models.values())
    busy = mean(measured) if measured else None if executing is None else min(1.0, executing)
    return Instance(
        id=replica.id,
        host=replica.host,
        url=replica.url,
        up=replica.up,
        inferences_per_second=total(row.get("inferences") for row in replica.models.values()),
        busy=busy,
        busy_estimated=None if busy is None else not measured,
    )


def _with_shares(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    whole = total(instance.inferences_per_second for instance in instances)
    if not whole:
        return tuple(instances)
    return tuple(
        instance
        if instance.inferences_per_second is None
        else replace(instance, share=instance.inferences_per_second / whole)
        for instance in instances
    )


def _busy(gpus: Iterable[Gpu], instances: Iterable[Instance]) -> Busy | None:
    if measured := [gpu.utilization for gpu in gpus if gpu.utilization is not None]:
        return Busy(mean(measured), "GPU", estimated=False)
    if estimated := [instance.busy for instance in instances if instance.busy is not None]:
        return Busy(mean(estimated), "compute time", estimated=True)
    return None


def total(values: Iterable[float | None]) -> float | None:
    """The sum of what is reported; None where nothing is."""
    reported = [value for value in values if value is not None]
    return math.fsum(reported) if reported else None


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def ratio(rows: Iterable[Mapping[str, float]], above: str, below: str) -> float | None:
    """Σ above / Σ below of the rows that have both; None where nothing was counted below."""
    both = [(row[above], row[below]) for row in rows if above in row and below in row]
    counted = math.fsum(row[1] for row in both)
    return math.fsum(row[0] for row in both) / counted if counted > 0 else None
