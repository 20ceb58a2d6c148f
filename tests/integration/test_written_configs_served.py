"""The configurations that are written for users' models, in a real Triton: it accepts them and gives right scores."""

from __future__ import annotations

import json
from types import SimpleNamespace

import awkward as ak
import numpy as np
import onnx
import onnxruntime
import plain_client
import pytest
from onnx import TensorProto, helper
from zoo import FLOAT, INT64, LAST_AXIS, NODE, TENSOR, make_zoo

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.deploy.configuration import Choices, pinned, written
from eaf_inference.deploy.onnx_file import OnnxFile

pytestmark = pytest.mark.extended

OWNER = "al_5fice"
SOURCE = SimpleNamespace(backend="onnxruntime", features={}, labels={})
LABELS = ["top", 'q"c\\d', "Ψ's"]
LENGTHS = {"min_length": 4, "max_length": 64}
RECIPE = {
    "input_names": ["points", "mask"],
    "points": {"var_names": ["pt", "eta"], **LENGTHS},
    "mask": {"var_names": ["part_mask"], **LENGTHS},
}
CHOICES = {
    "flat": Choices(labels=LABELS, features=["pt", "η mass", "m"]),
    "jagged": Choices(recipe=json.dumps(RECIPE, indent=1)),
    "eights": Choices(pad_batches_to=8),
    "eights_or_one": Choices(pad_batches_to=[1, 8]),
    "graph": Choices(graph={"x": "x", "edge_index": "edge_index", "outputs": {"node": "node"}}),
}
SAME = [NODE("Identity", ["x"], ["y"])]
ROWS = ["rows"]
# Name -> nodes, inputs, outputs and constants
MODELS = {
    "flat": (  # as scikit-learn's: a class and probabilities
        [NODE("Softmax", ["x"], ["probabilities"], axis=1), NODE("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        [("x", FLOAT, ["rows", 3])],
        [("label", INT64, ROWS), ("probabilities", FLOAT, ["rows", 3])],
        [],
    ),
    "jagged": (
        [NODE("Mul", ["points", "mask"], ["masked"]), NODE("ReduceSum", ["masked", "axis"], ["y"], keepdims=0)],
        [("points", FLOAT, ["rows", 2, "p"]), ("mask", FLOAT, ["rows", 1, "p"])],
        [("y", FLOAT, ["rows", 2])],
        [LAST_AXIS],
    ),
    "numbers": (SAME, [("x", FLOAT, ROWS)], [("y", FLOAT, ROWS)], []),
    "names": (  # a string per row
        [NODE("Gather", ["strings", "x"], ["y"])],
        [("x", INT64, ROWS)],
        [("y", TensorProto.STRING, ROWS)],
        [helper.make_tensor("strings", TensorProto.STRING, [5], [b"top", "ß".encode(), b"", b"W", b"Z"])],
    ),
    "total": ([NODE("ReduceSum", ["x"], ["y"], keepdims=0)], [("x", FLOAT, ["rows", 3])], [("y", FLOAT, [])], []),
    "eights": (SAME, [("x", FLOAT, [8, 3])], [("y", FLOAT, [8, 3])], []),
    "eights_or_one": (SAME, [("x", FLOAT, ["rows", 3])], [("y", FLOAT, ["rows", 3])], []),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Save one model of each kind, with the configuration that is written for it; version 2 is served."""
    repository = tmp_path_factory.mktemp("written")
    zoo = make_zoo(tmp_path_factory.mktemp("zoo"))
    for name in [*MODELS, "graph"]:
        directory = repository / f"{OWNER}.{name}"
        path = directory / "2" / "model.onnx"
        path.parent.mkdir(parents=True)
        if name in MODELS:
            nodes, inputs, outputs, constants = MODELS[name]
            tensors = [[TENSOR(*each[:2], shape=each[2]) for each in some] for some in (inputs, outputs)]
            graph = helper.make_graph(nodes, name, *tensors, constants)
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        else:
            (zoo / name / "1" / "model.onnx").rename(path)
        text = written(directory.name, OnnxFile.read(path), SOURCE, CHOICES.get(name, Choices()))
        (directory / "config.pbtxt").write_text(pinned(text, 2, {"owner": "al_ice"}), encoding="utf-8")
        (directory / "3").mkdir()
        (directory / "3" / "model.onnx").write_bytes(b"half an upl")
    return repository


@pytest.fixture(scope="module")
def triton(repository):
    with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc) as connection:
        yield connection


def test_each_kind_of_model_is_served_and_equals_onnx_runtime(triton, repository):
    random = np.random.default_rng(5)
    for directory in sorted(repository.iterdir()):
        file = OnnxFile.read(directory / "2" / "model.onnx")
        arrays = {}
        for tensor in file.inputs:
            shape = [8 if size == -1 else size for size in tensor.dims]
            whole = random.integers(0, 5, size=shape)
            floats = random.normal(size=shape)
            dtype = {"FP32": "f4", "INT64": "i8"}[tensor.datatype]
            arrays[tensor.name] = (floats if dtype == "f4" else whole).astype(dtype)
        session = onnxruntime.InferenceSession(directory / "2" / "model.onnx")
        expected = dict(zip([each.name for each in file.outputs], session.run(None, arrays), strict=True))
        for name, array in arrays.items():
            arrays[name] = array[:, np.newaxis] if array.ndim == 1 else array  # as Triton wants it
        served = plain_client.infer(triton.endpoint.url, directory.name, arrays)
        assert served.keys() == expected.keys(), directory.name
        for name, values in expected.items():
            if values.dtype == object:
                values = np.array([each.encode() for each in values], object)
            np.testing.assert_array_equal(served[name].reshape(values.shape), values, err_msg=directory.name)


def test_labels_and_features_of_any_characters_arrive(triton):
    model = triton.model(f"{OWNER}.flat")
    table = {"m": [3.0, 0], "pt": [1.0, 0], "η mass": [2.0, 5]}
    scores = model(ak.Array(table), progress=False)
    assert scores["probabilities"].fields == LABELS
    assert ak.to_list(scores["label"]) == [[2], [1]]


def test_jagged_rows_are_scored_by_the_recipe(triton):
    jets = ak.Array({"pt": [[1.0, 2.0], [], [4.0] * 9], "eta": [[0.5, 0.5], [], [1.0] * 9]})
    scores = triton.model(f"{OWNER}.jagged")(jets, progress=False)
    assert scores.to_list() == [[3.0, 1.0], [0.0, 0.0], [36.0, 9.0]]


@pytest.mark.parametrize("name", ["eights", "eights_or_one", "numbers"])
def test_arrays_of_any_length_are_split_into_requests(triton, name):
    x = np.arange(33.0, dtype="f4").reshape(11, 3)
    model = triton.model(f"{OWNER}.{name}")
    x = x[:, 0] if name == "numbers" else x
    np.testing.assert_array_equal(np.asarray(model(x, progress=False)).reshape(x.shape), x)


def test_a_row_was_sent_ahead_where_it_is_safe(repository):
    warmed = {
        path.parent.name.split(".")[1]
        for path in repository.glob("*/config.pbtxt")
        if "zeros" in path.read_text(encoding="utf-8")
    }
    assert warmed == {"flat", "jagged", "numbers", "names", "eights", "eights_or_one"}
