"""ParticleNet in PyTorch, with weights that were read from ONNX files (`benchmarks.gpu.weights`).

Tensors have the layout (jets, points, channels). Batch normalisation is folded into the weights. Triton's Python
backend loads this file beside `model.py`, so it imports nothing from this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["INPUTS", "ParticleNet"]

INPUTS = ("points", "features", "mask")


class ParticleNet(nn.Module):
    """ParticleNet of any size; a jet's scores do not depend on its padding.

    Parameters
    ----------
    file : Path
        An .npz file with the weights and the network's shape.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        content = np.load(file)
        self.neighbours = int(content["neighbours"])
        self.blocks = int(content["blocks"])
        self.exact_first = bool(content["exact_first"])
        self.width = len(content["scale"])
        for name, values in content.items():
            if values.dtype == np.float32:
                self.register_buffer(name, torch.from_numpy(values))

    def _linear(self, name: str, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias"))

    def _neighbours(self, points: Tensor, *, exact: bool) -> Tensor:
        """Return the flat row numbers (jets × points, neighbours) of each point's nearest neighbours."""
        if exact:  # avoids a cancellation that confuses nearly collinear points; affordable for few dimensions
            close = -((points[:, :, None] - points[:, None]) ** 2).sum(-1)
        else:
            square = (points * points).sum(-1, keepdim=True)
            close = 2 * points @ points.transpose(1, 2) - square - square.transpose(1, 2)
        nearest = close.topk(self.neighbours + 1, dim=-1).indices[:, :, 1:]  # not itself
        jets, length = points.shape[:2]
        return nearest + length * torch.arange(jets, device=points.device)[:, None, None]

    def _edge_convolution(self, block: int, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        rows = self._neighbours(points, exact=self.exact_first and block == 0)
        other = features.reshape(-1, features.shape[-1])[rows]
        itself = features[:, :, None].expand_as(other)
        message = torch.cat([itself, other - itself], dim=-1)
        for layer in range(3):
            message = torch.relu(self._linear(f"edge_{block}_{layer}", message))
        return torch.relu(self._linear(f"shortcut_{block}", features) + message.mean(2)) * mask

    @torch.inference_mode()
    def forward(self, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Inputs (jets, channels, points) become the probability of each class."""
        points, features, mask = (each.transpose(1, 2) for each in (points, features, mask))
        far_away = (1 - mask) * 1e9
        features = (features * self.get_buffer("scale") + self.get_buffer("shift")) * mask
        for block in range(self.blocks):
            features = self._edge_convolution(block, points + far_away, features, mask)
            points = features
        mean = features.sum(1) / mask.sum(1).clamp(min=1)
        return self._linear("scores", torch.relu(self._linear("hidden", mean))).softmax(-1)
