"""Many snapshots as one: the last minute, which a table and an advice want, where a chart wants each second."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference.metrics.snapshot import Busy, Gpu, Host, Instance, ModelLoad, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

__all__ = ["averaged"]

T = TypeVar("T")

# Fields whose mean is that of their values; the others are ratios, weighted with what they are a ratio to.
_GPU_MEANS = ("utilization", "memory_used", "memory_total", "power", "tensor", "dram")
_MODEL_MEANS = (
    *("inferences_per_second", "requests_per_second", "failures_per_second"),
    *("pending", "waiting", "executing"),
)
_INSTANCE_MEANS = ("inferences_per_second", "share", "busy")
_HOST_MEANS = ("cpu_utilization", "memory_used", "memory_total")


def averaged(snapshots: Sequence[Snapshot], *, seconds: float = 60.0) -> Snapshot:
    """The mean of the snapshots of the last so many seconds.

    What the newest does not list is gone, and is not listed; each value is the mean of those that were reported.
    Times are those of a mean request, the batch that of a mean execution.
    """
    if not snapshots:
        return Snapshot(time=0.0)
    last = snapshots[-1]
    recent = [snapshot for snapshot in snapshots if last.time - seconds <= snapshot.time]
    models = _by_key((model for each in recent for model in each.models), lambda model: (model.name, model.version))
    gpus = _by_key((gpu for each in recent for gpu in each.gpus), lambda gpu: gpu.id)
    instances = _by_key((instance for each in recent for instance in each.instances), lambda instance: instance.id)
    hosts = _by_key((host for each in recent for host in each.hosts), lambda host: host.name)
    window = math.fsum(snapshot.window or 0.0 for snapshot in recent)
    return replace(
        last,
        window=min(window, seconds) or None,
        busy=_busy(recent),
        models=tuple(_model(models[model.name, model.version]) for model in last.models),
        gpus=tuple(_gpu(gpus[gpu.id]) for gpu in last.gpus),
        instances=tuple(_instance(instances[instance.id]) for instance in last.instances),
        hosts=tuple(_host(hosts[host.name]) for host in last.hosts),
    )


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
