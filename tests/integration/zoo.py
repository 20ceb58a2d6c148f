"""Small ONNX models, each with one property that a client can get wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
LAST_AXIS = helper.make_tensor("axis", INT64, [1], [2])
NODE, TENSOR = helper.make_node, helper.make_tensor_value_info


def make_zoo(repository: Path) -> Path:
    """Write the models into a Triton repository."""
    save_model(
        repository / "sums",  # [2, -1]: padding with zeros changes nothing
        nodes=[NODE("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        inputs=[("x", FLOAT, ["n", 2, "p"])],
        outputs=[("y", FLOAT, ["n", 2])],
        constants=[LAST_AXIS],
    )
    save_model(
        repository / "means",  # [2, -1]: padding changes everything
        nodes=[NODE("ReduceMean", ["x"], ["y"], axes=[2], keepdims=0)],
        inputs=[("x", FLOAT, ["n", 2, "p"])],
        outputs=[("y", FLOAT, ["n", 2])],
    )
    save_model(
        repository / "neighbours",  # needs at least 20 points, as a network with k = 20 does
        nodes=[
            NODE("Relu", ["x"], ["hidden"]),  # so that padding is never the maximum
            NODE("TopK", ["hidden", "k"], ["values", "places"], axis=2),
            NODE("ReduceMax", ["values"], ["y"], axes=[2], keepdims=0),
        ],
        inputs=[("x", FLOAT, ["n", 1, "p"])],
        outputs=[("y", FLOAT, ["n", 1])],
        constants=[helper.make_tensor("k", INT64, [1], [20])],
    )
    save_model(
        repository / "squares",  # [-1] -> [-1]: one value per constituent
        nodes=[NODE("Mul", ["x", "x"], ["y"])],
        inputs=[("x", FLOAT, ["n", "p"])],
        outputs=[("y", FLOAT, ["n", "p"])],
    )
    save_model(
        repository / "ratio",  # x / x: not a number where x is 0
        nodes=[NODE("Div", ["x", "x"], ["one"]), NODE("ReduceSum", ["one", "axis"], ["y"], keepdims=0)],
        inputs=[("x", FLOAT, ["n", 2, "p"])],
        outputs=[("y", FLOAT, ["n", 2])],
        constants=[LAST_AXIS],
    )
    save_model(
        repository / "graph",  # adds the sources of incoming edges to each node; no batch axis
        nodes=[
            NODE("Gather", ["edge_index", "first"], ["source"]),
            NODE("Gather", ["edge_index", "second"], ["target"]),
            NODE("Gather", ["x", "source"], ["message"]),
            NODE("Unsqueeze", ["target", "last"], ["column"]),
            NODE("Shape", ["message"], ["shape"]),
            NODE("Expand", ["column", "shape"], ["places"]),
            NODE("ScatterElements", ["x", "places", "message"], ["node"], axis=0, reduction="add"),
        ],
        inputs=[("x", FLOAT, ["nodes", 3]), ("edge_index", INT64, [2, "edges"])],
        outputs=[("node", FLOAT, ["nodes", 3])],
        constants=[
            helper.make_tensor("first", INT64, [], [0]),
            helper.make_tensor("second", INT64, [], [1]),
            helper.make_tensor("last", INT64, [1], [1]),
        ],
        batched=False,
    )
    save_model(
        repository / "fixed",  # two inputs, two outputs, fixed shapes
        nodes=[
            NODE("Cast", ["number"], ["as_float"], to=FLOAT),
            NODE("Add", ["values", "as_float"], ["sum"]),
            NODE("Mul", ["values", "as_float"], ["product"]),
        ],
        inputs=[("values", FLOAT, ["n", 3]), ("number", INT32, ["n", 1])],
        outputs=[("sum", FLOAT, ["n", 3]), ("product", FLOAT, ["n", 3])],
    )
    return repository


_TYPES = {FLOAT: "TYPE_FP32", INT32: "TYPE_INT32", INT64: "TYPE_INT64"}


def save_model(directory: Path, *, nodes, inputs, outputs, constants=(), batched=True, config="") -> None:
    """Write an ONNX model and its configuration, with these further lines."""
    values = [[TENSOR(name, kind, shape) for name, kind, shape in each] for each in (inputs, outputs)]
    graph = helper.make_graph(nodes, directory.name, *values, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    (directory / "1").mkdir(parents=True)
    onnx.save(model, directory / "1" / "model.onnx")
    lines = ['backend: "onnxruntime"', f"max_batch_size: {256 if batched else 0}"]
    for section, tensors in (("input", inputs), ("output", outputs)):
        for name, kind, shape in tensors:
            shape = shape[1:] if batched else shape
            dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in shape)
            lines.append(f'{section} [{{ name: "{name}", data_type: {_TYPES[kind]}, dims: [{dims}] }}]')
    (directory / "config.pbtxt").write_text("\n".join([*lines, config]))
