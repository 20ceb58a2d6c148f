"""PyTorch without Triton: the expected scores, one CPU core's rate, and what the GPU could do.

``python -m benchmarks.gpu.local cpu|gpu WEIGHTS DIRECTORY JETS PSEUDO_JETS`` writes ``cpu.json`` or ``gpu.json``.
"cpu" also writes ``jets.npy`` and ``dense.npy``, the scores that clients compare theirs with.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu.torch_model.network import INPUTS, ParticleNet
from eaf_facility.study.workloads import padded, particlenet_inputs, recipe_of, sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

_BATCH = 64  # on a CPU
_SECONDS = 4.0  # of one core's timing
_LENGTH = 72  # constituents, the mean of the sample
_ROWS = (16, 64, 256, 1024, 4096)


def cpu(weights: Path, directory: Path, jets: int, pseudo_jets: int) -> dict[str, Any]:
    """Time one core, and compute the expected scores on all."""
    records = sample(jets)
    inputs = {"jets": padded(records, recipe_of("particlenet")), "dense": particlenet_inputs(pseudo_jets)}
    networks = {"jets": "particlenet.npz", "dense": "particlenet_full.npz"}
    found: dict[str, Any] = {"jets": len(records), "constituents": float(inputs["jets"]["mask"].sum() / len(records))}
    torch.set_num_threads(1)
    for name, file in networks.items():
        network = ParticleNet(weights / file)
        began, done = time.monotonic(), 0
        for batch in _batches(inputs[name]):
            network(*batch)
            done += len(batch[0])
            if time.monotonic() - began > _SECONDS:
                break
        found[f"one core, {name}, jets/s"] = done / (time.monotonic() - began)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 2))
    for name, file in networks.items():
        network = ParticleNet(weights / file)
        scores = [network(*batch).numpy() for batch in _batches(inputs[name])]
        np.save(directory / f"{name}.partial.npy", np.concatenate(scores))
        (directory / f"{name}.partial.npy").rename(directory / f"{name}.npy")
    return found


def gpu(weights: Path, directory: Path, jets: int, pseudo_jets: int) -> dict[str, Any]:  # noqa: ARG001
    """Time batches on the GPU, copies included, in float32 and with TF32."""
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "length": _LENGTH}
    for file, width, length in (("particlenet.npz", 7, _LENGTH), ("particlenet_full.npz", 5, 100)):
        network = ParticleNet(weights / file).cuda()
        for precision in ("float32", "TF32"):
            torch.backends.cuda.matmul.allow_tf32 = precision == "TF32"
            for rows in _ROWS:
                made = [torch.randn(rows, channels, length) for channels in (2, width)]
                made.append(torch.ones(rows, 1, length))
                rate = rows / _median_seconds(network, made)
                found[f"{file.removesuffix('.npz')}, {precision}, {rows} jets of {length}, jets/s"] = rate
    return found


def _median_seconds(network: ParticleNet, inputs: list[torch.Tensor]) -> float:
    took: list[float] = []
    began = time.monotonic()
    while len(took) < 4 or time.monotonic() - began < 0.4:
        before = time.monotonic()
        network(*(each.cuda() for each in inputs)).cpu()
        took.append(time.monotonic() - before)
    return statistics.median(took[1:])


def _batches(inputs: Arrays) -> Iterator[list[torch.Tensor]]:
    for start in range(0, len(inputs["mask"]), _BATCH):
        yield [torch.from_numpy(np.ascontiguousarray(inputs[name][start : start + _BATCH])) for name in INPUTS]


def main() -> None:
    """Do what the command line says."""
    what, weights, directory, jets, pseudo_jets = sys.argv[1:]
    found = {"cpu": cpu, "gpu": gpu}[what](Path(weights), Path(directory), int(jets), int(pseudo_jets))
    Path(directory, f"{what}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
