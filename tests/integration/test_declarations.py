"""What a model declares in its parameters, and what a user chooses: scores equal to those of each row alone."""

from __future__ import annotations

import json
import pickle
import warnings

import awkward as ak
import dask_awkward
import numpy as np
import onnxruntime
import pytest
from onnx import helper
from zoo import FLOAT, LAST_AXIS, NODE, save_model

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import ConfigurationError

RNG = np.random.default_rng(15)
ROWS = RNG.normal(size=(1000, 5)).astype(np.float32)
COUNTS = RNG.integers(0, 40, 300)
JAGGED = ak.zip({name: ak.unflatten(RNG.normal(size=COUNTS.sum()).astype(np.float32), COUNTS) for name in ("a", "b")})


def parameter(key, text):
    return f"parameters [{{ key: {json.dumps(key)}, value: {{ string_value: {json.dumps(text)} }} }}]"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Write models with a batch axis of their own, declared or not."""
    repository = tmp_path_factory.mktemp("declared")
    scores = {
        "nodes": [
            NODE("Softmax", ["x"], ["prob"], axis=1),
            NODE("ReduceMax", ["x"], ["greatest"], axes=[1], keepdims=0),
        ],
        "inputs": [("x", FLOAT, ["n", 5])],
        "outputs": [("prob", FLOAT, ["n", 5]), ("greatest", FLOAT, ["n"])],
        "batched": False,
    }
    sums = {
        "nodes": [NODE("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        "inputs": [("x", FLOAT, ["n", 2, "p"])],
        "outputs": [("y", FLOAT, ["n", 2])],
        "constants": [LAST_AXIS],
        "batched": False,
    }
    save_model(repository / "undeclared", **scores)
    save_model(repository / "declared", **scores, config=parameter("batch_axis", "0"))
    labelled = parameter("labels", json.dumps({"prob": list("abcde")}))
    save_model(repository / "labelled", **scores, config=f"{parameter('batch_axis', '0')}\n{labelled}")
    save_model(repository / "jagged", **sums, config=parameter("batch_axis", "0"))
    save_model(
        repository / "mixed",  # one output depends on the padding, the other does not
        nodes=[
            NODE("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
            NODE("ReduceMean", ["x"], ["mean"], axes=[2], keepdims=0),
        ],
        inputs=[("x", FLOAT, ["n", 2, "p"])],
        outputs=[("sum", FLOAT, ["n", 2]), ("mean", FLOAT, ["n", 2])],
        constants=[LAST_AXIS],
    )
    save_model(
        repository / "total",  # its output does not count rows
        nodes=[NODE("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        inputs=[("x", FLOAT, ["n", 5])],
        outputs=[("y", FLOAT, [5])],
        constants=[helper.make_tensor("axis", helper.TensorProto.INT64, [1], [0])],
        batched=False,
    )
    return repository


@pytest.fixture(scope="module")
def facility(models):
    with TritonServer.start([models]) as server, eaf_inference.connect(server.grpc) as connection:
        yield connection


@pytest.fixture(scope="module")
def alone(models):
    """Give a function that scores each row alone with ONNX Runtime."""

    def score(name, rows):
        session = onnxruntime.InferenceSession((models / name / "1" / "model.onnx").read_bytes())
        outputs = [each.name for each in session.get_outputs()]
        every = [session.run(None, {"x": row[None]}) for row in rows]
        return {name: np.concatenate(values) for name, values in zip(outputs, zip(*every, strict=True), strict=True)}

    return score


def requests_of(connection, model, data):
    before = connection.traffic.requests
    scores = model(data)
    return scores, connection.traffic.requests - before


@pytest.mark.parametrize(("name", "chosen"), [("declared", {}), ("undeclared", {"batch_axis": 0})])
def test_a_model_with_a_batch_axis_of_its_own_is_split_and_merged(facility, alone, name, chosen):
    many = np.tile(ROWS, (300, 1))  # 6 MB
    model = facility.model(name, **chosen)
    right = alone(name, ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores, requests = requests_of(facility, model, many)
    assert requests == 2
    assert "whole" not in repr(model)
    assert "x: FP32 [5]" in repr(model)
    for output, values in right.items():
        np.testing.assert_allclose(scores[output], np.concatenate([values] * 300), rtol=1e-6, atol=1e-7)
    nested = model(ak.unflatten(ak.from_regular(ak.Array(ROWS[:6]), axis=None), [2, 0, 3, 1]))
    assert ak.num(nested).to_list() == [2, 0, 3, 1]
    np.testing.assert_allclose(ak.to_numpy(ak.flatten(nested.greatest)), right["greatest"][:6], rtol=1e-6)
    assert {name: values.shape for name, values in model(ROWS[:0]).items()} == {"prob": (0, 5), "greatest": (0,)}
    assert model(ROWS[:1])["greatest"].shape == (1,)


def test_arrays_without_a_declared_batch_axis_go_whole_with_a_warning(facility, alone):
    model = facility.model("undeclared")
    with pytest.warns(UserWarning, match=r"sent whole, as one request.*triton\.model\('undeclared', batch_axis=0\)"):
        scores, requests = requests_of(facility, model, ROWS)
    assert requests == 1
    np.testing.assert_allclose(scores["prob"], alone("undeclared", ROWS)["prob"], rtol=1e-6)
    assert "each array is sent whole" in repr(model)
    assert "each array is sent whole" in model._repr_html_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(ROWS)  # said once
        facility.model("undeclared")(ROWS[:1])  # one row is one request anyway


def test_a_model_whose_output_counts_no_rows_cannot_be_split(facility):
    with pytest.raises(ConfigurationError, match=r"batch_axis 0: 'y' has the shape \[5\]\. Expected -1 as the first"):
        facility.model("total", batch_axis=0)
    np.testing.assert_allclose(facility.model("total")(ROWS), ROWS.sum(axis=0), rtol=1e-4, atol=1e-4)


def test_jagged_rows_along_a_declared_batch_axis_share_requests(facility, alone):
    model = facility.model("jagged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores, requests = requests_of(facility, model, [JAGGED.a, JAGGED.b])
    assert requests < 30
    rows = [np.array([row.a, row.b], np.float32).reshape(2, -1) for row in JAGGED]
    np.testing.assert_allclose(ak.to_numpy(scores), alone("jagged", rows)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("asked", "fields"), [(["prob"], None), (["greatest", "prob"], ["greatest", "prob"])])
def test_only_the_outputs_that_are_asked_for_come_back(facility, alone, asked, fields):
    model = facility.model("declared", outputs=asked)
    for each in (model, pickle.loads(pickle.dumps(model))):  # noqa: S301
        scores = each(ak.Array(ROWS[:10]))
        assert scores.fields == (fields or [])
        prob = scores.prob if fields else scores
        np.testing.assert_allclose(ak.to_numpy(prob), alone("declared", ROWS[:10])["prob"], rtol=1e-6)
    assert isinstance(model(ROWS), dict if fields else np.ndarray)
    assert ("leaves out greatest: FP32" in repr(model)) == (fields is None)


def test_an_output_that_is_asked_for_keeps_its_classes(facility):
    every, prob = facility.model("labelled"), facility.model("labelled", outputs=["prob"])
    greatest = facility.model("labelled", outputs=["greatest"])
    assert prob(ak.Array(ROWS)).fields == list("abcde")
    assert ak.almost_equal(prob(ak.Array(ROWS)), every(ak.Array(ROWS)).prob)
    assert greatest(ak.Array(ROWS)).fields == []
    with pytest.raises(ConfigurationError, match=r"no output 'prop'\. Did you mean 'prob'\? It has prob, greatest\."):
        facility.model("labelled", outputs=["prop"])


def test_outputs_that_are_asked_for_work_in_dask_awkward(facility):
    model = facility.model("declared", outputs=["greatest"])
    lazy = dask_awkward.from_awkward(ak.from_regular(ak.Array(ROWS[:20]), axis=None), npartitions=2)
    scores = dask_awkward.map_partitions(model, lazy)
    assert str(scores.form.type) == "float32"
    computed = scores.compute(scheduler="sync", optimize_graph=False)
    np.testing.assert_allclose(ak.to_numpy(computed), ROWS[:20].max(axis=1))


def test_only_outputs_that_are_asked_for_decide_about_padding(facility):
    filled = JAGGED[COUNTS > 0]
    with pytest.warns(UserWarning, match="depend on the padding"):
        mean = facility.model("mixed", outputs=["mean"])([filled.a, filled.b])
    np.testing.assert_allclose(ak.to_numpy(mean)[:, 0], ak.to_numpy(ak.mean(filled.a, axis=1)), atol=1e-5)
    model = facility.model("mixed", outputs=["sum"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        total, requests = requests_of(facility, model, [filled.a, filled.b])
    np.testing.assert_allclose(ak.to_numpy(total)[:, 1], ak.to_numpy(ak.sum(filled.b, axis=1)), atol=1e-4)
    assert requests < 30
    assert "padding" not in repr(model)
