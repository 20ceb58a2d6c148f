"""From a trained torch network to one that is served and verified: the seconds of each step.

    python -m benchmarks.deploy

It needs torch, and trains ParticleNet-Lite for a moment on the quickstart's jets, so that its weights are no longer
those that it was made with. The clock then runs from the network in memory until the served scores of 1,000 jets were
compared with those that ONNX Runtime gives here for each jet alone.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import awkward as ak
import numpy as np

import eaf_inference
from eaf_facility.local.single_user import up

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
JETS = 1000
STEPS = 20
TARGET = 15.0  # seconds


def main() -> None:
    """Train, deploy and print."""
    sys.path.insert(0, str(NOTEBOOKS))
    import torch

    training = importlib.import_module("train_particlenet")

    jets = ak.flatten(ak.from_parquet(NOTEBOOKS / "jets.parquet").jets)
    jets = jets[ak.num(jets.constituents) <= 128]
    torch.manual_seed(1)
    network = training.ParticleNetLite(len(training.STANDARDISED), len(training.CLASSES))
    prepared = training.Prepared.from_constituents(jets.constituents[:2000])
    target = torch.from_numpy((ak.to_numpy(jets.label[:2000]) == 0).astype(np.int64))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for rows in np.array_split(np.random.default_rng(1).permutation(2000), STEPS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(
            network.logits(*training.tensors(prepared.batch(rows))), target[rows]
        ).backward()
        optimiser.step()

    with TemporaryDirectory() as directory, up(gateway=False) as facility:
        path = Path(directory) / "preprocess.json"
        path.write_text(json.dumps(training.recipe()), encoding="utf-8")
        with eaf_inference.connect(facility.description.urls[0]) as triton:
            began = time.perf_counter()
            example = jets.constituents[:JETS]
            triton.deploy("particlenet_lite", network, example=example, recipe=path, tolerance=1e-4)
            seconds = time.perf_counter() - began
    print(f"{seconds:5.1f} s  in all, target {TARGET:g} s: {'reached' if seconds < TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
