"""Triton's Python backend: ParticleNet in PyTorch, on the GPU if the model's instance is on one.

Arrays pass through DLPack, because the backend's stub reads zeros from numpy 2 arrays.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))
from network import INPUTS, ParticleNet  # noqa: E402  (beside this file, and not in any package)

_WARM_UP = ((1, 32), (64, 32), (1024, 64))  # jets, constituents


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        is_on_gpu = args["model_instance_kind"] == "GPU"
        self._device = torch.device(f"cuda:{args['model_instance_device_id']}" if is_on_gpu else "cpu")
        torch.set_num_threads(1)  # more only spin, on a GPU too
        self._network = ParticleNet(_HERE / "weights.npz").to(self._device)
        for jets, length in _WARM_UP if is_on_gpu else ():
            inputs = [torch.ones(jets, width, length, device=self._device) for width in (2, self._network.width, 1)]
            self._network(*inputs).cpu()

    def execute(self, requests: list[Any]) -> list[Any]:
        parts = [
            [torch.from_dlpack(pb_utils.get_input_tensor_by_name(each, name).to_dlpack()) for each in requests]
            for name in INPUTS
        ]
        sizes = [len(part) for part in parts[0]]
        copied = [[part.to(self._device) for part in each] for each in parts]
        inputs = [each[0] if len(each) == 1 else torch.cat(each) for each in copied]
        scores = self._network(*inputs).cpu()
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("softmax", torch.utils.dlpack.to_dlpack(part))])
            for part in scores.split(sizes)
        ]
