"""Class names from label files, and ensembles, with a real Triton."""

from __future__ import annotations

import json
import pickle
import re

import awkward as ak
import dask_awkward
import numpy as np
import onnxruntime
import pytest
from builders_of_types import NODE, save_onnx
from tiny_models import save_affine

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import InvalidInput

VARIABLES = {name: {"median": 1.0, "norm_factor": 0.2} for name in ("part_pt", "part_eta")}
RECIPE = {"input_names": ["in"], "in": {"var_names": list(VARIABLES), "var_infos": VARIABLES}}
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 64
input [{{ name: "in", data_type: TYPE_FP32, dims: [2, -1] }}]
output [{{ name: "out", data_type: TYPE_FP32, dims: [2] {label_file} }}]
ensemble_scheduling {{ step [
  {{ model_name: "first" model_version: -1
     input_map {{ key: "x" value: "in" }} output_map {{ key: "y" value: "middle" }} }},
  {{ model_name: "second" model_version: -1
     input_map {{ key: "x" value: "middle" }} output_map {{ key: "y" value: "out" }} }} ] }}
"""
FAILS = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        error = pb_utils.TritonError("there is no such detector", pb_utils.TritonError.INVALID_ARG)
        return [pb_utils.InferenceResponse(error=error) for _ in requests]
"""
LABELLED = """
backend: "onnxruntime"
max_batch_size: 64
input [{{ name: "x", data_type: TYPE_FP32, dims: [2] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [2] label_filename: "labels.txt" }}]
{more}
"""
FILES = {
    "labelled": "top\nb: or c:x\n",
    "windows": "größe\r\nqcd\r\n",
    "longer": "top\nqcd\nunused\n",
    "shorter": "top\n",
    "twice": "top\ntop\n",
    "latin": b"gr\xf6\xdfe\nqcd\n",
}


def parameter(key, value):
    return f'parameters {{ key: "{key}" value: {{ string_value: {json.dumps(json.dumps(value))} }} }}\n'


def save_steps(repository):
    """Save the members of the ensembles: the sums of the channels, and the softmax of twice these."""
    sums = [NODE("Constant", [], ["axis"], value_ints=[2]), NODE("ReduceSum", ["x", "axis"], ["y"], keepdims=0)]
    softmax = [NODE("Add", ["x", "x"], ["doubled"]), NODE("Softmax", ["doubled"], ["y"], axis=1)]
    jagged, fixed = [("x", "FP32", (2, -1))], [("x", "FP32", (2,))]
    gives = [("y", "FP32", (2,))]
    return save_onnx(repository / "first", sums, jagged, gives), save_onnx(
        repository / "second", softmax, fixed, gives
    )


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    return save_steps(tmp_path_factory.mktemp("members"))


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    repository = tmp_path_factory.mktemp("ensembles")
    save_steps(repository)
    ensembles = {
        "both": ENSEMBLE.format(label_file="") + parameter("labels", {"out": ["top", "qcd"]}),
        "with_recipe": ENSEMBLE.format(label_file="") + parameter("preprocess", RECIPE),
        "with_file": ENSEMBLE.format(label_file='label_filename: "classes.txt"'),
        "broken": ENSEMBLE.format(label_file="").replace('"second"', '"fails"'),
    }
    for name, config in ensembles.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
    (repository / "with_file" / "classes.txt").write_text("top\nqcd\n")
    (repository / "fails" / "1").mkdir(parents=True)
    (repository / "fails" / "1" / "model.py").write_text(FAILS)
    (repository / "fails" / "config.pbtxt").write_text(LABELLED.format(more="").replace("onnxruntime", "python"))
    (repository / "fails" / "labels.txt").write_text("top\nqcd\n")
    for name, text in FILES.items():
        save_affine(repository / name, config=LABELLED.format(more=""))
        (repository / name / "labels.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    save_affine(repository / "both_kinds", config=LABELLED.format(more=parameter("labels", {"y": ["s", "b"]})))
    (repository / "both_kinds" / "labels.txt").write_text("top\nqcd\n")
    with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc, timeout=20) as connection:
        yield connection


