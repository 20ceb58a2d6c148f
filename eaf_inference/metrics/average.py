"""The mean of many snapshots, for tables and advice.

All figures cover the same window: the current run. A run is load without a pause of five seconds or more, and at most
its last minute counts. Idle time before the run would dilute the figures.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference.inference.rate import LONGEST, PAUSE
from eaf_inference.metrics.snapshot import Busy, Gpu, Host, ModelLoad, ReplicaLoad, Snapshot
from eaf_inference.metrics.totals import mean, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

__all__ = ["LONGEST", "PAUSE", "averaged", "mean_of", "run_of", "window_of"]


T = TypeVar("T")

# Fields with a plain mean. The other fields are ratios, and their mean is weighted with the denominator.
_GPU_MEANS = ("utilization", "memory_used", "memory_total", "power", "tensor", "dram")
_MODEL_MEANS = (
    *("inferences_per_second", "requests_per_second", "failures_per_second"),
    *("pending", "waiting", "executing"),
)
_INSTANCE_MEANS = ("inferences_per_second", "share", "busy")
_HOST_MEANS = ("cpu_utilization", "memory_used", "memory_total")


def _is_loaded(snapshot: Snapshot) -> bool:
    """Return whether any request was answered, failed or waited."""
    return any(
        model.requests_per_second or model.inferences_per_second or model.failures_per_second or model.pending
        for model in snapshot.models
    )


def run_of(snapshots: Sequence[Snapshot]) -> Sequence[Snapshot]:
    """Return the snapshots of the current run, oldest first; empty if there is no load now.

    A run that ended less than `PAUSE` seconds ago is still current. The snapshot in which the run began is left out
    once others follow, because part of its window was before the run.
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
        if _is_loaded(snapshot):
            first, since = place, snapshot.time - (snapshot.window or 0.0)
            last = place if last is None else last
    if first is None or last is None:
        return ()
    began_within = first > 0 and not _is_loaded(snapshots[first - 1])
    return snapshots[first + (began_within and last - first > 1) : last + 1]


def averaged(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Return the mean of the current run, or without load, of the time since the last run.

    The result lists what the newest snapshot lists. Each value is the mean of the reported ones; times are those of
    a mean request, and the batch is that of a mean execution. Without load, times and batch come from the requests
    of the last minute, because a pause has none.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Oldest first.

    Returns
    -------
    Snapshot
        Its `window` is the averaged time in seconds.
    """
    if not snapshots:
        return Snapshot(time=0.0)
    run = run_of(snapshots)
    if run:
        return replace(mean_of(run, of=snapshots[-1]), time=snapshots[-1].time)
    minute = [snapshot for snapshot in snapshots if snapshots[-1].time - LONGEST <= snapshot.time]
    loaded = max((place for place, snapshot in enumerate(minute) if _is_loaded(snapshot)), default=-1)
    pause, whole = mean_of(minute[loaded + 1 :]), mean_of(minute)
    models = (
        replace(now, queue_ms=then.queue_ms, compute_ms=then.compute_ms, batch=then.batch)
        for now, then in zip(pause.models, whole.models, strict=True)
    )
    return replace(pause, models=tuple(models))


def mean_of(snapshots: Sequence[Snapshot], *, of: Snapshot | None = None) -> Snapshot:
    """Return the mean of all these snapshots.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        At least one, oldest first.
    of : Snapshot, optional
        Which models, GPUs, replicas and hosts to list; by default those of the last snapshot.
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


def window_of(average: Snapshot) -> str:
    """Return the time that the figures cover, in words: "the last 23 s"."""
    return f"the last {max(1.0, average.window or 0.0):.0f} s"


def _named(model: ModelLoad) -> tuple[str, str]:
    return model.name, model.version


def _by_key(values: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    found: dict[Any, list[T]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return found


def _model(loads: Sequence[ModelLoad]) -> ModelLoad:
    means: dict[str, Any] = {name: mean(getattr(load, name) for load in loads) for name in _MODEL_MEANS}
    # weighted with executions, because the mean batch is Σ inferences / Σ executions
    executions = [
        load.inferences_per_second / load.batch if load.inferences_per_second and load.batch else None
        for load in loads
    ]
    return replace(
        loads[-1],
        **means,
        queue_ms=weighted_mean((load.queue_ms, load.requests_per_second) for load in loads),
        compute_ms=weighted_mean((load.compute_ms, load.requests_per_second) for load in loads),
        batch=weighted_mean(zip([load.batch for load in loads], executions, strict=True)),
    )


def _gpu(gpus: Sequence[Gpu]) -> Gpu:
    means: dict[str, Any] = {name: mean(getattr(gpu, name) for gpu in gpus) for name in _GPU_MEANS}
    return replace(gpus[-1], **means)


def _instance(instances: Sequence[ReplicaLoad]) -> ReplicaLoad:
    last = instances[-1]
    if not last.up:
        return last
    alike = [each for each in instances if each.busy_estimated == last.busy_estimated]
    means: dict[str, Any] = {name: mean(getattr(each, name) for each in alike) for name in _INSTANCE_MEANS}
    return replace(last, **means)


def _host(hosts: Sequence[Host]) -> Host:
    means: dict[str, Any] = {name: mean(getattr(host, name) for host in hosts) for name in _HOST_MEANS}
    return replace(hosts[-1], **means)


def _busy(snapshots: Sequence[Snapshot]) -> Busy | None:
    last = snapshots[-1].busy
    if last is None:
        return None
    values = [snapshot.busy.value for snapshot in snapshots if snapshot.busy and snapshot.busy.of == last.of]
    return replace(last, value=fmean(values))
