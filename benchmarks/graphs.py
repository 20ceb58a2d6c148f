"""Graphs per second of a small graph network, with and without the parameter `graph`.

``python -m benchmarks.graphs`` sends the same arrays to the same ONNX file on one Triton, declared and undeclared, in
turns. The network passes messages once over 20 nodes and 40 edges. Some scores of each are compared with ONNX Runtime
on the graph alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.machine import machine
from eaf_inference.errors import BadReply

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NODES, _EDGES, _FEATURES = 20, 40, 3
_GRAPH = {"x": "x", "edge_index": "edge_index", "outputs": {"node": "node"}}
_CONFIG = """
backend: "onnxruntime"
max_batch_size: 0
input [{ name: "x", data_type: TYPE_FP32, dims: [-1, 3] }]
input [{ name: "edge_index", data_type: TYPE_INT64, dims: [2, -1] }]
output [{ name: "node", data_type: TYPE_FP32, dims: [-1, 3] }]
"""
_COMPARED = 200  # graphs


def _write(directory: Path, *, declared: bool) -> Path:
    """Write the network: each node adds the features of the sources of its edges."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Gather", ["edge_index", "first"], ["source"]),
        helper.make_node("Gather", ["edge_index", "second"], ["target"]),
        helper.make_node("Gather", ["x", "source"], ["message"]),
        helper.make_node("Unsqueeze", ["target", "last"], ["column"]),
        helper.make_node("Shape", ["message"], ["shape"]),
        helper.make_node("Expand", ["column", "shape"], ["places"]),
        helper.make_node("ScatterElements", ["x", "places", "message"], ["node"], axis=0, reduction="add"),
    ]
    shapes = {"first": ([], [0]), "second": ([], [1]), "last": ([1], [1])}
    constants = [helper.make_tensor(name, TensorProto.INT64, *each) for name, each in shapes.items()]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["nodes", _FEATURES]),
        helper.make_tensor_value_info("edge_index", TensorProto.INT64, [2, "edges"]),
    ]
    outputs = [helper.make_tensor_value_info("node", TensorProto.FLOAT, ["nodes", _FEATURES])]
    graph = helper.make_graph(nodes, directory.name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = directory / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    value = json.dumps(json.dumps(_GRAPH))
    text = f'parameters {{ key: "graph" value {{ string_value: {value} }} }}\n' if declared else ""
    (directory / "config.pbtxt").write_text(_CONFIG + text, encoding="utf-8")
    return path


def _graphs(number: int) -> dict[str, Any]:
    random = np.random.default_rng(15)
    x = random.normal(size=(number * _NODES, _FEATURES)).astype(np.float32)
    ends = random.integers(0, _NODES, (2, number * _EDGES))
    return {
        "x": ak.unflatten(ak.from_numpy(x), np.full(number, _NODES)),
        "edge_index": [ak.unflatten(each, np.full(number, _EDGES)) for each in ends],
    }


def _first(data: dict[str, Any], number: int) -> dict[str, Any]:
    return {"x": data["x"][:number], "edge_index": [end[:number] for end in data["edge_index"]]}


def _largest_difference(scores: ak.Array, data: dict[str, Any], file: Path) -> float:
    """Compare with ONNX Runtime on some graphs alone."""
    from onnxruntime import InferenceSession

    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    largest = 0.0
    for at in range(min(_COMPARED, len(scores))):
        index: NDArray[np.int64] = np.stack([ak.to_numpy(end[at]) for end in data["edge_index"]])
        [expected] = session.run(None, {"x": ak.to_numpy(data["x"][at]), "edge_index": index})
        largest = max(largest, float(np.abs(ak.to_numpy(scores[at]) - expected).max()))
    if not largest <= 1e-6:  # also if it is not a number
        raise BadReply(f"A score differs by {largest:.1e} from ONNX Runtime's on the graph alone.")
    return largest


def main() -> None:
    """Measure, and print what was measured, on what, and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", metavar="N", type=int, default=20_000, help="declared graphs (default: 20000)")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="rounds of each (default: 3)")
    options = parser.parse_args()
    say = sys.stdout.write
    say("".join(f"{name}: {value}\n" for name, value in machine().items()))
    data = _graphs(options.graphs)
    sizes = {"declared": options.graphs, "undeclared": max(1, options.graphs // 10)}
    rates: dict[str, list[float]] = {name: [] for name in sizes}
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="eaf-inference-graphs-") as directory:
        repository = Path(directory)
        files = {name: _write(repository / name, declared=name == "declared") for name in sizes}
        with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc) as triton:
            for _ in range(options.rounds):
                for name, number in sizes.items():
                    model, some = triton.model(name), _first(data, number)
                    model(_first(data, 2), progress=False)  # warm
                    start = time.perf_counter()
                    scores = model(some, progress=False)
                    rates[name].append(number / (time.perf_counter() - start))
                    differences[name] = _largest_difference(scores, some, files[name])
    for name, found in rates.items():
        say(
            f"{name}, {sizes[name]:,} graphs of {_NODES} nodes and {_EDGES} edges: {statistics.median(found):,.0f} "
            f"graphs/s ({min(found):,.0f} to {max(found):,.0f}), largest difference to ONNX Runtime on each alone "
            f"{differences[name]:.1e}\n"
        )
    ratios = [mine / theirs for mine, theirs in zip(rates["declared"], rates["undeclared"], strict=True)]
    say(f"declared / undeclared: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})\n")


if __name__ == "__main__":
    main()
