"""Many snapshots as one: the figures that tables and advice show, where a chart shows each second.

Every figure is taken over the same window: the present run. A run is load without a pause of five seconds or more, of
which the last minute counts; the time before it, in which nobody asked for anything, says nothing about the load.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference.inference.rate import LONGEST, PAUSE
from eaf_inference.metrics.snapshot import Busy, Gpu, Host, Instance, ModelLoad, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

__all__ = ["LONGEST", "PAUSE", "averaged", "is_loaded", "mean_of", "run_of"]


T = TypeVar("T")

# Fields whose mean is that of their values; the others are ratios, weighted with what they are a ratio to.
_GPU_MEANS = ("utilization", "memory_used", "memory_total", "power", "tensor", "dram")
_MODEL_MEANS = (
    *("inferences_per_second", "requests_per_second", "failures_per_second"),
    *("pending", "waiting", "executing"),
)
_INSTANCE_MEANS = ("inferences_per_second", "share", "busy")
_HOST_MEANS = ("cpu_utilization", "memory_used", "memory_total")


def is_loaded(snapshot: Snapshot) -> bool:
    """Whether requests were answered, failed, or were waiting."""
    return any(
        model.requests_per_second or model.inferences_per_second or model.failures_per_second or model.pending
        for model in snapshot.models
    )


def run_of(snapshots: Sequence[Snapshot]) -> Sequence[Snapshot]:
    """The snapshots of the present run, oldest first; empty where there is no load now.

    A run that ended less than `PAUSE` seconds ago is still the present one. The snapshot in which it began is left
    out as soon as others follow, because part of its time was before the run.
    """
    if not snapshots:
        return ()
    ends = snapshots[-1].time
    first = last = None
    since = ends
    for place in range(len(snapshots) - 1, -1, -1):
        snapshot = snapshots[place]
        if since - snapshot.time >= PAUSE or ends - snapshot.time > LONGEST:
            break
        if is_loaded(snapshot):
            first, since = place, snapshot.time - (snapshot.window or 0.0)
            last = place if last is None else last
    if first is None or last is None:
        return ()
    began_within = first > 0 and not is_loaded(snapshots[first - 1])
    return snapshots[first + (began_within and last - first > 1) : last + 1]


def averaged(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The mean of the present run; without load, what has been measured since the last one.

    What the newest snapshot does not list is gone, and is not listed; each value is the mean of those that were
    reported. Times are those of a mean request, the batch that of a mean execution. Without load both are those of
    the last minute's requests, because a pause has none.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Oldest first.

    Returns
    -------
    Snapshot
        Its `window` is the time that it averages over, in seconds.
    """
    if not snapshots:
        return Snapshot(time=0.0)
    run = run_of(snapshots)
    if run:
        return replace(mean_of(run, of=snapshots[-1]), time=snapshots[-1].time)
    minute = [snapshot for snapshot in snapshots if snapshots[-1].time - LONGEST <= snapshot.time]
    loaded = max((place for place, snapshot in enumerate(minute) if is_loaded(snapshot)), default=-1)
    pause, whole = mean_of(minute[loaded + 1 :]), mean_of(minute)
    models = (
        replace(now, queue_ms=then.queue_ms, compute_ms=then.compute_ms, batch=then.batch)
        for now, then in zip(pause.models, whole.models, strict=True)
    )
    return replace(pause, models=tuple(models))


def mean_of(snapshots: Sequence[Snapshot], *, of: Snapshot | None = None) -> Snapshot:
    """The mean of all these snapshots.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        At least one, oldest first.
    of : Snapshot, optional
        What is listed; by default what the last one lists.
    """
    last = snapshots[-1] if of is None else of
    models = _by_key((model for each in snapshots for model in each.models), _named)
    gpus = _by_key((gpu for each in snapshots for gpu in each.gpus), lambda gpu: gpu.id)
    instances = _by_key((instance for each in snapshots for instance in each.instances), lambda instance: instance.id)
    hosts = _by_key((host for each in snapshots for host in each.hosts), lambda host: host.name)
    window = snapshots[-1].time - snapshots[0].time + (snapshots[0].window or 0.0)
    return replace(
        last,
        window=min(window, LONGEST) or None,
        busy=_busy(snapshots),
        models=tuple(_model(models.get(_named(model), [model])) for model in last.models),
        gpus=tuple(_gpu(gpus.get(gpu.id, [gpu])) for gpu in last.gpus),
        instances=tuple(_instance(instances.get(each.id, [each])) if each.up else each for each in last.instances),
        hosts=tuple(_host(hosts.get(host.name, [host])) for host in last.hosts),
    )


def _named(model: ModelLoad) -> tuple[str, str]:
    return model.name, model.version


def _by_key(values: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    found: dict[Any, list[T]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return found


def _model(loads: Sequence[ModelLoad]) -> ModelLoad:
    means: dict[str, Any] = {name: _mean([getattr(load, name) for load in loads]) for name in _MODEL_MEANS}
    requests = [load.requests_per_second for load in loads]
    # executions, because Σ inferences / Σ executions is the mean batch
    executions = [
        load.inferences_per_second / load.batch if load.inferences_per_second and load.batch else None
        for load in loads
    ]
    return replace(
        loads[-1],
        **means,
        queue_ms=_mean([load.queue_ms for load in loads], requests),
        compute_ms=_mean([load.compute_ms for load in loads], requests),
        batch=_mean([load.batch for load in loads], executions),
    )


def _gpu(gpus: Sequence[Gpu]) -> Gpu:
    means: dict[str, Any] = {name: _mean([getattr(gpu, name) for gpu in gpus]) for name in _GPU_MEANS}
    return replace(gpus[-1], **means)


def _instance(instances: Sequence[Instance]) -> Instance:
    last = instances[-1]
    if not last.up:
        return last
    alike = [each for each in instances if each.busy_estimated == last.busy_estimated]
    means: dict[str, Any] = {name: _mean([getattr(each, name) for each in alike]) for name in _INSTANCE_MEANS}
    return replace(last, **means)


def _host(hosts: Sequence[Host]) -> Host:
    means: dict[str, Any] = {name: _mean([getattr(host, name) for host in hosts]) for name in _HOST_MEANS}
    return replace(hosts[-1], **means)


def _busy(snapshots: Sequence[Snapshot]) -> Busy | None:
    last = snapshots[-1].busy
    if last is None:
        return None
    values = [snapshot.busy.value for snapshot in snapshots if snapshot.busy and snapshot.busy.of == last.of]
    return replace(last, value=math.fsum(values) / len(values))


def _mean(values: Sequence[float | None], weights: Sequence[float | None] | None = None) -> float | None:
    weights = [1.0] * len(values) if weights is None else weights
    both = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None and weight]
    whole = math.fsum(weight for _, weight in both)
    return math.fsum(value * weight for value, weight in both) / whole if whole > 0 else None
