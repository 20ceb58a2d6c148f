"""ParticleNet-Lite and a small regression, in PyTorch, and how they are fitted."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]  # which jets


def closeness(points: Tensor, *, exact: bool) -> Tensor:
    """Minus the squared distances (B, P, P) among points (B, D, P).

    The exact form avoids a cancellation that confuses nearly collinear constituents; it is affordable for few D.
    """
    if exact:
        return -((points[:, :, :, None] - points[:, :, None, :]) ** 2).sum(1)
    square = (points**2).sum(1)
    return 2 * points.transpose(1, 2) @ points - square[:, :, None] - square[:, None, :]


class EdgeConv(nn.Module):
    """Convolution over the edges from each point to its nearest neighbours."""

    def __init__(self, neighbours: int, width: int, widths: tuple[int, ...], *, exact: bool) -> None:
        super().__init__()
        self.exact = exact
        self.neighbours = neighbours
        layers: list[nn.Module] = []
        for before, after in zip((2 * width, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.edges = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv1d(width, widths[-1], 1, bias=False), nn.BatchNorm1d(widths[-1]))

    def forward(self, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, C, P) at points (B, D, P) become (B, C', P), zero where the mask is."""
        jets, width, length = features.shape
        nearest = (
            closeness(points, exact=self.exact).topk(self.neighbours + 1, dim=-1).indices[:, :, 1:]
        )  # not itself
        rows = nearest.transpose(1, 2) + length * torch.arange(jets)[:, None, None]
        other = features.transpose(1, 2).reshape(-1, width)[rows.reshape(-1)]
        other = other.reshape(jets, self.neighbours, length, width).permute(0, 3, 1, 2)
        itself = features[:, :, None].expand(-1, -1, self.neighbours, -1)
        message = self.edges(torch.cat([itself, other - itself], dim=1)).mean(2)
        return torch.relu(self.shortcut(features) + message) * mask


class ParticleNetLite(nn.Module):
    """ParticleNet-Lite; a jet's scores do not depend on how far it was padded.

    For that, padded points are moved far away before neighbours are sought, their features are set to zero
    again after every normalisation, and the mean is taken over the jet's own points.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        first = EdgeConv(7, width, (32, 32, 32), exact=True)
        second = EdgeConv(7, 32, (64, 64, 64), exact=False)
        self.convolutions = nn.ModuleList([first, second])
        self.head = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, classes))

    def logits(self, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Scores before the softmax."""
        far_away = (1 - mask) * 1e9
        features = self.norm(features) * mask
        for convolution in self.convolutions:
            features = convolution(points + far_away, features, mask)
            points = features
        return self.head(features.sum(-1) / mask.sum(-1).clamp(min=1))

    def forward(self, points: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """The probability of each class."""
        return self.logits(points, features, mask).softmax(-1)


class JetRegression(nn.Module):
    """The whole jet's pT and mass, as multiples of its leading constituents' pT."""

    LEADING = 16

    def __init__(self) -> None:
        super().__init__()
        sizes = (4 * self.LEADING + 3, 64, 64)
        layers = [(nn.Linear(*ends), nn.ReLU()) for ends in pairwise(sizes)]
        self.layers = nn.Sequential(*(layer for pair in layers for layer in pair), nn.Linear(sizes[-1], 2))

    def forward(self, constituents: Tensor, multiplicity: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 16, 4) and (B, 1) become pt (B, 1) and mass (B, 1), in GeV."""
        pt, eta, phi, energy = constituents.unbind(-1)
        # E + pz and E - pz of massless constituents are pt exp(eta) and pt exp(-eta)
        parts = (pt * phi.cos(), pt * phi.sin(), pt * eta.exp(), pt * (-eta).exp())
        px, py, plus, minus = (part.sum(-1, keepdim=True) for part in parts)
        leading_pt = torch.sqrt(px**2 + py**2)
        leading_mass = torch.sqrt(torch.relu(plus * minus - leading_pt**2) + 1)
        scale = leading_pt.clamp(min=1)
        known = (
            pt.log1p() / 4,
            eta * 3,
            phi * 3,
            energy.log1p() / 4,
            (multiplicity.float().clamp(min=1) / 70).log(),
            (scale / 400).log(),
            (leading_mass / scale).log() + 1.5,
        )
        ratios = self.layers(torch.cat(known, dim=-1)).exp()
        return leading_pt * ratios[:, :1], leading_pt * ratios[:, 1:] / 5


def fit(
    network: nn.Module,
    loss_of: Callable[[Rows], Tensor],
    batches: Callable[[np.random.Generator], list[Rows]],
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train with AdamW and a one-cycle learning rate."""
    rng = np.random.default_rng(seed)
    plan = [batches(rng) for _ in range(epochs)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    steps = sum(map(len, plan))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    network.train()
    for epoch, rows_of_epoch in enumerate(plan, 1):
        rng.shuffle(rows_of_epoch)
        losses = []
        progress = tqdm(rows_of_epoch, f"epoch {epoch}/{epochs}", unit="batch", mininterval=5)
        for rows in progress:
            loss = loss_of(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress.set_postfix(loss=f"{np.mean(losses):.4f}", refresh=False)
    network.eval()
