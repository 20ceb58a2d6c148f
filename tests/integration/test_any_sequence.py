"""A row's scores are those of ONNX Runtime for it alone, after any earlier calls and in any batch.

A real Triton serves models with correct and wrong masks, one for each way in which padding can do harm. Each example
has its own connection, so it starts without findings. Set EXAMPLES=2000 for a longer run.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, field

import awkward as ak
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import InferenceError

EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
NODE = helper.make_node


@dataclass(frozen=True)
class Network:
    """An ONNX model and its configuration."""

    nodes: list
    collections: dict  # input -> channels
    outputs: dict  # name -> shape, with -1 for one value per constituent
    constants: dict = field(default_factory=dict)
    recipe: dict | None = None
    batch: int = 64


def _sum(name, result):
    return NODE("ReduceSum", [name, "last"], [result], keepdims=0)


LAST = {"last": np.array([2])}
NETWORKS = {
    "sum": Network([_sum("x", "y")], {"x": 2}, {"y": [2]}, LAST),
    "mean": Network([NODE("ReduceMean", ["x"], ["y"], axes=[2], keepdims=0)], {"x": 2}, {"y": [2]}),
    "greatest": Network([NODE("ReduceMax", ["x"], ["y"], axes=[2], keepdims=0)], {"x": 1}, {"y": [1]}),
    "ratio": Network([NODE("Div", ["x", "x"], ["r"]), _sum("r", "y")], {"x": 1}, {"y": [1]}, LAST),
    "nearest": Network(  # needs at least 3 neighbours
        [NODE("TopK", ["x", "three"], ["values", "places"], axis=2), _sum("values", "y")],
        *({"x": 1}, {"y": [1]}, LAST | {"three": np.array([3])}),
    ),
    "each": Network([NODE("Mul", ["x", "x"], ["each"]), _sum("x", "y")], {"x": 1}, {"each": [1, -1], "y": [1]}, LAST),
    "eight": Network(  # an axis declared variable that is always 8
        [NODE("ReduceSum", ["x", "last"], ["s"], keepdims=1), NODE("Mul", ["s", "ones"], ["each"])],
        *({"x": 1}, {"each": [1, -1]}, LAST | {"ones": np.ones((1, 1, 8), np.float32)}),
    ),
    "first": Network(
        [NODE("Mul", ["x", "x"], ["each"]), _sum("z", "y")],
        *({"x": 1, "z": 1}, {"each": [1, -1], "y": [1]}, LAST),
    ),
    "pairs": Network(  # one value per pair of constituents
        [NODE("Transpose", ["x"], ["t"], perm=[0, 2, 1]), NODE("MatMul", ["t", "x"], ["pair"]), _sum("x", "y")],
        *({"x": 1}, {"pair": [-1, -1], "y": [1]}, LAST),
    ),
    "share": Network(  # each constituent's share of the sum; the sum of nothing is 0
        [NODE("ReduceSum", ["x", "last"], ["all"], keepdims=1), NODE("Div", ["x", "all"], ["each"])],
        *({"x": 1}, {"each": [1, -1]}, LAST),
    ),
    "second": Network(  # the mean of a second collection plus the sum of the first
        [_sum("x", "s"), NODE("ReduceMean", ["z"], ["m"], axes=[2], keepdims=0), NODE("Add", ["s", "m"], ["y"])],
        *({"x": 1, "z": 1}, {"y": [1]}, LAST),
    ),
    "both": Network(
        [_sum("x", "s"), _sum("z", "t"), NODE("Add", ["s", "t"], ["y"])], {"x": 1, "z": 1}, {"y": [1]}, LAST
    ),
    "recipe": Network(
        *([_sum("x", "y")], {"x": 2}, {"y": [2]}, LAST),
        recipe={"min_length": 3, "max_length": 9, "pad": -1.0, "output_names": ["first", "second"]},
    ),
    "fixed": Network(
        *([NODE("ReduceMean", ["x"], ["y"], axes=[2], keepdims=0)], {"x": 2}, {"y": [2]}),
        recipe={"var_length": 9, "pad": 0.5},
    ),
    "alone": Network([_sum("x", "y")], {"x": 2}, {"y": [2]}, {"last": np.array([1])}, batch=0),
}


def save(repository, name, network):
    def values(shapes):
        batch = ["n"] if network.batch else []
        return [
            helper.make_tensor_value_info(
                key, TensorProto.FLOAT, [*batch, *(f"{key}_p" if s < 0 else s for s in shape)]
            )
            for key, shape in shapes.items()
        ]

    inputs = {key: [channels, -1] for key, channels in network.collections.items()}
    constants = [numpy_helper.from_array(value, key) for key, value in network.constants.items()]
    graph = helper.make_graph(network.nodes, name, values(inputs), values(network.outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (repository / name / "1").mkdir(parents=True)
    onnx.save(model, repository / name / "1" / "model.onnx")
    lines = ['backend: "onnxruntime"', f"max_batch_size: {network.batch}"]
    for section, shapes in (("input", inputs), ("output", network.outputs)):
        lines += [f'{section} {{ name: "{key}" data_type: TYPE_FP32 dims: {s} }}' for key, s in shapes.items()]
    if network.recipe:
        rules = {key: value for key, value in network.recipe.items() if key not in ("pad", "output_names")}
        variables = {each: {"pad": network.recipe["pad"]} for each in "ab"}
        text = {"input_names": ["x"], "x": {"var_names": ["a", "b"], "var_infos": variables, **rules}}
        text["output_names"] = network.recipe.get("output_names", ["y"])
        quoted = json.dumps(json.dumps(text))
        lines.append(f'parameters {{ key: "preprocess" value {{ string_value: {quoted} }} }}')
    (repository / name / "config.pbtxt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    path = tmp_path_factory.mktemp("networks")
    for name, network in NETWORKS.items():
        save(path, name, network)
    return path


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer.start([repository]) as triton:
        yield triton


@pytest.fixture(scope="module")
def sessions(repository):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return {name: onnxruntime.InferenceSession(repository / name / "1" / "model.onnx", options) for name in NETWORKS}


number = st.floats(-8, 8, width=16) | st.sampled_from([0.0, 1.0, -1.0])
lists = st.lists(number, max_size=12) | st.just([]) | st.lists(number, min_size=3, max_size=3)


@st.composite
def sequences(draw):
    """Draw a network and calls of it; a call is a list of rows, and a row has a list for each collection."""
    name = draw(st.sampled_from(sorted(NETWORKS)))
    row = st.tuples(*[lists] * len(NETWORKS[name].collections))
    return name, draw(st.lists(st.lists(row, max_size=6), min_size=1, max_size=4))


def channels(network, row):
    """Make the input arrays of one row without padding; channel c has the values times c + 1."""
    return {
        key: np.array([[value * (c + 1) for value in values] for c in range(count)], np.float32).reshape(count, -1)
        for (key, count), values in zip(network.collections.items(), row, strict=True)
    }


def alone(network, session, row):
    """Score one row with ONNX Runtime; None if it refuses the row."""
    arrays = channels(network, row)
    if network.recipe:
        x = arrays["x"][:, : network.recipe.get("max_length") or network.recipe["var_length"]]
        least = network.recipe.get("min_length") or network.recipe["var_length"]
        missing = max(least - x.shape[1], 0)
        arrays["x"] = np.pad(x, ((0, 0), (0, missing)), constant_values=network.recipe["pad"])
    try:
        found = session.run(None, {key: each[None] if network.batch else each for key, each in arrays.items()})
    except Exception:  # noqa: BLE001  (whatever it says)
        return None
    return [each[0] if network.batch else each for each in found]


def records(network, rows):
    """Make the arrays that a user would pass for the rows of one call."""
    jagged = {}
    for position, (key, count) in enumerate(network.collections.items()):
        values = [row[position] for row in rows]
        counts = np.array([len(each) for each in values], np.int64)
        flat = np.array([number for each in values for number in each], np.float32)
        jagged[key] = [ak.unflatten(flat * np.float32(c + 1), counts) for c in range(count)]
    return ak.zip(dict(zip("ab", jagged["x"], strict=True))) if network.recipe else jagged


def scores_of(network, given):
    """Return the scores by output and row, in the output's shape."""
    outputs = {}
    for name in network.outputs:
        values = given[name] if len(network.outputs) > 1 else given
        if values.fields:
            outputs[name] = np.stack([ak.to_numpy(values[label]) for label in values.fields], axis=-1)
        else:
            outputs[name] = [np.array(values[row].to_list(), np.float32) for row in range(len(values))]
    return outputs


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(sequence=sequences())
def test_any_sequence_of_calls_gives_each_row_its_own_scores(server, sessions, sequence):
    name, calls = sequence
    network, session = NETWORKS[name], sessions[name]
    with eaf_inference.connect(server.grpc) as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = connection.model(name)
        for rows in calls:
            expected = [alone(network, session, row) for row in rows]
            try:
                scores = scores_of(network, model(records(network, rows)))
            except InferenceError:
                assert None in expected  # the model refuses such a row alone as well
                continue
            for row, right in enumerate(expected):
                if right is None:  # padding makes the model accept it, with the same score at any length
                    continue
                for key, values in zip(network.outputs, right, strict=True):
                    np.testing.assert_allclose(scores[key][row].reshape(values.shape), values, rtol=1e-4, atol=1e-4)
