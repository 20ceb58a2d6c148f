"""Which constituents stay of a jet that has too many, what is said of it, and of scores that are not finite."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from builders import jagged, job_of, ragged, recipe_text, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.connection import Connection
from eaf_inference.inference.batching import DenseInput, Given
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.model import Model
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.traffic import Traffic, remarks
from eaf_inference.inference.truncation import hardest
from eaf_inference.registry import Options

momenta = st.floats(0, 100, width=32) | st.just(5.0) | st.just(float("nan"))


@given(jets=st.lists(st.lists(momenta, max_size=9), max_size=6), most=st.integers(1, 6))
def test_the_hardest_stay_in_their_order_and_of_equals_the_leading(jets, most):
    counts = np.array([len(jet) for jet in jets], np.int64)
    pt = np.array([value for jet in jets for value in jet], np.float32)
    kept = ak.unflatten(ak.local_index(pt, axis=0)[hardest(pt, counts, most)], np.minimum(counts, most))
    for jet, places, start in zip(jets, kept.to_list(), np.cumsum(counts) - counts, strict=True):
        softness = [np.inf if np.isnan(value) else -value for value in jet]
        expected = sorted(range(len(jet)), key=lambda place: (softness[place], place))[:most]
        assert [place - start for place in places] == sorted(expected)


def model_of(variables):
    spec = ModelSpec(
        name="jets",
        version="",
        max_batch_size=64,
        inputs=(tensor("x", len(variables), -1),),
        outputs=(tensor("y"),),
        recipe=Recipe.parse(recipe_text({"x": {name: {} for name in variables}}, max_length=2), model="jets"),
        labels={},
    )
    return Model(Connection(Options(url="grpc://127.0.0.1:1", ca=None, allow_insecure_token=None)), spec)


@pytest.mark.parametrize(
    ("fields", "kept", "leading"),
    [
        ({"a": [1.0, 2, 3], "pt": [5.0, 9, 7]}, [2, 3], 0),
        ({"a": [1.0, 2, 3], "part_logptrel": [-1.0, -3, -2]}, [1, 3], 0),
        ({"a": [1.0, 2, 3], "px": [0.0, 4, 3], "py": [6.0, 3, 3]}, [1, 2], 0),
        ({"a": [1.0, 2, 3], "px": [0.0, 4, 3]}, [1, 2], 1),
        ({"a": [1.0, 2, 3]}, [1, 2], 1),
        ({"a": [1.0, 2, 3], "pt": 50.0}, [1, 2], 1),  # the jet's own
    ],
)
def test_pt_is_found_among_the_fields_and_read_only_then(fields, kept, leading):
    jet = ak.zip({name: ak.Array([value]) for name, value in fields.items()}, depth_limit=1)
    traffic, model = Traffic(), model_of(["a"])
    job, _ = model._prepare(jet, traffic)
    (batch,) = job.batches([Lengths()], 64)
    assert batch.tensors[0][0, 0, :2].tolist() == kept
    assert (traffic.truncated, traffic.leading) == (1, leading)
    assert ("pt" in model.columns(["a", "pt", "b"])) is True
    assert "b" not in model.columns(["a", "pt", "b"])


def test_what_was_done_is_said_and_no_more():
    traffic = Traffic()
    assert remarks(traffic, "m", 2) == []
    traffic.cut(3, leading=False)
    traffic.cut(1200, leading=True)
    traffic.not_finite_of(7)
    by_pt, leading, nan = remarks(traffic, "m", 2)
    assert by_pt.startswith("3 jets have more than the 2 constituents that 'm' takes; their 2 of largest pt")
    assert leading.startswith(
        "1,200 jets have more than the 2 constituents that 'm' takes; their leading 2 were used"
    )
    assert nan.startswith("7 jets have NaN or infinite scores of 'm', although their inputs are finite")


def test_only_scores_that_the_inputs_do_not_explain_are_counted():
    nan, inf = np.nan, np.inf
    x = ragged(tensor("x", 1, -1), [[1.0], [nan, 1], [2], [], [3]])
    w = DenseInput(tensor("w", 1), np.array([[1.0], [1], [inf], [1], [1]], np.float32))
    job = job_of([x, w], [tensor("y"), tensor("each", 1, -1), tensor("number", datatype="INT32")])
    for batch in job.batches([Lengths()], 64):
        y = np.array([nan, nan, nan, 1, 1], np.float32)[batch.rows]
        each = np.full((batch.size, 1, 8), nan, np.float32)  # behind the constituents it is nobody's
        each[:, :, 0] = 1
        each[:, :, 1] = 1
        job.collect(batch, {"y": y, "each": each, "number": np.ones(batch.size, np.int32)})
    assert job.unexplained() == 1
    worse = job_of([x, w], [tensor("each", 1, -1)])
    for batch in worse.batches([Lengths()], 64):
        worse.collect(batch, {"each": np.full((batch.size, 1, 8), -inf, np.float32)})
    assert worse.unexplained() == 2  # rows 0 and 4; row 3 has no constituent


@given(
    rows=st.lists(st.lists(st.sampled_from([1.0, float("nan"), float("inf")]), max_size=4), min_size=1, max_size=8)
)
def test_the_callers_finite_numbers_are_known_by_row(rows):
    flat = ak.to_numpy(ak.flatten(jagged(rows, 1)))
    given_ = Given([flat, np.ones(len(flat), np.int64)], np.array([len(row) for row in rows], np.int64))
    assert given_.finite(np.arange(len(rows))).tolist() == [bool(np.isfinite(row).all()) for row in rows]
