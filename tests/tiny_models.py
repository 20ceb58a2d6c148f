"""Fast models, one of each kind that a repository may hold, and functions to call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plain_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np

    from eaf_facility.servers.triton import TritonServer

PLAIN_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        values = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", value[:, ::-1].copy())]) for value in values]
"""
PLAIN_CONFIG = """
backend: "python"
max_batch_size: 64
input [{ name: "x", data_type: TYPE_FP32, dims: [2] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [2] }]
"""


def save_affine(directory: Path, *, rows: str | int = "rows", config: str = "") -> Path:
    """Make an ONNX model with y = 2x + 1 and total = Σx, for x of shape [rows, 2]."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "one"], ["y"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0),
    ]
    constants = [
        helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 2])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 2]),
        helper.make_tensor_value_info("total", TensorProto.FLOAT, [rows]),
    ]
    graph = helper.make_graph(nodes, "affine", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (directory / "1").mkdir(parents=True)
    onnx.save(model, directory / "1" / "model.onnx")
    if config:
        (directory / "config.pbtxt").write_text(config)
    return directory


def save_sums(path: Path, factor: float = 2.0) -> Path:
    """Save y = factor × Σ of the real constituents' two variables, for any number of rows and constituents."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Mul", ["pf", "mask"], ["real"]),
        helper.make_node("ReduceSum", ["real", "axes"], ["sums"], keepdims=0),
        helper.make_node("Mul", ["sums", "factor"], ["y"]),
    ]
    constants = [
        helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [2]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "sums",
        [
            info("pf", TensorProto.FLOAT, ["rows", 2, "constituents"]),
            info("mask", TensorProto.FLOAT, ["rows", 1, "constituents"]),
        ],
        [info("y", TensorProto.FLOAT, ["rows", 2])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def save_mirror(directory: Path) -> Path:
    """Make a model in plain Python that swaps the two columns of its input."""
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(PLAIN_CONFIG)
    (directory / "1" / "model.py").write_text(PLAIN_MODEL)
    return directory


def infer(server: TritonServer, model: str, x: np.ndarray, *, outputs: tuple[str, ...] = ("y",)):
    """Request these outputs of a model whose input is a float32 `x`."""
    return plain_client.infer(server.grpc, model, {"x": x}, outputs)


def ask(server: TritonServer, model: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Send inputs of any type, and return all outputs."""
    return plain_client.infer(server.grpc, model, arrays)


def save_typed(directory: Path, types: Iterable[np.dtype]) -> Path:
    """Make an ONNX model that returns its inputs, one of every type, and the sum of the float32 one.

    Input and output number n are called `x{n}` and `y{n}`, and may have any shape with two axes.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes, inputs, outputs = [], [], []
    for number, each in enumerate(types):
        kind, axes = helper.np_dtype_to_tensor_dtype(each), [f"a{number}", f"b{number}"]
        nodes.append(helper.make_node("Identity", [f"x{number}"], [f"y{number}"]))
        inputs.append(helper.make_tensor_value_info(f"x{number}", kind, axes))
        outputs.append(helper.make_tensor_value_info(f"y{number}", kind, axes))
        if each == "f4":
            nodes.append(helper.make_node("ReduceSum", [f"x{number}"], ["total"], keepdims=0))
    outputs.append(helper.make_tensor_value_info("total", TensorProto.FLOAT, []))
    graph = helper.make_graph(nodes, "typed", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (directory / "1").mkdir(parents=True)
    onnx.save(model, directory / "1" / "model.onnx")
    (directory / "config.pbtxt").write_text("max_batch_size: 0\n")
    return directory
