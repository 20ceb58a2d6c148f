"""The model repository that the benchmark and the study serve, written into a directory of their own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from eaf_inference.bench import particlenet

__all__ = ["CONSTITUENTS", "FULL_PARTICLENET", "ZERO_COST", "Simulated", "write_full_particlenet", "write_zero_cost"]

CONSTITUENTS = 100  # of each pseudo-jet, as in arXiv:2312.06838
ZERO_COST = "zero_cost"
FULL_PARTICLENET = "particlenet_full"
VALUES = 16  # of each constituent, for the models that compute nothing
_SOURCES = Path(__file__).with_name("triton")

_ARRAY_TO_NUMBER = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input {{ name: "x" data_type: TYPE_FP32 dims: [{values}, {length}] }}
output {{ name: "score" data_type: TYPE_FP32 dims: [1] }}
instance_group [{{ kind: KIND_CPU count: {instances} }}]
"""
_STATED = 'parameters {{ key: "{key}" value {{ string_value: "{value!r}" }} }}\n'
# one instance, as a batch of 1,024 takes 11 GB
_PARTICLENET = """\
name: "particlenet_full"
backend: "onnxruntime"
max_batch_size: {batch}
input {{ name: "points" data_type: TYPE_FP32 dims: [2, -1] }}
input {{ name: "features" data_type: TYPE_FP32 dims: [5, -1] }}
input {{ name: "mask" data_type: TYPE_FP32 dims: [1, -1] }}
output {{ name: "softmax" data_type: TYPE_FP32 dims: [2] }}
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated accelerator: the times that it is stated to take, and the batch that it accepts.

    Attributes
    ----------
    request, cell, switch : float
        Seconds for a request, for each of its cells (row × length), and for changing from another model.
    """

    request: float
    cell: float
    switch: float = 0.0
    batch: int = 256
    name: str = "simulated"
    instances: int = 2  # one copies while the other one has the device

    def seconds(self, rows: int) -> float:
        """What one request of so many rows is stated to take."""
        return self.request + self.cell * rows * CONSTITUENTS

    @property
    def limit(self) -> float:
        """Rows/s that it cannot pass with full batches of one model."""
        return self.batch / self.seconds(self.batch)

    def write(self, repository: Path) -> None:
        """Add it to a model repository."""
        parameters = {"request_seconds": self.request, "cell_seconds": self.cell, "switch_seconds": self.switch}
        config = _ARRAY_TO_NUMBER.format(
            name=self.name,
            batch=self.batch,
            values=VALUES,
            length=CONSTITUENTS,
            instances=self.instances,
        )
        config += "".join(_STATED.format(key=key, value=value) for key, value in parameters.items())
        _write(repository / self.name, config, _SOURCES / "simulated" / "model.py")


def write_zero_cost(repository: Path, *, batch: int = 256) -> None:
    """Add the model that costs nothing."""
    config = _ARRAY_TO_NUMBER.format(name=ZERO_COST, batch=batch, values=VALUES, length=CONSTITUENTS, instances=1)
    _write(repository / ZERO_COST, config, _SOURCES / "zero_cost" / "model.py")


def write_full_particlenet(repository: Path, *, batch: int = 1024) -> Path:
    """Add ParticleNet in the study's shape, with random weights; gives the ONNX file."""
    directory = repository / FULL_PARTICLENET
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(_PARTICLENET.format(batch=batch), encoding="utf-8")
    file = directory / "1" / "model.onnx"
    particlenet.save(file)
    return file


def _write(directory: Path, config: str, source: Path) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(config, encoding="utf-8")
    shutil.copy(source, directory / "1" / "model.py")
