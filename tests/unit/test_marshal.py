"""From a caller's array to batches and back, without a connection: the model is a function of a batch's tensors."""

from __future__ import annotations

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from builders import jagged, nested_lists, recipe_text, tensor, variable
from hypothesis import given

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.batching import batches
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.tuning import fixed_sizes

Y, Z = tensor("y", 2), tensor("z", 2)
STRINGS = tensor("text", 500_000, datatype="BYTES")


def spec_of(*, outputs=(Y,), labels=None, recipe=None, unread=""):
    return ModelSpec(
        name="jets",
        version="",
        max_batch_size=4,
        inputs=(tensor("x", 1, -1),),
        outputs=outputs,
        recipe=Recipe.parse(recipe, model="jets") if recipe else None,
        labels=labels or {},
        unread=unread,
    )


def scored(data, spec):
    """Answer each batch with the sum and the number of its real constituents."""
    job = prepare(data, spec)
    for batch in batches(job.inputs, [Lengths()] * len(job.inputs.collections), fixed_sizes(64)):
        sums = batch.tensors[0].sum(axis=(1, 2), dtype=np.float64)
        numbers = (batch.tensors[0] != 0).sum(axis=(1, 2))
        y = np.stack([sums, numbers], axis=1).astype(np.float32)
        job.outputs.put(batch, {each.name: y for each in spec.outputs})
    assert job.outputs.complete
    return job.result()


@pytest.mark.parametrize(
    ("outputs", "most"),
    [((Y, Z), 4), ((tensor("y", 1 << 23),), 2), ((Y, tensor("y", 1 << 25, -1)), 1), ((STRINGS,), 2)],
    ids=["small", "large", "a row too large", "strings"],
)
def test_a_batch_has_no_more_rows_than_fit_into_a_reply(outputs, most):
    job = prepare(ak.Array([[1.0]] * 4), spec_of(outputs=outputs))
    parts = list(batches(job.inputs, [Lengths()], fixed_sizes(64)))
    assert max(batch.size for batch in parts) == most
    assert sum(batch.size for batch in parts) == 4


@given(nested_lists(2))
def test_scores_come_back_in_the_nesting_of_the_records(events):
    events = [[[abs(value) + 1 for value in jet] for jet in event] for event in events]
    records = ak.zip({"a": jagged(events, 2)})
    spec = spec_of(recipe=recipe_text({"x": {"a": {}}}), labels={"y": ("sum", "number")})
    scores = scored(records, spec)
    assert scores.fields == ["sum", "number"]
    assert scores.number.to_list() == [[len(jet) for jet in event] for event in events]
    for mine, event in zip(scores["sum"].to_list(), events, strict=True):
        assert mine == pytest.approx([sum(jet) for jet in event], rel=1e-5)


@pytest.mark.parametrize("wrong", [2**40, 2.0**63, 0.5])
def test_a_number_that_an_integer_input_cannot_hold_is_refused(wrong):
    recipe = Recipe.parse(recipe_text({"x": {"a": {}}}), model="jets")
    datatype = "INT64" if wrong == 2.0**63 else "INT32"
    spec = replace(spec_of(), inputs=(tensor("x", 1, -1, datatype=datatype),), recipe=recipe)
    with pytest.raises(InvalidInput, match=f"gives .* for input 'x', which takes {datatype}"):
        prepare(ak.zip({"a": [[wrong]]}), spec)
    (x,) = prepare(ak.zip({"a": [[7, 2**31 - 1]]}), spec).inputs.arrays
    np.testing.assert_array_equal(x.columns, [[7, 2**31 - 1]])


def test_arrays_by_name_are_padded_as_the_recipe_says():
    spec = spec_of(recipe=recipe_text({"x": {"a": variable(pad=-9.0)}}, min_length=3))
    given = ak.Array([[1.0], [2.0, 3.0]])
    by_name, records = (
        [batch.tensors for batch in batches(job.inputs, [Lengths(3)], fixed_sizes(64))]
        for job in (prepare({"x": given}, spec), prepare(ak.zip({"a": given}), spec))
    )
    np.testing.assert_array_equal(by_name, records)
    assert -9.0 in by_name[0][0]


def test_numpy_arrays_give_numpy_arrays_of_the_same_outer_shape():
    x = np.arange(1, 25, dtype=np.float64).reshape(2, 3, 1, 4)
    scores = scored(x, spec_of())
    np.testing.assert_array_equal(scores, np.stack([x.sum(axis=(2, 3)), np.full((2, 3), 4)], axis=-1))
    both = scored({"x": x}, spec_of(outputs=(Y, Z)))
    assert list(both) == ["y", "z"]
    np.testing.assert_array_equal(both["z"], scores)


def test_awkward_arrays_give_a_record_of_several_outputs():
    scores = scored(ak.Array([[1.0, 2.0], [], [3.0]]), spec_of(outputs=(Y, Z)))
    assert scores.fields == ["y", "z"]
    assert scores.y.to_list() == [[3, 2], [0, 0], [3, 1]]


def test_longer_records_are_truncated_and_counted():
    spec = spec_of(recipe=recipe_text({"x": {"pt": {}}}, max_length=2))
    records = ak.zip({"pt": [[1.0, 5.0, 3.0], [2.0]]})
    [(truncation, rows)] = prepare(records, spec).truncations
    assert (truncation.most, truncation.rule, rows) == (2, "largest pt", 1)
    assert scored(records, spec).to_list() == [[8, 2], [2, 1]]


def test_records_without_a_known_recipe_are_refused_with_a_remedy():
    with pytest.raises(
        InvalidInput, match=r"recipe is unknown .* \(restricted\)\. Pass the recipe, .*preprocess=FILE"
    ):
        prepare(ak.zip({"a": [[1.0]]}), spec_of(unread="restricted"))
