"""Models whose tensors are bfloat16 or strings, with a real Triton and compared with ONNX Runtime."""

from __future__ import annotations

import awkward as ak
import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from builders_of_types import save_halves, save_spelled, save_tags

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_facility.servers.triton_environment import find_interpreter
from eaf_inference.errors import InvalidInput

takes_strings = pytest.mark.skipif(find_interpreter().version >= (3, 13), reason="Triton's environment has numpy 2")
NAMES = ["top", "größe", "", "other", "a" * 300, "b:c"]


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    """Give a connection to a Triton with a model of each type."""
    repository = tmp_path_factory.mktemp("types")
    save_halves(repository / "halves")
    save_halves(repository / "with_recipe", variables=("part_pt", "part_eta"))
    save_tags(repository)
    save_spelled(repository)
    with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc, timeout=20) as connection:
        yield connection


def doubled_sums(rows, *, scale=1.0):
    """Compute what the model gives for each row alone: twice the sum of each channel, in bfloat16."""
    half = [np.asarray(row * np.float32(scale)).astype(ml_dtypes.bfloat16).astype("f4") for row in rows]
    return np.array([2 * row.sum(axis=1) for row in half], "f4").astype(ml_dtypes.bfloat16).astype("f4")


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(4)
    return [random.normal(size=(2, count)).astype(np.float32) for count in random.integers(0, 30, 200)]


def as_channels(rows):
    counts = [row.shape[1] for row in rows]
    flat = np.concatenate(rows, axis=1)
    return [ak.unflatten(channel, counts) for channel in flat]


def test_jagged_floats_travel_as_bfloat16_and_come_back_as_float32(triton, rows):
    model = triton.model("halves")
    scores = model({"x": as_channels(rows)})
    assert scores.type.content.content == ak.types.NumpyType("float32")
    np.testing.assert_array_equal(ak.to_numpy(scores), doubled_sums(rows))
    order = np.random.default_rng(0).permutation(len(rows))
    again = model({"x": [channel[order] for channel in as_channels(rows)]})
    np.testing.assert_array_equal(ak.to_numpy(again), doubled_sums(rows)[order])


def test_dense_floats_travel_as_bfloat16_and_come_back_as_float32(triton):
    x = np.random.default_rng(1).normal(size=(70, 2, 5))
    for values in (x, x.astype(np.float32), x[:1], x[:0]):
        scores = triton.model("halves")(values)
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, doubled_sums(values.astype(np.float32)).reshape(-1, 2))
    with pytest.raises(InvalidInput, match="BF16: some values are beyond its range"):
        triton.model("halves")(x * 1e39)


def test_a_recipe_fills_a_bfloat16_input(triton, rows):
    pt, eta = as_channels(rows)
    scores = triton.model("with_recipe")(ak.zip({"part_pt": pt, "part_eta": eta}))
    np.testing.assert_array_equal(ak.to_numpy(scores), doubled_sums(rows, scale=3.0))


@takes_strings
def test_strings_go_in_beside_jagged_numbers_and_come_back(triton, rows, tmp_path):
    random = np.random.default_rng(5)
    names = random.choice(NAMES, (len(rows), 2))
    assert "leaves out same: BYTES" in repr(triton.model("tags"))
    model = triton.model("tags", outputs=["same", "number", "total"])
    scores = model({"name": names, "x": as_channels(rows)})
    assert str(scores.type) == f"{len(rows)} * {{same: 2 * string, number: 2 * float32, total: 2 * float32}}"
    network = onnxruntime.InferenceSession(save_tags(tmp_path))
    for row, name, own in zip(scores, names, rows, strict=True):
        same, number, total = network.run(None, {"name": name[None].astype(object), "x": own[None]})
        assert row.same.to_list() == same[0].tolist()
        np.testing.assert_array_equal(ak.to_numpy(row.number), number[0])
        np.testing.assert_allclose(ak.to_numpy(row.total), total[0], atol=5e-6)
    nested = ak.unflatten(ak.Array(names.tolist()), [0, 120, 0, 80])
    again = model({"name": nested, "x": [ak.unflatten(channel, [0, 120, 0, 80]) for channel in as_channels(rows)]})
    assert ak.flatten(again).same.to_list() == scores.same.to_list()
    assert ak.almost_equal(ak.flatten(again).total, scores.total, atol=5e-6)


@takes_strings
def test_numpy_strings_give_numpy_strings(triton):
    x = np.ones((3, 2, 4), np.float32)
    names = np.array([["top", "größe"], ["", "a"], ["b", "top"]])
    model = triton.model("tags", outputs=["same", "number"])
    for given in (names, names.astype(object), np.char.encode(names, "utf-8")):
        scores = model({"name": given, "x": x})
        assert scores["same"].dtype == object
        assert scores["same"].tolist() == names.tolist()
        np.testing.assert_array_equal(scores["number"], [[1, 2], [3, -1], [-1, 1]])
    none = model({"name": names[:0], "x": x[:0]})
    assert none["same"].shape == (0, 2)
    with pytest.raises(InvalidInput, match="Input 'name' has None at position 1"):
        model({"name": np.array([["top", None]]), "x": x[:1]})
    with pytest.raises(InvalidInput, match=r"its sizes differ. Got a numpy array of shape \(3, 1\)"):
        model({"name": names[:, :1], "x": x})


@takes_strings
def test_one_string_for_each_constituent_comes_back_jagged(triton):
    counts = np.random.default_rng(6).integers(0, 40, 300)
    numbers = ak.unflatten(np.random.default_rng(7).integers(0, 999, counts.sum()).astype(np.int32), counts)
    model = triton.model("spelled")
    assert "gives y: BYTES [-1]" in repr(model)
    strings = model(numbers)
    assert strings.to_list() == [[str(number) for number in row] for row in numbers.to_list()]
    assert str(model(numbers[:0]).type) == "0 * var * string"
