"""The model repository: both ParticleNets as PyTorch models of Triton's Python backend."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from eaf_facility.servers.triton import MODELS as PACKAGE_MODELS
from eaf_facility.study.particlenet import NAME as FULL

__all__ = ["FULL", "LITE", "LITE_TWO", "LITE_WIDE", "SERVED", "Served", "write_repository"]

LITE = "particlenet"
LITE_WIDE = "particlenet_wide"
LITE_TWO = "particlenet_two"
_CODE = Path(__file__).with_name("torch_model")


@dataclass(frozen=True, slots=True)
class Served:
    """A model of the repository: its weights' file, and what its configuration sets."""

    weights: str
    max_batch_size: int
    instances: int
    batching: str


_BATCHER = "dynamic_batching { max_queue_delay_microseconds: 500 }"
SERVED = {
    LITE: Served("particlenet.npz", 1024, 1, _BATCHER),  # as the package serves it
    LITE_WIDE: Served("particlenet.npz", 16384, 1, _BATCHER),
    LITE_TWO: Served("particlenet.npz", 16384, 2, _BATCHER),
    # as in arXiv:2312.06838
    FULL: Served("particlenet_full.npz", 1200, 1, "dynamic_batching { preferred_batch_size: [ 1024 ] }"),
}
_FULL_TENSORS = """\
input { name: "points" data_type: TYPE_FP32 dims: [2, -1] }
input { name: "features" data_type: TYPE_FP32 dims: [5, -1] }
input { name: "mask" data_type: TYPE_FP32 dims: [1, -1] }
output { name: "softmax" data_type: TYPE_FP32 dims: [2] }
"""


def write_repository(directory: Path, weights: Path, *, gpu: bool) -> None:
    """Write the models, for the GPU or for the CPU."""
    lite = (PACKAGE_MODELS / LITE / "config.pbtxt").read_text(encoding="utf-8")
    lite = re.sub(r"^(name|backend|max_batch_size|dynamic_batching).*\n", "", lite, flags=re.MULTILINE)
    kind = "KIND_GPU" if gpu else "KIND_CPU"
    for name, served in SERVED.items():
        version = directory / name / "1"
        version.mkdir(parents=True)
        for file in _CODE.glob("*.py"):
            shutil.copy(file, version)
        shutil.copy(weights / served.weights, version / "weights.npz")
        lines = [
            f'name: "{name}"',
            'backend: "python"',
            f"max_batch_size: {served.max_batch_size}",
            f"instance_group [{{ kind: {kind} count: {served.instances} }}]",
            served.batching,
            _FULL_TENSORS if name == FULL else lite,
        ]
        (directory / name / "config.pbtxt").write_text("\n".join(lines), encoding="utf-8")
