"""Readings of several sources, combined into one `Snapshot`.

A `Reading` holds what one source measured, per replica and in the units of the counters. Triton's text and
Prometheus' answers both become readings, so every formula of `snapshot` is computed here once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from eaf_inference._text import shortened
from eaf_inference.metrics.snapshot import Busy, Gpu, Host, ModelLoad, ReplicaLoad, Snapshot, Source
from eaf_inference.metrics.totals import mean, ratio, total

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
    """What was measured of one Triton.

    Attributes
    ----------
    id, host, url
        As in `ReplicaLoad`.
    up : bool
    models : mapping
        (name, version) → field → a counter's increase per second, or a gauge's value. The fields are those of
        `eaf_inference.metrics.names.TRITON`.
    gpus : tuple of Gpu
        Those that this Triton reports.
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
    """What one source measured at one moment; `gpus` belong to no particular replica."""

    replicas: tuple[Replica, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    window: float | None = None
    left_out: int = 0


def assemble(readings: Sequence[Reading], *, time: float, sources: Sequence[Source] = ()) -> Snapshot:
    """Combine the readings of all sources into a snapshot.

    Readings come in order of trust. Replicas come from the first reading that has rates, or else that saw a replica
    up, because two sources that watch the same replicas must not count them twice. GPUs come from all readings; a
    later one fills gaps of an earlier one.
    """
    chosen = _best_reading(readings)
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
    """Return whether a value can be a count or a measure: not NaN, not negative, and small enough to add up."""
    return 0 <= value <= _LARGEST


def clip(name: str) -> str:
    """Return a label's text, cut to a length that fits on a screen and in memory."""
    return shortened(name, _LONGEST_NAME)


def _best_reading(readings: Sequence[Reading]) -> Reading:
    """Return the direct scrapes as one reading, or another reading if they measured less."""
    direct = [reading for reading in readings if all(replica.url for replica in reading.replicas)]
    together = Reading(
        tuple(replica for reading in direct for replica in reading.replicas),
        window=max((reading.window for reading in direct if reading.window), default=None),
    )
    candidates = [together, *(reading for reading in readings if reading not in direct)]
    for is_good in (_has_rates, _is_up):
        for reading in candidates:
            if any(is_good(replica) for replica in reading.replicas):
                return reading
    return next((reading for reading in candidates if reading.replicas), together)


def _has_rates(replica: Replica) -> bool:
    return any("inferences" in fields for fields in replica.models.values())


def _is_up(replica: Replica) -> bool:
    return replica.up


def _all_gpus(readings: Iterable[Reading]) -> list[Gpu]:
    return [gpu for reading in readings for gpu in reading.gpus]


def _merged(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """Merge the entries of each id; a later one fills gaps of an earlier one."""
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
    """Sum the models over the replicas, sorted by load and name."""
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
    """Return `ModelLoad.executing`. Failed executions have no successful request, so the ratio is limited to 1."""
    try:
        compute, executions, requests = row["compute_infer_us"], row["executions"], row["requests"]
    except KeyError:
        return None
    return compute / 1e6 * (min(1.0, executions / requests) if requests > 0 else 1.0)


def _instance(replica: Replica) -> ReplicaLoad:
    measured = mean(gpu.utilization for gpu in replica.gpus)
    executing = total(_executing(row) for row in replica.models.values())
    estimated = None if executing is None else min(1.0, executing)
    busy = estimated if measured is None else measured
    return ReplicaLoad(
        id=replica.id,
        host=replica.host,
        url=replica.url,
        up=replica.up,
        inferences_per_second=total(row.get("inferences") for row in replica.models.values()),
        busy=busy,
        busy_estimated=None if busy is None else measured is None,
    )


def _with_shares(instances: Sequence[ReplicaLoad]) -> tuple[ReplicaLoad, ...]:
    whole = total(instance.inferences_per_second for instance in instances)
    if not whole:
        return tuple(instances)
    return tuple(
        instance
        if instance.inferences_per_second is None
        else replace(instance, share=instance.inferences_per_second / whole)
        for instance in instances
    )


def _busy(gpus: Iterable[Gpu], instances: Iterable[ReplicaLoad]) -> Busy | None:
    if (measured := mean(gpu.utilization for gpu in gpus)) is not None:
        return Busy(measured, "GPU", estimated=False)
    if (estimated := mean(instance.busy for instance in instances)) is not None:
        return Busy(estimated, "compute time", estimated=True)
    return None
