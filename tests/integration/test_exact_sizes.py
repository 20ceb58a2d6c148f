"""Models that take exact sizes only, as TensorRT engines do: of batches, and of rows."""

from __future__ import annotations

import json
import warnings

import awkward as ak
import numpy as np
import onnxruntime
import pytest
from zoo import FLOAT, NODE, save_model

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import InferenceError

RNG = np.random.default_rng(64)
ROWS = RNG.normal(size=(1001, 5)).astype(np.float32)
COUNTS = RNG.integers(1, 60, 301)
JAGGED = ak.unflatten(RNG.uniform(0.5, 1.5, COUNTS.sum()).astype(np.float32), COUNTS)
# Sums over the constituents; refuses every size that an engine would refuse, and says what it got.
PICKY = """
import numpy as np
import triton_python_backend_utils as pb_utils

SIZES, LENGTHS = {sizes}, {lengths}

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if (SIZES and len(x) not in SIZES) or (LENGTHS and x.shape[-1] not in LENGTHS):
                error = pb_utils.TritonError(f"no engine for the shape {{x.shape}}")
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            y = {result}
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y.astype(np.float32))]))
        return responses
"""
CONFIG = """
backend: "python"
max_batch_size: 64
input [{{ name: "x", data_type: TYPE_FP32, dims: [1, -1] }}]
output [{{ name: "y", data_type: TYPE_FP32, dims: [{output}] }}]
"""


def parameter(key, text):
    return f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(text)} }} }}"


RECIPE = parameter(
    "preprocess", json.dumps({"input_names": ["x"], "x": {"var_names": ["part_pt"], "var_infos": {"part_pt": {}}}})
)


def save_picky(directory, *, sizes=(), lengths=(), parameters=(), result="x.sum(axis=2)", output="1"):
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text(PICKY.format(sizes=sizes, lengths=lengths, result=result))
    (directory / "config.pbtxt").write_text("\n".join([CONFIG.format(output=output), *parameters]))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    repository = tmp_path_factory.mktemp("exact")
    save_model(
        repository / "fixed",  # exported with a batch of 8
        nodes=[NODE("Softmax", ["x"], ["prob"], axis=1)],
        inputs=[("x", FLOAT, [8, 5])],
        outputs=[("prob", FLOAT, [8, 5])],
        batched=False,
        config=f"{parameter('batch_axis', '0')}\n{parameter('pad_batches_to', '8')}",
    )
    save_picky(repository / "sizes", sizes=(4, 16), parameters=[parameter("pad_batches_to", "[4, 16]")])
    save_picky(
        repository / "means",  # depends on the padding
        sizes=(4, 16),
        parameters=[parameter("pad_batches_to", "[4, 16]")],
        result="x.mean(axis=2)",
    )
    buckets = parameter("lengths", "[16, 32]")
    save_picky(repository / "lengths", lengths=(16, 32), parameters=[buckets])
    save_picky(repository / "undeclared", lengths=(16, 32))
    save_picky(repository / "both", sizes=(8,), lengths=(16, 64), parameters=[parameter("pad_batches_to", "8")])
    save_picky(repository / "padded_means", lengths=(16, 64), result="x.mean(axis=2)")
    save_picky(repository / "each", lengths=(16, 64), result="2 * x[:, 0]", output="-1")
    save_picky(repository / "engine", lengths=(32,), parameters=[parameter("lengths", "32"), RECIPE])
    return repository


@pytest.fixture(scope="module")
def facility(models):
    with TritonServer.start([models]) as server, eaf_inference.connect(server.grpc) as connection:
        yield connection


@pytest.mark.parametrize("rows", [1001, 1000, 8, 7, 1, 0])
def test_a_model_of_one_batch_size_scores_any_number_of_rows(facility, models, rows):
    session = onnxruntime.InferenceSession((models / "fixed" / "1" / "model.onnx").read_bytes())
    alone = [session.run(None, {"x": np.repeat(row[None], 8, axis=0)})[0][0] for row in ROWS[:rows]]
    model, before = facility.model("fixed"), facility.traffic.inferences
    scores = model(ROWS[:rows])
    assert scores.shape == (rows, 5)
    np.testing.assert_allclose(scores, np.array(alone).reshape(rows, 5), rtol=1e-6)
    assert facility.traffic.inferences - before == rows  # copies are not counted


