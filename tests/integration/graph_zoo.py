"""Small graph networks with a `graph` parameter, each with one property that a client can get wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onnx import helper
from zoo import FLOAT, INT64, NODE, save_model

if TYPE_CHECKING:
    from pathlib import Path

_CONSTANTS = {
    "zero": ([], [0]),
    "one": ([], [1]),
    "first": ([1], [0]),
    "last": ([1], [1]),
    "width": ([1], [3]),
    "minus_one": ([1], [-1]),
    "many": ([1], [1 << 40]),
}
_X, _EDGE_INDEX = ("x", FLOAT, ["nodes", 3]), ("edge_index", INT64, [2, "edges"])
_EDGE_ATTR = ("edge_attr", FLOAT, ["edges", 1])
_BATCH, _PTR = ("batch", INT64, ["nodes"]), ("ptr", INT64, ["starts"])
_NODE, _EDGE, _SCORE = ("node", FLOAT, ["nodes", 3]), ("edge", FLOAT, ["edges"]), ("score", FLOAT, ["graphs", 3])
# each node gets the sum of its neighbours' squares, weighted by the edges; each edge the sum of a product of its ends
_CONVOLUTION = [
    NODE("Gather", ["edge_index", "zero"], ["source"]),
    NODE("Gather", ["edge_index", "one"], ["target"]),
    NODE("Gather", ["x", "source"], ["from_source"]),
    NODE("Gather", ["x", "target"], ["from_target"]),
    NODE("Mul", ["from_source", "from_target"], ["product"]),
    NODE("ReduceSum", ["product", "last"], ["edge"], keepdims=0),
    NODE("Mul", ["from_source", "edge_attr"], ["message"]),
    NODE("Unsqueeze", ["target", "last"], ["column"]),
    NODE("Shape", ["message"], ["shape"]),
    NODE("Expand", ["column", "shape"], ["places"]),
    NODE("ScatterElements", ["x", "places", "message"], ["node"], axis=0, reduction="add"),
]
# the sum over each graph's nodes, by `batch` as PyTorch Geometric does it: the largest number says how many there are
_POOLED_BY_BATCH = [
    NODE("ReduceMax", ["batch"], ["largest"], keepdims=1),
    NODE("Add", ["largest", "last"], ["graphs"]),
    NODE("Concat", ["graphs", "width"], ["score_shape"], axis=0),
    NODE("ConstantOfShape", ["score_shape"], ["zeros"]),
    NODE("Unsqueeze", ["batch", "last"], ["batch_column"]),
    NODE("Shape", ["node"], ["node_shape"]),
    NODE("Expand", ["batch_column", "node_shape"], ["graph_of_node"]),
    NODE("ScatterElements", ["zeros", "graph_of_node", "node"], ["score"], axis=0, reduction="add"),
]
# the same by `ptr`: a node belongs to the graph that starts before it and ends behind it
_POOLED_BY_PTR = [
    NODE("Slice", ["ptr", "last", "many"], ["ends"]),
    NODE("Slice", ["ptr", "first", "minus_one"], ["starts_of"]),
    NODE("Unsqueeze", ["ends", "last"], ["end_column"]),
    NODE("Unsqueeze", ["starts_of", "last"], ["start_column"]),
    NODE("Shape", ["x"], ["x_shape"]),
    NODE("Gather", ["x_shape", "zero"], ["nodes_of_x"]),
    NODE("Range", ["zero", "nodes_of_x", "one"], ["number"]),
    NODE("Less", ["number", "end_column"], ["before_end"]),
    NODE("GreaterOrEqual", ["number", "start_column"], ["after_start"]),
    NODE("And", ["before_end", "after_start"], ["belongs"]),
    NODE("Cast", ["belongs"], ["weight"], to=FLOAT),
    NODE("MatMul", ["weight", "node"], ["score"]),
]
_BASE = {"x": "x", "edge_index": "edge_index", "edge_attr": "edge_attr"}
_PER = {"node": "node", "edge": "edge", "score": "graph"}


def make_graph_zoo(repository: Path) -> Path:
    """Write the models into a Triton repository."""
    given = [_X, _EDGE_INDEX, _EDGE_ATTR]
    _save_graph(repository / "convolution", _CONVOLUTION, given, [_NODE, _EDGE])
    _save_graph(repository / "by_batch", [*_CONVOLUTION, *_POOLED_BY_BATCH], [*given, _BATCH], [_NODE, _EDGE, _SCORE])
    _save_graph(repository / "by_ptr", [*_CONVOLUTION, *_POOLED_BY_PTR], [*given, _PTR], [_NODE, _EDGE, _SCORE])
    summed = [*_CONVOLUTION, NODE("ReduceSum", ["node", "first"], ["score"], keepdims=1)]
    _save_graph(repository / "one_at_a_time", summed, given, [_NODE, _EDGE, _SCORE])
    mean = [NODE("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), NODE("Sub", ["x", "mean"], ["node"])]
    _save_graph(repository / "centred", [*_CONVOLUTION[:6], *mean], [_X, _EDGE_INDEX], [_NODE, _EDGE])
    norm = ["x", "ones", "nothings", "nothings", "ones"], ["node", "mean", "variance"]
    training = [*_CONVOLUTION[:6], NODE("BatchNormalization", *norm, training_mode=1)]
    _save_graph(repository / "training_mode", training, [_X, _EDGE_INDEX], [_NODE, _EDGE])
    short = [*_CONVOLUTION[:-1], NODE("Slice", ["x", "first", "minus_one"], ["node"])]
    _save_graph(repository / "one_too_few", short, given, [_NODE, _EDGE])
    return repository


def _save_graph(directory: Path, nodes, inputs, outputs) -> None:
    numbers = [helper.make_tensor(name, INT64, *value) for name, value in _CONSTANTS.items()]
    floats = [
        helper.make_tensor("nothings", FLOAT, [3], [0.0] * 3),
        helper.make_tensor("ones", FLOAT, [3], [1.0] * 3),
    ]
    used = {name for node in nodes for name in node.input}
    constants = [each for each in (*numbers, *floats) if each.name in used]
    names = [name for name, _, _ in inputs]
    declared = {key: name for key, name in _BASE.items() if name in names}
    declared |= {name: name for name in ("batch", "ptr") if name in names}
    declared["outputs"] = {name: _PER[name] for name, _, _ in outputs}
    value = json.dumps(json.dumps(declared))  # a string of protobuf's text format
    save_model(
        directory,
        nodes=nodes,
        inputs=inputs,
        outputs=outputs,
        constants=constants,
        batched=False,
        config=f'parameters {{ key: "graph" value {{ string_value: {value} }} }}',
    )