@pytest.fixture(scope="module")
def jets():
    random = np.random.default_rng(11)
    counts = random.integers(0, 25, 150)
    fields = {name: random.normal(size=counts.sum()).astype(np.float32) for name in VARIABLES}
    return ak.zip({name: ak.unflatten(values, counts) for name, values in fields.items()})


def alone(members, jets, prepared):
    """Score each row alone with ONNX Runtime, one member after the other."""
    first, second = map(onnxruntime.InferenceSession, members)
    scores = []
    for jet in jets:
        row = np.stack([prepared(ak.to_numpy(jet[name])) for name in VARIABLES]).astype(np.float32)
        (middle,) = first.run(None, {"x": row[None]})
        scores.append(second.run(None, {"x": middle})[0][0])
    return np.array(scores)


@pytest.mark.parametrize("name", ["both", "with_file"])
def test_an_ensemble_is_called_like_any_model(triton, members, jets, name):
    scores = triton.model(name)([jets.part_pt, jets.part_eta])
    assert scores.fields == ["top", "qcd"]
    expected = alone(members, jets, lambda values: values)
    np.testing.assert_allclose(ak.to_numpy(scores.top), expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(ak.to_numpy(scores.qcd), expected[:, 1], atol=1e-6)


def test_an_ensemble_may_have_a_recipe(triton, members, jets):
    scores = triton.model("with_recipe")(jets)
    expected = alone(members, jets, lambda values: (values - 1) * 0.2)
    np.testing.assert_allclose(ak.to_numpy(scores), expected, atol=1e-6)


def test_a_failing_ensemble_is_named_with_its_members(triton, jets):
    named = r"model 'broken' \(an ensemble of 'first', 'fails'\).*there is no such detector"
    with pytest.raises(InvalidInput, match=named):
        triton.model("broken")([jets.part_pt, jets.part_eta])


@pytest.mark.parametrize(
    ("name", "classes"),
    [("labelled", ["top", "b: or c:x"]), ("windows", ["größe", "qcd"]), ("longer", ["top", "qcd"])],
)
def test_the_lines_of_a_label_file_name_the_classes(triton, name, classes):
    model = triton.model(name, outputs=["y"])
    assert f"({', '.join(classes)})" in repr(model)
    x = ak.from_regular(ak.Array(np.array([[1, 2], [4, -3], [0, 0.5]], np.float32)))
    for each in (model, pickle.loads(pickle.dumps(model))):  # noqa: S301  (as Dask does)
        scores = each(x)
        assert scores.fields == classes
        np.testing.assert_array_equal(ak.to_numpy(scores[classes[0]]), [3, 9, 1])
        np.testing.assert_array_equal(ak.to_numpy(scores[classes[1]]), [5, -5, 2])
    assert each(x[:0]).fields == classes


def test_a_dask_graph_knows_the_names_of_a_label_file(triton):
    model = triton.model("labelled", outputs=["y"])
    x = ak.from_regular(ak.Array(np.ones((4, 2), np.float32)), axis=None)
    scores = dask_awkward.map_partitions(model, dask_awkward.from_awkward(x, npartitions=2))
    assert scores.fields == ["top", "b: or c:x"]
    computed = scores.compute(scheduler="sync", optimize_graph=False)
    assert computed.to_list() == model(x).to_list()
    assert computed.type == model(x).type


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("shorter", "it has no name for some of the 2 classes"),
        ("twice", "several classes are called 'top'"),
        ("latin", "it is not UTF-8"),
        ("fails", "the request for its lines failed: .*there is no such detector"),
    ],
)
def test_a_label_file_that_is_not_used_is_reported(triton, name, why):
    model = triton.model(name, outputs=["y"])
    assert model.spec.labels == {}
    assert "the label file 'labels.txt' of 'y' is not used, because" in repr(model)
    assert re.search(why, repr(model))
    if name != "fails":
        assert ak.to_list(model(ak.Array([[1.0, 2.0]]))) == [[3, 5]]


def test_labels_in_the_configuration_come_before_a_label_file(triton):
    assert triton.model("both_kinds").spec.labels == {"y": ("s", "b")}
