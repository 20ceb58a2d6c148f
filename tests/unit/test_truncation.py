"""Truncation of long jets, and the remarks about it and about scores that are not finite."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from builders import cut, jagged, ragged, recipe_text, rows_of, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.inference.batching import batches
from eaf_inference.inference.inputs import CallerValues, DenseInput
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.marshal import Job, columns, prepare
from eaf_inference.inference.nesting import Outer
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.traffic import Traffic, remarks
from eaf_inference.inference.truncation import Truncation, hardest
from eaf_inference.inference.tuning import fixed_sizes

momenta = st.floats(0, 100, width=32) | st.just(5.0) | st.just(float("nan"))


@given(jets=st.lists(st.lists(momenta, max_size=9), max_size=6), most=st.integers(1, 6))
def test_the_hardest_constituents_are_kept_in_order_leading_ones_first(jets, most):
    counts = np.array([len(jet) for jet in jets], np.int64)
    pt = np.array([value for jet in jets for value in jet], np.float32)
    kept = ak.unflatten(ak.local_index(pt, axis=0)[hardest(pt, counts, most)], np.minimum(counts, most))
    for jet, places, start in zip(jets, kept.to_list(), np.cumsum(counts) - counts, strict=True):
        softness = [np.inf if np.isnan(value) else -value for value in jet]
        expected = sorted(range(len(jet)), key=lambda place: (softness[place], place))[:most]
        assert [place - start for place in places] == sorted(expected)


def spec_of(variables):
    return ModelSpec(
        name="jets",
        version="",
        max_batch_size=64,
        inputs=(tensor("x", len(variables), -1),),
        outputs=(tensor("y"),),
        recipe=Recipe.parse(recipe_text({"x": {name: {} for name in variables}}, max_length=2), model="jets"),
        labels={},
    )


@pytest.mark.parametrize(
    ("fields", "kept", "leading"),
    [
        ({"a": [1.0, 2, 3], "pt": [5.0, 9, 7]}, [2, 3], False),
        ({"a": [1.0, 2, 3], "part_logptrel": [-1.0, -3, -2]}, [1, 3], False),
        ({"a": [1.0, 2, 3], "px": [0.0, 4, 3], "py": [6.0, 3, 3]}, [1, 2], False),
        ({"a": [1.0, 2, 3], "px": [0.0, 4, 3]}, [1, 2], True),
        ({"a": [1.0, 2, 3]}, [1, 2], True),
        ({"a": [1.0, 2, 3], "pt": 50.0}, [1, 2], True),  # the jet's own pt
    ],
)
def test_pt_is_found_among_the_fields_and_read_only_if_present(fields, kept, leading):
    jet = ak.zip({name: ak.Array([value]) for name, value in fields.items()}, depth_limit=1)
    spec = spec_of(["a"])
    job = prepare(jet, spec)
    (batch,) = batches(job.inputs, [Lengths()], fixed_sizes(64))
    assert batch.tensors[0][0, 0, :2].tolist() == kept
    [(truncation, rows)] = job.truncations
    assert (truncation.most, rows, not truncation.rule) == (2, 1, leading)
    assert columns(spec, ["a", "pt", "b"]) == ("a", "pt")


def test_remarks_report_what_was_done_and_nothing_else():
    traffic = Traffic()
    assert remarks(traffic, "m") == []
    traffic.cut(Truncation("", 2, "largest pt"), 3)
    traffic.cut(Truncation("", 2, ""), 1200)
    traffic.not_finite_of(7)
    by_pt, leading, nan = remarks(traffic, "m")
    assert by_pt.startswith("3 jets have more than the 2 constituents that 'm' takes; their 2 of largest pt")
    assert leading.startswith(
        "1,200 jets have more than the 2 constituents that 'm' takes; their leading 2 were used"
    )
    assert Truncation("", 2, "").remark(1, "m") == (
        "1 jet has more than the 2 constituents that 'm' takes; its leading 2 were used, in the order given, as it "
        "has no field pt."
    )
    assert nan.startswith("7 jets have NaN or infinite scores of 'm', although their inputs are finite")


def unexplained(rows):
    return Job(
        spec_of(["a"]),
        rows.inputs,
        rows.outputs,
        Outer(rows.inputs.rows),
        [each.caller_values for each in rows.inputs.arrays],
    ).unexplained()


def test_only_scores_not_explained_by_the_inputs_are_counted():
    nan, inf = np.nan, np.inf
    x = ragged(tensor("x", 1, -1), [[1.0], [nan, 1], [2], [], [3]])
    w = DenseInput(tensor("w", 1), np.array([[1.0], [1], [inf], [1], [1]], np.float32))
    rows = rows_of([x, w], [tensor("y"), tensor("each", 1, -1), tensor("number", datatype="INT32")])
    for batch in cut(rows, Lengths(), 64):
        y = np.array([nan, nan, nan, 1, 1], np.float32)[batch.rows]
        each = np.full((batch.size, 1, 8), nan, np.float32)  # past the constituents it is padding
        each[:, :, 0] = 1
        each[:, :, 1] = 1
        rows.outputs.put(batch, {"y": y, "each": each, "number": np.ones(batch.size, np.int32)})
    assert unexplained(rows) == 1
    worse = rows_of([x, w], [tensor("each", 1, -1)])
    for batch in cut(worse, Lengths(), 64):
        worse.outputs.put(batch, {"each": np.full((batch.size, 1, 8), -inf, np.float32)})
    assert unexplained(worse) == 2  # rows 0 and 4; row 3 has no constituent


@given(
    rows=st.lists(st.lists(st.sampled_from([1.0, float("nan"), float("inf")]), max_size=4), min_size=1, max_size=8)
)
def test_rows_with_only_finite_numbers_are_known(rows):
    flat = ak.to_numpy(ak.flatten(jagged(rows, 1)))
    values = CallerValues([flat, np.ones(len(flat), np.int64)], np.array([len(row) for row in rows], np.int64))
    assert values.finite(np.arange(len(rows))).tolist() == [bool(np.isfinite(row).all()) for row in rows]
