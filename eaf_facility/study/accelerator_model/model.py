"""The Triton model of a simulated accelerator: it takes a stated time for each request and computes nothing.

All models and instances of one Triton share one simulated device, which serves one request at a time. As on a GPU, an
instance can copy its tensors while another has the device. A request takes ``request_seconds``, plus ``cell_seconds``
for each cell (row × length), plus ``switch_seconds`` if the previous request was for another model: the cost of
swapping models that do not fit into GPU memory together. The score is the first value of each row, so that a client
that mixes up rows is caught.

This file runs inside Triton's environment and imports nothing from this repository.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class TritonPythonModel:
    """One instance of one model on the simulated device."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the stated times and open the lock file that stands for this Triton's device."""
        config = json.loads(args["model_config"])
        self.name = config["name"]
        stated = {key: float(value["string_value"]) for key, value in config["parameters"].items()}
        self.request = stated["request_seconds"]
        self.cell = stated["cell_seconds"]
        self.switch = stated["switch_seconds"]
        device = Path(args["model_repository"]).parent / f"device-{os.getppid()}"
        self.device = os.open(device, os.O_RDWR | os.O_CREAT, 0o600)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request, after its stated time, with the first value of each row."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        values = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        score = values[:, 0, :1].copy()
        seconds = self.request + self.cell * values.shape[0] * values.shape[2]
        with self.locked_device() as switched:
            time.sleep(seconds + (self.switch if switched else 0.0))
        return pb_utils.InferenceResponse([pb_utils.Tensor("score", score)])

    @contextmanager
    def locked_device(self) -> Iterator[bool]:
        """Lock the device; yield whether another model used it before."""
        fcntl.flock(self.device, fcntl.LOCK_EX)
        try:
            previous = os.pread(self.device, 256, 0).rstrip(b"\0").decode()
            if previous != self.name:
                os.pwrite(self.device, self.name.encode().ljust(256, b"\0"), 0)
            yield previous not in ("", self.name)
        finally:
            fcntl.flock(self.device, fcntl.LOCK_UN)

    def finalize(self) -> None:
        """Close the lock file."""
        os.close(self.device)
