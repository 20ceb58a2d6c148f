"""The state of GPUs, models, replicas, hosts and metrics sources at one moment.

These are plain values, which go to the browser and into advice. A value that no source reports is None, never 0, up
to the screen. Rates are per second, sizes are bytes, fractions go from 0 to 1, and the name of a time has its unit.
Each field's description has its formula.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Busy", "Gpu", "Host", "ModelLoad", "ReplicaLoad", "Snapshot", "Source", "followed_by"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG slice of it.

    Attributes
    ----------
    id : str
        UUID; ``UUID/instance id`` for a MIG slice.
    host, name, profile : str or None
        The node, the product ("NVIDIA A100-SXM4-40GB") and the MIG profile ("2g.10gb").
    utilization : float or None
        Share of time in which the compute engine was active: ``DCGM_FI_PROF_GR_ENGINE_ACTIVE`` (a MIG slice has only
        this one), else ``DCGM_FI_DEV_GPU_UTIL`` / 100, or Triton's ``nv_gpu_utilization``.
    memory_used, memory_total : float or None
        Bytes. DCGM reports used and free MiB; the total is their sum.
    power : float or None
        Watts; a MIG slice reports the power of the whole GPU.
    tensor, dram : float or None
        Shares of time in which the tensor cores and the memory interface were active (``DCGM_FI_PROF_*``).
    source : str
        "Triton" or "Prometheus".
    """

    id: str
    host: str | None = None
    name: str | None = None
    profile: str | None = None
    utilization: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    power: float | None = None
    tensor: float | None = None
    dram: float | None = None
    source: str = "Triton"


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """The load of one version of one model, summed over all replicas.

    Δ is the increase of a counter over the window, and Δt is the length of the window.

    Attributes
    ----------
    inferences_per_second : float or None
        Δ``nv_inference_count`` / Δt: rows, not requests.
    requests_per_second : float or None
        Δ``nv_inference_request_success`` / Δt.
    failures_per_second : float or None
        Δ``nv_inference_request_failure`` / Δt, for all reasons. Triton counts an error that a Python model returns
        as a success.
    batch : float or None
        Δ``nv_inference_count`` / Δ``nv_inference_exec_count``: the mean executed batch.
    queue_ms, compute_ms : float or None
        Milliseconds of a mean request in the queue and in computation: Δ``nv_inference_queue_duration_us``, and the
        sum of the three Δ``nv_inference_compute_*_duration_us``, / Δ``nv_inference_request_success`` / 1000.
    pending : float or None
        ``nv_inference_pending_request_count``: requests in the queue at the time of the scrape.
    waiting : float or None
        Mean number of requests in the queue over the window, by Little's law:
        Δ``nv_inference_queue_duration_us`` / Δt.
    executing : float or None
        Mean number of executions under way: Δ``nv_inference_compute_infer_duration_us`` / Δt, times
        Δ``nv_inference_exec_count`` / Δ``nv_inference_request_success``. A dynamic batcher merges several requests
        into one execution, and each of them counts the full time of that execution.
    """

    name: str
    version: str
    inferences_per_second: float | None = None
    requests_per_second: float | None = None
    failures_per_second: float | None = None
    batch: float | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    pending: float | None = None
    waiting: float | None = None
    executing: float | None = None


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """The load of one replica: one Triton server of the service.

    Attributes
    ----------
    id : str
        The pod's name, or ``host:port``.
    host, url : str or None
        `url` is where its metrics are scraped, if that is done directly.
    up : bool
        Whether the last request to it was answered. A replica is listed after its first answer or failure.
    inferences_per_second : float or None
    share : float or None
        Its share of the inferences of all replicas; None without load.
    busy : float or None
        The mean utilization of the GPUs that it reports. If it reports none, an estimate: Σ `ModelLoad.executing` of
        its models, at most 1. The estimate does not see executions in parallel, nor the GPU.
    busy_estimated : bool or None
        Whether `busy` is that estimate; None without `busy`.
    """

    id: str
    host: str | None = None
    url: str | None = None
    up: bool = False
    inferences_per_second: float | None = None
    share: float | None = None
    busy: float | None = None
    busy_estimated: bool | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """CPU and memory of a Triton's whole machine: ``nv_cpu_utilization``, ``nv_cpu_memory_*_bytes``."""

    name: str
    cpu_utilization: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None


@dataclass(frozen=True, slots=True)
class Busy:
    """How busy the service is as a whole.

    Attributes
    ----------
    value : float
        Mean `Gpu.utilization`; if no GPU reports it, mean `ReplicaLoad.busy`.
    of : str
        "GPU" or "compute time".
    estimated : bool
        Whether it is the estimate that `ReplicaLoad.busy` describes.
    """

    value: float
    of: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class Source:
    """The state of one metrics source.

    Attributes
    ----------
    name : str
        Its address, without secrets.
    kind : str
        "Triton" or "Prometheus".
    age : float or None
        Seconds since it last answered; None if it never did.
    error : str or None
        Why the last request failed.
    retry_in : float or None
        After an error, the seconds until the next request.
    left_out : int
        Number of models, GPUs or replicas beyond the limits.
    """

    name: str
    kind: str
    age: float | None = None
    error: str | None = None
    retry_in: float | None = None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All figures of one moment.

    Attributes
    ----------
    time : float
        Seconds since the epoch, by the clock of this process.
    window : float or None
        Seconds over which rates were taken; None if there is no rate yet.
    busy : Busy or None
    gpus, models, instances, hosts, sources : tuple
    """

    time: float
    window: float | None = None
    busy: Busy | None = None
    gpus: tuple[Gpu, ...] = ()
    models: tuple[ModelLoad, ...] = ()
    instances: tuple[ReplicaLoad, ...] = ()
    hosts: tuple[Host, ...] = ()
    sources: tuple[Source, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, with numbers rounded to four decimals."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Snapshot:
        """Rebuild a snapshot from the result of `as_dict`."""
        lists = {name: tuple(kind(**each) for each in content[name]) for name, kind in _LISTED.items()}
        busy = content["busy"]
        return cls(content["time"], content["window"], Busy(**busy) if busy else None, **lists)

    def within_window(self) -> Snapshot:
        """Return an average without times and batches of models from before its window, which `averaged` gives."""
        return replace(
            self,
            models=tuple(
                replace(model, queue_ms=None, compute_ms=None, batch=None)
                if model.requests_per_second == 0
                else model
                for model in self.models
            ),
        )

    def busiest(self, models: int) -> Snapshot:
        """Return the snapshot with at most this many models: those with the most inferences."""
        if len(self.models) <= models:
            return self
        ranked = sorted(self.models, key=lambda model: -(model.inferences_per_second or 0.0))
        return replace(self, models=tuple(ranked[:models]))


def followed_by(history: Iterable[Snapshot], newest: Snapshot) -> tuple[Snapshot, ...]:
    """Return the history and the newest snapshot. Later ones are left out: the clock was set back since."""
    return (*(snapshot for snapshot in history if snapshot.time < newest.time), newest)


_LISTED: dict[str, Any] = {
    "gpus": Gpu,
    "models": ModelLoad,
    "instances": ReplicaLoad,
    "hosts": Host,
    "sources": Source,
}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
