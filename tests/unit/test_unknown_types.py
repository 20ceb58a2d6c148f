"""Empty arrays of unknown type, and rows that are None: nothing is sent for them, and the scores have their type."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from builders import recipe_text, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout, nesting
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.model import Model
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec

SCORES = "{top: float32, qcd: float32}"
UNKNOWN = {
    "0 * {}": [],
    "2 * var * {}": [[], []],
    "2 * ?{}": [None, None],
    "2 * var * ?{}": [[None], []],
    "2 * option[var * {}]": [[], None],
}


def spec_of(*inputs, recipe=None):
    return ModelSpec(
        name="jets",
        version="1",
        max_batch_size=64,
        inputs=inputs,
        outputs=(tensor("y", 2),),
        recipe=Recipe.parse(recipe_text(recipe), model="jets") if recipe else None,
        labels={"y": ("top", "qcd")},
    )


ONE = spec_of(tensor("pf", 2, -1), recipe={"pf": {"pf_a": {}, "pf_b": {}}})
TWO = spec_of(
    tensor("pf", 1, -1), tensor("sv", 1, -1), recipe={"pf": {"pf_a": {}}, "sv": {"sv_a": {}}}
)  # particles and secondary vertices
PF = ak.Array([[{"pf_a": 1.0}], []])


@pytest.mark.parametrize("expected", UNKNOWN)
def test_records_of_unknown_type_have_no_rows(expected):
    job = prepare(ak.Array(UNKNOWN[expected]), ONE)
    assert job.rows == 0
    assert str(job.result().type) == expected.replace("{}", SCORES)
    assert job.result().to_list() == UNKNOWN[expected]


@pytest.mark.parametrize("shape", [(2, -1), (-1, 2), (3,), (1,), ()])
def test_inputs_of_unknown_type_have_no_rows_where_their_lists_are_too_few(shape):
    for value in ([], [[], []], [None, None], [[], None]):
        job = prepare({"x": ak.Array(value)}, spec_of(tensor("x", *shape)))
        assert (job.rows, job.result().to_list()) == (0, value)
        assert job.result().fields == ["top", "qcd"]


def test_lists_of_unknown_type_are_rows_where_their_number_tells():
    assert prepare({"x": ak.Array([[], []])}, spec_of(tensor("x", -1))).rows == 2
    assert prepare(ak.zip({"pf_a": [[], []], "pf_b": [[], []]}), ONE).rows == 2


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ({"pf": PF, "sv": ak.Array([[], []])}, 2),
        ({"pf": ak.unflatten(PF, [2, 0]), "sv": ak.Array([[[], []], []])}, 2),
        ({"pf": ak.unflatten(PF, [2, 0])[1:], "sv": ak.Array([[]])}, 0),
        ({"pf": ak.unflatten(PF, [2, 0])[:0], "sv": ak.Array([])}, 0),
        ({"pf": ak.mask(PF, [True, False]), "sv": ak.Array([[], None])}, 1),
        ({"pf": ak.Array([[], []]), "sv": ak.Array([[], []])}, 0),
        (ak.Array([{"pf": [{"pf_a": 1.0}], "sv": []}]), 1),
        (ak.Array([{"pf": [], "sv": []}]), 1),
        (ak.Array([[{"pf": [{"pf_a": 1.0}], "sv": []}], []]), 1),
        (ak.Array([{"pf": [[{"pf_a": 1.0}]], "sv": [[]]}]), 1),
        (ak.Array([[], []]), 0),
    ],
)
def test_a_collection_of_unknown_type_has_the_rows_of_the_others(data, rows):
    job = prepare(data, TWO)
    assert job.rows == rows
    assert job.result().fields == ["top", "qcd"]


def test_a_collection_of_unknown_type_for_other_rows_is_refused():
    with pytest.raises(InvalidInput, match="do not belong to the same rows"):
        prepare({"pf": PF, "sv": ak.Array([[], [], []])}, TWO)


def as_it_is(array):
    return array


def byte_masked(array):
    found = ak.to_layout(array)
    return ak.Array(found.to_ByteMaskedArray(valid_when=True) if found.is_option else found)


def bit_masked(array):
    found = ak.to_layout(array)
    return ak.Array(found.to_BitMaskedArray(valid_when=True, lsb_order=True) if found.is_option else found)


def reversed_twice(array):
    return array[::-1][::-1]


events = st.lists(
    st.none() | st.lists(st.none() | st.lists(st.floats(-9, 9, width=32), max_size=3), max_size=3), max_size=9
)


@given(events, st.sampled_from([as_it_is, byte_masked, bit_masked, reversed_twice]))
def test_fields_and_none_come_back_in_their_places(values, changed):
    pt = ak.values_astype(ak.Array([[[0.0]], *values])[1:], np.float32)
    records = ak.zip({"pt": changed(pt), "eta": changed(-pt)})
    fields, nested = layout.flatten_fields(records, ["pt", "eta"])
    back = nesting.nest(fields, nested)
    assert back["pt"].to_list() == values
    assert back["eta"].to_list() == (-pt).to_list()
    for axis in (0, 1):
        assert ak.is_none(back.pt, axis=axis).to_list() == ak.is_none(pt, axis=axis).to_list()
    assert nested.outer.rows == len(nested.counts) == sum(jet is not None for event in values for jet in event or ())


@given(st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3), max_size=9))
def test_numbers_of_rows_may_be_missing_in_all_fields(values):
    pt = ak.values_astype(ak.Array([[0], *values])[1:], np.float32)
    fields, nested = layout.flatten_fields(ak.zip({"pt": pt, "eta": -pt}), ["pt", "eta"], per_row=True)
    back = ak.Array(nesting.wrap(ak.contents.NumpyArray(fields["pt"]), nested.outer))
    assert back.to_list() == values
    assert nested.counts.tolist() == [1] * len(fields["pt"])


@pytest.mark.parametrize("per_row", [False, True])
def test_fields_that_are_missing_in_different_rows_are_refused(per_row):
    values = [1.0, 2.0] if per_row else [[1.0], [2.0]]
    records = ak.zip({"pt": ak.mask(values, [True, False]), "eta": ak.Array(values)}, depth_limit=1)
    for names in (["pt", "eta"], ["eta", "pt"]):
        with pytest.raises(InvalidInput, match=r"missing \(None\) in other places than the field .*ak.mask\(records"):
            layout.flatten_fields(records, names, per_row=per_row)


def test_inputs_that_are_missing_in_different_rows_are_refused():
    both = spec_of(tensor("x", -1), tensor("n", 1))
    x, n = ak.Array([[1.0], [2.0]]), ak.Array([1.0, 2.0])
    job = prepare({"x": ak.mask(x, [True, False]), "n": ak.mask(n, [True, False])}, both)
    assert ak.is_none(numbered_rows(job)).to_list() == [False, True]
    for other in (n, n.to_numpy(), ak.mask(n, [False, True])):
        with pytest.raises(InvalidInput, match="do not belong to the same rows"):
            prepare({"x": ak.mask(x, [True, False]), "n": other}, both)


def numbered_rows(job):
    return ak.Array(nesting.wrap(ak.to_layout(np.arange(job.rows)), job.outer))


def test_a_missing_number_in_its_own_list_is_a_missing_row():
    job = prepare({"x": ak.pad_none(ak.Array([[1.0, 2.0], []]), 1, clip=True)}, spec_of(tensor("x", 1)))
    assert (job.rows, ak.is_none(numbered_rows(job)).to_list()) == (1, [False, True])


@pytest.mark.parametrize(
    ("given_type", "expected"),
    [
        ("?var * {pf_a: float32, pf_b: float32}", f"?{SCORES}"),
        ("var * ?{pf_a: float32, pf_b: float32}", SCORES),
        ("?var * ?var * {pf_a: float32, pf_b: float32}", f"option[var * ?{SCORES}]"),
        ("2 * ?var * {pf_a: float32, pf_b: float32}", f"2 * ?{SCORES}"),
    ],
)
def test_a_graph_keeps_that_rows_may_be_missing(given_type, expected):
    from eaf_inference.connection import Connection
    from eaf_inference.registry import Options

    model = Model(Connection(Options(url="grpc://127.0.0.1:1", ca=None, allow_insecure_token=None)), ONE)
    form = ak.forms.from_type(ak.types.from_datashape(given_type, highlevel=False))
    scores = model(ak.Array(ak.typetracer.typetracer_from_form(form)))
    assert str(scores.type) == f"## * {expected}"
