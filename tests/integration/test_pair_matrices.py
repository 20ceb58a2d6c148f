"""Inputs with several variable axes, with a real Triton: equal to ONNX Runtime on each row alone."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import onnxruntime
import pytest
from builders_of_types import NODE, save_onnx

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import InvalidInput

ROWS = 120
RECIPE = {
    "input_names": ["x"],
    "x": {
        "var_names": ["part_pt", "part_eta"],
        "var_infos": {name: {"median": 0.5, "norm_factor": 2.0} for name in ("part_pt", "part_eta")},
        "max_length": 9,
    },
}


def save_models(repository):
    """Save models whose scores depend on any padding, and return their files."""
    axis = NODE("Constant", [], ["axis"], value_ints=[-1])
    weighted = [
        NODE("Constant", [], ["first"], value_ints=[-3]),
        NODE("ReduceSum", ["u", "first"], ["pairs"], keepdims=0),
        NODE("Softmax", ["pairs"], ["weights"], axis=-1),
        NODE("MatMul", ["x", "weights"], ["each"]),
        axis,
        NODE("ReduceSum", ["each", "axis"], ["y"], keepdims=0),
    ]
    inputs = [("x", "FP32", (2, -1)), ("u", "FP32", (4, -1, -1))]
    outputs = [("y", "FP32", (2,)), ("each", "FP32", (2, -1)), ("weights", "FP32", (-1, -1))]
    preprocess = f'parameters {{ key: "preprocess" value: {{ string_value: {json.dumps(json.dumps(RECIPE))} }} }}\n'
    total = [
        NODE("Constant", [], ["one"], value_float=1.0),
        NODE("Add", ["u", "one"], ["more"]),
        axis,
        NODE("ReduceSum", ["more", "axis"], ["y"], keepdims=0),
    ]
    edges = [NODE("Constant", [], ["one"], value_int=1), NODE("Add", ["e", "one"], ["more"])]
    edges.append(NODE("Constant", [], ["first"], value_ints=[1]))
    edges.append(NODE("ReduceSum", ["more", "first"], ["y"], keepdims=0))
    matrix, sums = [("u", "FP32", (-1, -1))], [("y", "FP32", (-1,))]
    return {
        "attention": save_onnx(repository / "attention", weighted, inputs, outputs),
        "described": save_onnx(repository / "described", weighted, inputs, outputs, more=preprocess),
        "square": save_onnx(repository / "square", total, matrix, sums),
        "alone": save_onnx(repository / "alone", total, matrix, sums, batched=False),
        "edges": save_onnx(repository / "edges", edges, [("e", "INT64", (-1, 2))], [("y", "INT64", (2,))]),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("matrices"))


@pytest.fixture(scope="module")
def triton(files):
    repository = files["square"].parents[2]
    with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc, timeout=20) as connection:
        yield connection


@pytest.fixture(scope="module")
def jets():
    """Give x, [2, P] of each row, and u, [4, P, P], with 0 to 9 constituents."""
    random = np.random.default_rng(8)
    counts = [*random.integers(1, 10, ROWS - 2).tolist(), 0, 1]
    x = [random.normal(size=(2, count)).astype(np.float32) for count in counts]
    return x, [random.normal(size=(4, count, count)).astype(np.float32) for count in counts]


def as_jagged(rows):
    """Return rows of different shapes as jagged float32 lists."""
    content = ak.contents.NumpyArray(np.concatenate([row.reshape(-1) for row in rows]))
    for axis in reversed(range(rows[0].ndim)):
        lengths = [length for row in rows for length in [row.shape[axis]] * int(np.prod(row.shape[:axis]))]
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        content = ak.contents.ListOffsetArray(ak.index.Index64(offsets), content)
    return ak.Array(content)


def assert_alone(scores, file, x, u):
    network = onnxruntime.InferenceSession(file)
    for row, own, pairs in zip(scores, x, u, strict=True):
        y, each, weights = network.run(None, {"x": own[None], "u": pairs[None]})
        np.testing.assert_allclose(ak.to_numpy(row.y), y[0], atol=1e-6)
        assert ak.num(row.each, axis=1).to_list() == [own.shape[1]] * 2
        np.testing.assert_allclose(ak.to_numpy(row.each), each[0], atol=1e-6)
        assert len(row.weights) == own.shape[1]
        if own.shape[1]:
            np.testing.assert_allclose(ak.to_numpy(row.weights), weights[0], atol=1e-6)


@pytest.mark.parametrize("form", ["one array", "channels", "records"])
def test_pair_matrices_beside_jagged_inputs_are_scored_unpadded(triton, files, jets, form):
    x, u = jets
    pairs = as_jagged(u)
    if form != "one array":
        pairs = [as_jagged([each[channel] for each in u]) for channel in range(4)]
    if form == "records":
        pairs = ak.zip(dict(zip("abcd", pairs, strict=True)))
    scores = triton.model("attention")({"x": as_jagged(x), "u": pairs})
    assert_alone(scores, files["attention"], x, u)


def test_pair_matrices_in_any_order_and_nesting_get_the_same_scores(triton, files, jets):
    order = np.random.default_rng(3).permutation(ROWS)
    x, u = ([each[row] for row in order] for each in jets)
    grouped = [ak.unflatten(as_jagged(each), [0, 70, 0, ROWS - 70]) for each in (x, u)]
    model = triton.model("attention")
    scores = model({"x": grouped[0], "u": grouped[1]})
    assert ak.num(scores, axis=1).to_list() == [0, 70, 0, ROWS - 70]
    assert_alone(ak.flatten(scores), files["attention"], x, u)
    assert_alone(model({"x": as_jagged(x[:1]), "u": as_jagged(u[:1])}), files["attention"], x[:1], u[:1])
    none = model({"x": as_jagged(x)[:0], "u": as_jagged(u)[:0]})
    assert (len(none), none.fields) == (0, ["y", "each", "weights"])


def test_a_recipe_fills_the_inputs_beside_a_pair_matrix(triton, files, jets):
    x, u = jets
    records = ak.zip({f"part_{name}": as_jagged([row[at] for row in x]) for at, name in enumerate(("pt", "eta"))})
    scores = triton.model("described")({"x": records, "u": as_jagged(u)})
    assert_alone(scores, files["described"], [(row - np.float32(0.5)) * 2 for row in x], u)
    long = ak.concatenate([records[:1], ak.zip({name: [[1.0] * 12] for name in records.fields})])
    with pytest.raises(InvalidInput, match="those of 'u' cannot be cut with them"):
        triton.model("described")({"x": long, "u": as_jagged([u[0], np.zeros((4, 12, 12), np.float32)])})


@pytest.mark.parametrize("name", ["square", "alone"])
def test_matrices_of_two_variable_axes_are_scored_unpadded(triton, files, name):
    random = np.random.default_rng(2)
    rows = [random.normal(size=random.integers(1, 7, 2)).astype(np.float32) for _ in range(60)]
    scores = triton.model(name)(as_jagged(rows))
    network = onnxruntime.InferenceSession(files[name])
    for row, matrix in zip(scores, rows, strict=True):
        (y,) = network.run(None, {"u": matrix[None] if name == "square" else matrix})
        np.testing.assert_allclose(ak.to_numpy(row), y.reshape(-1), atol=1e-6)
    with pytest.raises(InvalidInput, match="no single shape in row 1"):
        triton.model(name)(ak.Array([[[1.0]], [[1.0], [2.0, 3.0]]]))


def test_dense_matrices_are_still_sent_as_they_are(triton):
    matrices = np.random.default_rng(1).normal(size=(70, 3, 4)).astype(np.float32)
    scores = triton.model("square")(matrices)
    assert scores.shape == (70, 3)
    np.testing.assert_allclose(scores, (matrices + 1).sum(axis=2), atol=1e-5)


def test_pairs_of_indices_have_one_variable_axis(triton, files):
    random = np.random.default_rng(9)
    counts = random.integers(0, 30, 100)
    edges = [random.integers(0, 50, (count, 2)) for count in counts]
    network = onnxruntime.InferenceSession(files["edges"])
    expected = [network.run(None, {"e": each[None]})[0][0].tolist() for each in edges]
    pairs = ak.unflatten(ak.from_numpy(np.concatenate(edges)), counts)
    model = triton.model("edges")
    with pytest.warns(UserWarning, match="sent together, unpadded"):
        scores = model(pairs)
    assert scores.to_list() == expected
    assert model(ak.zip({"from": pairs[..., 0], "to": pairs[..., 1]})).to_list() == expected
