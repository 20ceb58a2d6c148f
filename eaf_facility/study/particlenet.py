"""A ParticleNet of the size in arXiv:2312.06838, as ONNX with random weights: it has the cost, not the physics.

It has three EdgeConv blocks of 16 neighbours with (64, 64, 64), (128, 128, 128) and (256, 256, 256) channels, and a
hidden layer of 256 (arXiv:1902.08570, table 2). Batch normalisation is folded into the weights, as at inference.
Masks are applied so that the scores of a jet do not depend on its padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["NAME", "save", "write_particlenet"]

NAME = "particlenet_full"

_NEIGHBOURS = 16
_BLOCKS = ((64, 64, 64), (128, 128, 128), (256, 256, 256))
_HIDDEN = 256
_FEATURES = 5
_CLASSES = 2
_SEED = 20231206
# one instance, because a batch of 1,024 takes 11 GB
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 1024
input {{ name: "points" data_type: TYPE_FP32 dims: [2, -1] }}
input {{ name: "features" data_type: TYPE_FP32 dims: [5, -1] }}
input {{ name: "mask" data_type: TYPE_FP32 dims: [1, -1] }}
output {{ name: "softmax" data_type: TYPE_FP32 dims: [2] }}
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""


class _Graph:
    """The nodes and weights of an ONNX graph; tensors have the layout (jets, points, channels)."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._random = np.random.default_rng(_SEED)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def linear(self, values: str, width: int, height: int) -> str:
        """Add a dense layer on the last axis, that is, a convolution over points."""
        weights = self._random.normal(0, (2 / width) ** 0.5, (width, height)).astype(np.float32)
        product = self.add("MatMul", values, self.constant(weights))
        return self.add("Add", product, self.constant(self._random.normal(0, 0.1, height).astype(np.float32)))

    def neighbours(self, points: str) -> str:
        """Add the search for the nearest neighbours of each point: flat row numbers (jets × points, neighbours)."""
        square = self.add("ReduceSum", self.add("Mul", points, points), self.integers(2), keepdims=1)
        product = self.add("MatMul", points, self.add("Transpose", points, perm=[0, 2, 1]))
        twice = self.add("Mul", product, self.constant(np.array(2, np.float32)))
        close = self.add("Sub", self.add("Sub", twice, square), self.add("Transpose", square, perm=[0, 2, 1]))
        nearest = f"nearest_{len(self.nodes)}"
        self._top(close, nearest)
        others = self.add("Slice", nearest, self.integers(1), self.integers(_NEIGHBOURS + 1), self.integers(2))
        sizes = self.add("Shape", points)
        jets = self.add("Gather", sizes, self.constant(np.array(0, np.int64)))
        length = self.add("Gather", sizes, self.constant(np.array(1, np.int64)))
        zero, one = (self.constant(np.array(each, np.int64)) for each in (0, 1))
        first = self.add("Mul", self.add("Range", zero, jets, one), length)
        return self.add("Add", others, self.add("Reshape", first, self.integers(-1, 1, 1)))

    def _top(self, values: str, name: str) -> None:
        from onnx import helper

        wanted = self.integers(_NEIGHBOURS + 1)
        self.nodes.append(helper.make_node("TopK", [values, wanted], [f"{name}_values", name], axis=2))

    def edge_convolution(self, points: str, features: str, mask: str, width: int, widths: tuple[int, ...]) -> str:
        rows = self.neighbours(points)
        other = self.add("Gather", self.add("Reshape", features, self.integers(-1, width)), rows, axis=0)
        itself = self.add("Unsqueeze", features, self.integers(2))
        difference = self.add("Sub", other, itself)
        message = self.add("Concat", self.add("Expand", itself, self.add("Shape", other)), difference, axis=3)
        size = 2 * width
        for each in widths:
            message = self.add("Relu", self.linear(message, size, each))
            size = each
        message = self.add("ReduceMean", message, axes=[2], keepdims=0)
        shortcut = self.linear(features, width, size)
        return self.add("Mul", self.add("Relu", self.add("Add", message, shortcut)), mask)


def write_particlenet(repository: Path) -> Path:
    """Add the network to a model repository and return the path of its ONNX file."""
    directory = repository / NAME
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(_CONFIG.format(name=NAME), encoding="utf-8")
    file = directory / "1" / "model.onnx"
    save(file)
    return file


def save(file: Path) -> None:
    """Write the network as ONNX. Its weights are the same in every file."""
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    points, features, mask = (graph.add("Transpose", name, perm=[0, 2, 1]) for name in ("points", "features", "mask"))
    absent = graph.add("Sub", graph.constant(np.array(1, np.float32)), mask)
    far_away = graph.add("Mul", absent, graph.constant(np.array(1e9, np.float32)))
    features = graph.add("Mul", features, mask)
    width = _FEATURES
    for widths in _BLOCKS:
        features = graph.edge_convolution(graph.add("Add", points, far_away), features, mask, width, widths)
        points, width = features, widths[-1]
    count = graph.add("ReduceSum", mask, graph.integers(1), keepdims=0)
    present = graph.add("Max", count, graph.constant(np.array(1, np.float32)))
    mean = graph.add("Div", graph.add("ReduceSum", features, graph.integers(1), keepdims=0), present)
    hidden = graph.add("Relu", graph.linear(mean, width, _HIDDEN))
    scores = graph.add("Softmax", graph.linear(hidden, _HIDDEN, _CLASSES), axis=1)
    graph.nodes.append(helper.make_node("Identity", [scores], ["softmax"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["jets", channels, "constituents"])
        for name, channels in (("points", 2), ("features", _FEATURES), ("mask", 1))
    ]
    output = helper.make_tensor_value_info("softmax", TensorProto.FLOAT, ["jets", _CLASSES])
    made = helper.make_graph(graph.nodes, NAME, inputs, [output], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, file)
