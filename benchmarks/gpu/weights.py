"""Read the weights of both ParticleNets from ONNX, for PyTorch: ``python -m benchmarks.gpu.weights DIRECTORY``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_facility.servers.triton import MODELS
from eaf_facility.study import particlenet

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_weights"]

_BLOCK = ("edge_{}_0", "edge_{}_1", "edge_{}_2", "shortcut_{}")  # in the order in which the ONNX files hold them


def write_weights(directory: Path) -> None:
    """Write ``particlenet.npz``, which comes with the package, and the study's ``particlenet_full.npz``."""
    directory.mkdir(parents=True, exist_ok=True)
    lite = _initializers(MODELS / "particlenet" / "1" / "model.onnx")
    scale = lite["norm.weight"] / np.sqrt(lite["norm.running_var"] + 1e-5)
    shift = lite["norm.bias"] - lite["norm.running_mean"] * scale
    head = [(lite[f"head.{layer}.weight"], lite[f"head.{layer}.bias"]) for layer in (0, 3)]
    convolutions = [values for name, values in lite.items() if name.startswith("onnx::Conv")]
    layers = [(weight.squeeze(), bias) for weight, bias in zip(convolutions[::2], convolutions[1::2], strict=True)]
    np.savez(directory / "particlenet.npz", **_named([*layers, *head], scale, shift, neighbours=7, exact_first=True))
    with tempfile.TemporaryDirectory() as place:
        particlenet.save(file := Path(place) / "model.onnx")
        full = [values for values in _initializers(file).values() if values.dtype == np.float32 and values.ndim]
    layers = [(weight.T, bias) for weight, bias in zip(full[::2], full[1::2], strict=True)]
    one, zero = np.ones(5, np.float32), np.zeros(5, np.float32)
    np.savez(directory / "particlenet_full.npz", **_named(layers, one, zero, neighbours=16, exact_first=False))


def _initializers(file: Path) -> dict[str, NDArray[Any]]:
    import onnx
    from onnx import numpy_helper

    return {each.name: numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer}


def _named(
    layers: list[tuple[NDArray[Any], NDArray[Any]]],
    scale: NDArray[Any],
    shift: NDArray[Any],
    *,
    neighbours: int,
    exact_first: bool,
) -> dict[str, Any]:
    blocks = (len(layers) - 2) // len(_BLOCK)
    names = [name.format(block) for block in range(blocks) for name in _BLOCK]
    content: dict[str, Any] = {"neighbours": neighbours, "blocks": blocks, "exact_first": exact_first}
    content |= {"scale": scale.astype(np.float32), "shift": shift.astype(np.float32)}
    for name, (weight, bias) in zip([*names, "hidden", "scores"], layers, strict=True):
        content |= {f"{name}_weight": np.ascontiguousarray(weight), f"{name}_bias": bias}
    return content


if __name__ == "__main__":
    write_weights(Path(sys.argv[1]))
