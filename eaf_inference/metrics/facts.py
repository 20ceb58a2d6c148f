"""The figures of one run that the rules of advice look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.metrics.totals import request_rate, total

if TYPE_CHECKING:
    from eaf_inference.metrics.capacity import Capacity
    from eaf_inference.metrics.snapshot import Host, ModelLoad, ReplicaLoad, Snapshot
    from eaf_inference.metrics.workers import Workers

__all__ = ["Facts"]

_CPU_FULL = 0.95
_SHORT_QUEUE = 0.25  # of the compute time


@dataclass(frozen=True, slots=True)
class Facts:
    """The figures of a run that rules look at.

    Attributes
    ----------
    average : Snapshot
        The figures that are shown beside the advice.
    model : ModelLoad
        The model with the most requests in progress.
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
        queue, compute = self.model.queue_ms, self.model.compute_ms
        return queue is not None and compute is not None and queue >= compute

    @property
    def is_short(self) -> bool:
        """Whether hardly any request waits."""
        queue, compute = self.model.queue_ms, self.model.compute_ms
        return queue is not None and compute is not None and queue <= _SHORT_QUEUE * compute

    @property
    def gpu(self) -> float | None:
        """Utilization of the GPUs, if it is reported."""
        busy = self.average.busy
        return busy.value if busy and not busy.estimated else None

    @property
    def busiest(self) -> ReplicaLoad | None:
        """The busiest replica, which may be saturated while others are idle."""
        known = [each for each in self.average.instances if each.busy is not None]
        return max(known, key=lambda each: each.busy or 0.0, default=None)

    @property
    def utilization(self) -> float | None:
        """Utilization of the bottleneck; if the capacity is not known, the largest that is reported."""
        if self.capacity is not None:
            return self.capacity.utilization
        reported = [self.average.busy.value] if self.average.busy else []
        reported += [each.cpu_utilization for each in self.average.hosts if each.cpu_utilization is not None]
        return max(reported, default=None)

    @property
    def executing(self) -> float | None:
        """Mean number of parallel executions of the model per replica. Its maximum is not reported."""
        up = sum(instance.up for instance in self.average.instances)
        return None if self.model.executing is None else self.model.executing / max(1, up)

    @property
    def cpu(self) -> Host | None:
        """The machine whose CPUs are busiest."""
        known = [host for host in self.average.hosts if host.cpu_utilization is not None]
        return max(known, key=lambda host: host.cpu_utilization or 0.0, default=None)

    @property
    def full_host(self) -> Host | None:
        """The machine whose CPUs are busiest, if they are full."""
        return self.cpu if self.cpu and (self.cpu.cpu_utilization or 0.0) >= _CPU_FULL else None

    @property
    def batch_share(self) -> float | None:
        """Mean batch of the model as a share of its ``max_batch_size``."""
        return self.model.batch / self.max_batch if self.model.batch and self.max_batch else None

    @property
    def failing(self) -> float:
        """Share of all models' requests that failed."""
        failed = total(model.failures_per_second for model in self.average.models) or 0.0
        answered = request_rate(self.average) or 0.0
        return failed / (failed + answered) if failed else 0.0