def test_jagged_batches_are_filled_to_the_declared_sizes(facility):
    model, before = facility.model("sizes"), facility.traffic.inferences
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = model(JAGGED)
    np.testing.assert_allclose(ak.to_numpy(scores)[:, 0], ak.to_numpy(ak.sum(JAGGED, axis=1)), rtol=1e-5)
    assert facility.traffic.inferences - before == len(JAGGED)
    one = model(JAGGED[:1])
    np.testing.assert_allclose(ak.to_numpy(one), ak.to_numpy(scores)[:1], rtol=1e-6)


def test_rows_of_one_length_are_filled_up_if_padding_changes_scores(facility):
    model = facility.model("means")
    with pytest.warns(UserWarning, match="depend on the padding"):
        scores = model(JAGGED)
    np.testing.assert_allclose(ak.to_numpy(scores)[:, 0], ak.to_numpy(ak.mean(JAGGED, axis=1)), rtol=1e-5)


def cut(rows, most):
    return ak.to_numpy(ak.sum(rows[:, :most], axis=1))


def test_rows_are_padded_to_declared_lengths_only_and_cut_to_the_last(facility):
    model, long = facility.model("lengths"), int(ak.sum(ak.num(JAGGED) > 32))
    with pytest.warns(
        UserWarning, match=rf"{long} jets have more than the 32 constituents that 'lengths' takes; their l"
    ):
        scores = model(JAGGED)
    np.testing.assert_allclose(ak.to_numpy(scores)[:, 0], cut(JAGGED, 32), rtol=1e-5)
    assert "x: FP32 [1, -1] padded to 16 or 32" in repr(model)


def test_a_user_can_name_the_lengths_that_a_model_takes(facility):
    with pytest.raises(InferenceError, match="no engine for the shape"):
        facility.model("undeclared")(JAGGED[:1])
    short = JAGGED[ak.num(JAGGED) <= 32]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = facility.model("undeclared", lengths=[32, 16])(short)
    np.testing.assert_allclose(ak.to_numpy(scores)[:, 0], cut(short, 32), rtol=1e-5)


def test_lengths_and_sizes_of_batches_go_together(facility):
    model, empty = facility.model("both", lengths={"x": [16, 64]}), ak.Array([[], [1.0], [], [2.0, 3.0]])
    scores = ak.to_numpy(model(JAGGED))
    np.testing.assert_allclose(scores[:, 0], cut(JAGGED, 64), rtol=1e-5)
    np.testing.assert_array_equal(ak.to_numpy(model(empty))[:, 0], [0, 1, 0, 5])
    assert len(model(JAGGED[:0])) == 0
    order = RNG.permutation(len(JAGGED))
    np.testing.assert_allclose(ak.to_numpy(model(JAGGED[order]))[:, 0], scores[order, 0], rtol=1e-6)


def test_scores_that_depend_on_the_padding_are_those_at_the_next_length(facility):
    model = facility.model("padded_means", lengths=[16, 64])
    with pytest.warns(UserWarning, match="rows go to the next declared length: its scores depend on the padding"):
        scores = model(JAGGED)
    lengths = np.where(COUNTS <= 16, 16, 64)
    np.testing.assert_allclose(ak.to_numpy(scores)[:, 0], cut(JAGGED, 64) / lengths, rtol=1e-5)
    alone = [ak.to_numpy(model(JAGGED[at : at + 1]))[0, 0] for at in range(20)]
    np.testing.assert_allclose(ak.to_numpy(scores)[:20, 0], alone, rtol=1e-6)


def test_one_value_per_constituent_comes_back_without_padding(facility):
    scores = facility.model("each", lengths=[16, 64])(JAGGED)
    assert ak.num(scores).to_list() == COUNTS.tolist()
    assert ak.almost_equal(scores, 2 * JAGGED)


@pytest.mark.parametrize("length", [5, 16, 40])
def test_numpy_arrays_of_other_lengths_are_padded_and_cut(facility, length):
    x = RNG.uniform(size=(10, 1, length)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = facility.model("lengths")(x)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, x[..., :32].sum(axis=2), rtol=1e-5)
    each = facility.model("each", lengths=[16, 64])(x)
    np.testing.assert_allclose(ak.to_numpy(each), 2 * x[:, 0], rtol=1e-6)


def test_a_recipe_keeps_the_hardest_of_rows_above_the_last_length(facility):
    model = facility.model("engine")
    with pytest.warns(UserWarning, match="more than the 32 constituents that 'engine' takes; their 32 of largest pt"):
        scores = model(ak.zip({"part_pt": JAGGED}))
    hardest = [np.sort(np.asarray(row))[::-1][:32].sum() for row in JAGGED]
    np.testing.assert_allclose(ak.to_numpy(scores)[:, 0], hardest, rtol=1e-5)
