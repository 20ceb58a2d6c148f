"""Changing metrics of simulated GPU servers, for machines without a GPU.

Names, labels and units are those of the texts in ``tests/recorded/documented``; the values follow from formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Gpu:
    """A GPU or a MIG slice.

    Attributes
    ----------
    typical : float
        Its mean utilization.
    memory : float
        Share of its memory that is used.
    """

    number: int
    host: str
    name: str = "NVIDIA A100-SXM4-40GB"
    profile: str | None = None
    typical: float = 0.6
    memory: float = 0.5
    mebibytes: int = 40960
    watts: float = 230.0

    @property
    def uuid(self) -> str:
        return f"GPU-7c0f0000-0000-4000-8000-{hash_of(self.host):06x}{self.number:06d}"

    def utilization(self, seconds: float) -> float:
        """Slow and fast waves, as from clients that come and go."""
        phase = self.number * 2.1 + hash_of(self.host)
        wave = 0.14 * math.sin(seconds / 17 + phase) + 0.05 * math.sin(seconds / 3.1 + 2 * phase)
        return min(1.0, max(0.0, self.typical + wave + 0.02 * math.sin(5 * seconds + phase)))


@dataclass(frozen=True)
class Load:
    """The load of a model; times are means over requests."""

    model: str
    inferences: float  # per second
    batch: float
    queue_ms: float = 2.0
    compute_ms: float = 20.0


def hash_of(text: str) -> int:
    """A pseudo-random number that is the same in every run."""
    return sum(map(ord, text)) % 1000


def triton(seconds: float, loads: Iterable[Load], gpus: Iterable[Gpu] = ()) -> str:
    """Triton's ``/metrics`` at this number of seconds after its start."""
    lines = []
    passed = 1000 + seconds + 1.2 * math.sin(seconds / 8)  # the load varies a little
    for load in loads:
        labels = f'{{model="{load.model}",version="1"}}'
        inferences = load.inferences * passed
        requests = inferences / load.batch if load.batch else 0.0
        for name, value in {
            "nv_inference_count": inferences,
            "nv_inference_exec_count": requests,
            "nv_inference_request_success": requests,
            "nv_inference_request_failure": 0,
            "nv_inference_queue_duration_us": 1000 * requests * load.queue_ms,
            "nv_inference_compute_infer_duration_us": 1000 * requests * load.compute_ms,
        }.items():
            lines.append(f"# TYPE {name} counter\n{name}{labels} {value:.0f}")
    for gpu in gpus:
        now = gpu.utilization(seconds)
        for name, value in {
            "nv_gpu_utilization": now,
            "nv_gpu_memory_total_bytes": gpu.mebibytes * MEBIBYTE,
            "nv_gpu_memory_used_bytes": gpu.memory * gpu.mebibytes * MEBIBYTE,
            "nv_gpu_power_usage": 60 + gpu.watts * now,
        }.items():
            lines.append(f'# TYPE {name} gauge\n{name}{{gpu_uuid="{gpu.uuid}"}} {value}')
    return "\n".join(lines) + "\n"


def dcgm(seconds: float, gpus: Iterable[Gpu]) -> str:
    """The metrics of dcgm-exporter; MIG slices have no utilization, but the activity of their engines."""
    lines = []
    for gpu in gpus:
        slice_of = f',GPU_I_PROFILE="{gpu.profile}",GPU_I_ID="{gpu.number}"' if gpu.profile else ""
        uuid = gpu.uuid if not gpu.profile else gpu.uuid[:-6] + "000000"
        labels = f'gpu="0",UUID="{uuid}",modelName="{gpu.name}",Hostname="{gpu.host}"{slice_of}'
        now, used = gpu.utilization(seconds), round(gpu.memory * gpu.mebibytes)
        values = {
            "DCGM_FI_DEV_POWER_USAGE": 60 + gpu.watts * now,
            "DCGM_FI_DEV_FB_FREE": gpu.mebibytes - used,
            "DCGM_FI_DEV_FB_USED": used,
        }
        if gpu.profile:
            values |= {
                "DCGM_FI_PROF_GR_ENGINE_ACTIVE": now,
                "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.45 * now,
                "DCGM_FI_PROF_DRAM_ACTIVE": 0.55 * now,
            }
        else:
            values["DCGM_FI_DEV_GPU_UTIL"] = round(100 * now)
        lines += [f"# TYPE {name} gauge\n{name}{{{labels}}} {value}" for name, value in values.items()]
    return "\n".join(lines) + "\n"
