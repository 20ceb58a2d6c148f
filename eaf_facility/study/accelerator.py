"""A simulated accelerator: a Triton model that takes a stated time for each request and computes nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONSTITUENTS", "VALUES", "SimulatedAccelerator", "write_model"]

CONSTITUENTS = 100  # in each pseudo-jet, as in arXiv:2312.06838
VALUES = 16  # per constituent, for models that compute nothing
_MODEL = Path(__file__).parent / "accelerator_model" / "model.py"
_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input {{ name: "x" data_type: TYPE_FP32 dims: [{values}, {length}] }}
output {{ name: "score" data_type: TYPE_FP32 dims: [1] }}
instance_group [{{ kind: KIND_CPU count: {instances} }}]
"""
_PARAMETER = 'parameters {{ key: "{key}" value {{ string_value: "{value!r}" }} }}\n'


@dataclass(frozen=True, slots=True)
class SimulatedAccelerator:
    """The stated times of a simulated accelerator, and the largest batch it accepts.

    Attributes
    ----------
    request, cell, switch : float
        Seconds per request, per cell of a request (row × length), and per change from another model.
    length : int
        Constituents of a row; -1 if it is variable.
    """

    request: float
    cell: float
    switch: float = 0.0
    batch: int = 256
    name: str = "simulated"
    instances: int = 2  # one copies its tensors while the other has the device
    length: int = CONSTITUENTS

    def seconds(self, rows: int) -> float:
        """Return the stated time of a request with this number of rows."""
        return self.request + self.cell * rows * CONSTITUENTS

    @property
    def limit(self) -> float:
        """The highest possible rate in rows/s: full batches of one model."""
        return self.batch / self.seconds(self.batch)

    def write(self, repository: Path) -> None:
        """Add the model to a model repository."""
        times = {"request_seconds": self.request, "cell_seconds": self.cell, "switch_seconds": self.switch}
        parameters = "".join(_PARAMETER.format(key=key, value=value) for key, value in times.items())
        write_model(
            *(repository, self.name, _MODEL),
            batch=self.batch,
            instances=self.instances,
            length=self.length,
            parameters=parameters,
        )


def write_model(
    repository: Path,
    name: str,
    source: Path,
    *,
    batch: int,
    instances: int = 1,
    length: int = CONSTITUENTS,
    parameters: str = "",
) -> None:
    """Add a Python model that takes ``x`` (rows × `VALUES` × length) and gives ``score`` (rows × 1)."""
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    config = _CONFIG.format(name=name, batch=batch, values=VALUES, length=length, instances=instances)
    (directory / "config.pbtxt").write_text(config + parameters, encoding="utf-8")
    shutil.copy(source, directory / "1" / "model.py")
