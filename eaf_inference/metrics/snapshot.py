"""What is known at one moment about GPUs, models, instances, hosts and the sources that told it.

Values only: they travel to the browser and into advice, and nothing here reads, asks or computes. What a source does
not report is None all the way to the screen, never 0. Rates are per second, times in the unit that the name says,
sizes in bytes, fractions from 0 to 1; each formula stands with the field it gives.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Busy", "Gpu", "Host", "Instance", "ModelLoad", "Snapshot", "Source"]


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
        Share of time in which the compute engine was active: ``DCGM_FI_PROF_GR_ENGINE_ACTIVE`` (the only one that a
        MIG slice has), else ``DCGM_FI_DEV_GPU_UTIL`` / 100, or Triton's ``nv_gpu_utilization``.
    memory_used, memory_total : float or None
        Bytes. DCGM gives used and free MiB, the total is their sum.
    power : float or None
        Watts; of the whole GPU also where a MIG slice reports it.
    tensor, dram : float or None
        Share of time in which the tensor cores were, and the memory interface was, active (``DCGM_FI_PROF_*``).
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
    """One version of one model, all instances together.

    Δ is a counter's increase over the window, Δt the window's length.

    Attributes
    ----------
    inferences_per_second : float or None
        Δ``nv_inference_count`` / Δt: rows, not requests.
    requests_per_second : float or None
        Δ``nv_inference_request_success`` / Δt.
    failures_per_second : float or None
        Δ``nv_inference_request_failure`` / Δt, all reasons. A Python model that answers with an error of its own
        counts as a success at Triton.
    batch : float or None
        Δ``nv_inference_count`` / Δ``nv_inference_exec_count``: mean executed batch.
    queue_ms, compute_ms : float or None
        Of a mean request: Δ``nv_inference_queue_duration_us``, and the sum of the three
        Δ``nv_inference_compute_*_duration_us``, / Δ``nv_inference_request_success`` / 1000.
    pending : float or None
        ``nv_inference_pending_request_count``: requests in the queue at the moment of the scrape.
    waiting : float or None
        Mean number of requests in the queue over the window, by Little's law:
        Δ``nv_inference_queue_duration_us`` / Δt.
    executing : float or None
        Mean number of executions under way: Δ``nv_inference_compute_infer_duration_us`` / Δt, times
        Δ``nv_inference_exec_count`` / Δ``nv_inference_request_success``, because each request that a dynamic batcher
        merged into an execution counts that execution's full time.
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
class Instance:
    """One Triton server of the service (a replica).

    Attributes
    ----------
    id : str
        Its pod, or ``host:port``.
    host, url : str or None
        URL of its metrics, where it is asked directly.
    up : bool
        Whether it answered when it was last asked. Before its first answer, or failure, it is not listed.
    inferences_per_second : float or None
    share : float or None
        Of all instances' inferences; None without load.
    busy : float or None
        The mean utilization of the GPUs it reports. Without such: Σ `ModelLoad.executing` of its models, at most 1,
        which is an estimate: what runs in parallel, and what a GPU does meanwhile, is not seen.
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
    """The CPUs beneath a Triton, all processes of the machine: ``nv_cpu_utilization``, ``nv_cpu_memory_*_bytes``."""

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
        Mean `Gpu.utilization`; where no GPU reports it, mean `Instance.busy`.
    of : str
        "GPU" or "compute time".
    estimated : bool
        Whether it is the estimate that `Instance.busy` describes.
    """

    value: float
    of: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class Source:
    """One place where numbers come from.

    Attributes
    ----------
    name : str
        Its address, without any secret.
    kind : str
        "Triton" or "Prometheus".
    age : float or None
        Seconds since it last answered; None if it never did.
    error : str or None
        Why its last answer failed to come.
    retry_in : float or None
        Seconds until it is asked again, after an error.
    left_out : int
        Models, GPUs or instances beyond what is kept.
    """

    name: str
    kind: str
    age: float | None = None
    error: str | None = None
    retry_in: float | None = None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything known at one moment.

    Attributes
    ----------
    time : float
        Seconds since the epoch, by the reader's clock.
    window : float or None
        Seconds over which rates were taken; None where there is no rate yet.
    busy : Busy or None
    gpus, models, instances, hosts, sources : tuple
    """

    time: float
    window: float | None = None
    busy: Busy | None = None
    gpus: tuple[Gpu, ...] = ()
    models: tuple[ModelLoad, ...] = ()
    instances: tuple[Instance, ...] = ()
    hosts: tuple[Host, ...] = ()
    sources: tuple[Source, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: keys are the fields' names, numbers have four decimals, None is null."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Snapshot:
        """What `as_dict` gave."""
        lists = {name: tuple(kind(**each) for each in content[name]) for name, kind in _LISTED.items()}
        busy = content["busy"]
        return cls(content["time"], content["window"], Busy(**busy) if busy else None, **lists)

    def busiest(self, models: int) -> Snapshot:
        """The same with at most so many models, those with the most inferences."""
        if len(self.models) <= models:
            return self
        ranked = sorted(self.models, key=lambda model: -(model.inferences_per_second or 0.0))
        return replace(self, models=tuple(ranked[:models]))


_LISTED: dict[str, Any] = {"gpus": Gpu, "models": ModelLoad, "instances": Instance, "hosts": Host, "sources": Source}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
