"""Flattening and rebuilding nested arrays, and every accepted and refused form of an input."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from builders import jagged, nested_lists, regular, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout, nesting
from eaf_inference.inference.conversion import cast

depths = st.shared(st.integers(0, 3), key="depth")
dtypes = st.sampled_from(["float32", "float64", "int8", "int64", "uint16", "bool"])


def packed(array):
    return ak.to_packed(array)


def as_list_array(array):
    """Reverse the rows twice, which gives equal lists in an unpacked layout."""
    return array[::-1][::-1]


def as_indexed_array(array):
    return ak.Array(ak.contents.IndexedArray(ak.index.Index64(np.arange(len(array))), ak.to_layout(array)))


def as_a_slice(array):
    doubled = ak.concatenate([array, array])
    return doubled[len(array) :]


layouts = st.sampled_from([packed, as_list_array, as_indexed_array, as_a_slice])


def rebuilt(array: ak.Array) -> ak.Array:
    """Flatten an array and rebuild it."""
    peeled = nesting.peel(array, "it")
    outer, _ = peeled.split(0)
    return ak.Array(nesting.wrap(ak.contents.NumpyArray(peeled.content), outer))


@given(data=depths.flatmap(nested_lists), depth=depths, dtype=dtypes, changed=layouts)
def test_any_nesting_in_any_layout_is_flattened_and_rebuilt(data, depth, dtype, changed):
    array = ak.values_astype(jagged(data, depth), dtype)
    made = rebuilt(changed(array))
    assert made.type == array.type
    assert made.to_list() == array.to_list()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), layouts)
def test_regular_lists_stay_regular_even_if_empty(shape, changed):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    made = rebuilt(changed(regular(values)))
    assert made.type == regular(values).type
    assert made.to_list() == values.tolist()
    peeled = nesting.peel(values, "it")
    assert (
        ak.Array(nesting.wrap(ak.contents.NumpyArray(peeled.content), peeled.split(0)[0])).to_list()
        == values.tolist()
    )


@given(data=nested_lists(2), changed=layouts)
def test_records_of_constituents_are_flattened_and_rebuilt(data, changed):
    pt = jagged(data, 2)
    made = layout.flatten_fields(changed(ak.zip({"pt": pt, "eta": -pt})), ["eta", "pt"])
    fields, nested = made
    assert fields["pt"].tolist() == ak.flatten(pt, axis=None).to_list()
    np.testing.assert_array_equal(fields["eta"], -fields["pt"])
    assert nested.counts.tolist() == ak.flatten(ak.num(pt, axis=2)).to_list()
    assert nested.outer.rows == sum(len(event) for event in data)
    back = nesting.nest(fields, nested)
    assert back["pt"].to_list() == data
    assert back.fields == ["eta", "pt"]


@given(data=depths.flatmap(nested_lists), depth=depths, changed=layouts)
def test_fields_with_one_number_per_row_are_flattened_and_rebuilt(data, depth, changed):
    pt = jagged(data, depth)
    fields, nested = layout.flatten_fields(changed(ak.zip({"pt": pt, "eta": -pt})), ["eta", "pt"], per_row=True)
    assert fields["pt"].tolist() == ak.flatten(pt, axis=None).to_list()
    np.testing.assert_array_equal(fields["eta"], -fields["pt"])
    assert nested.counts.tolist() == [1] * nested.outer.rows
    made = ak.Array(nesting.wrap(ak.contents.NumpyArray(fields["pt"]), nested.outer))
    assert (made.type, made.to_list()) == (pt.type, data)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (
            [{"pt": 1.0, "eta": [1.0]}],
            "'eta' has lists of other lengths than the field 'pt'. .*one value per row in each",
        ),
        ([{"pt": 1.0, "eta": "b"}], "The field 'eta' holds strings. Expected numbers"),
        ([{"pt": 1.0}], "The jets lacks eta. Add `eta`. The records have pt"),
        ([1.0], "The jets is an .* without fields. Expected an awkward record array of … × jets with the fields pt"),
    ],
)
def test_fields_without_one_number_per_row_are_refused(records, why):
    with pytest.raises(InvalidInput, match=why):
        layout.flatten_fields(ak.Array(records), ["pt", "eta"], what="The jets", per_row=True)


@given(data=nested_lists(1), keep=st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_selection_of_jets_has_only_their_constituents(data, keep):
    chosen = [jet for jet, kept in zip(data, keep, strict=False) if kept]
    array = jagged(data, 1)[np.array(keep[: len(data)], bool)]
    fields, nested = layout.flatten_fields(ak.zip({"pt": array}), ["pt"])
    assert fields["pt"].tolist() == [value for jet in chosen for value in jet]
    assert nested.counts.tolist() == [len(jet) for jet in chosen]


def test_flat_contents_are_not_copied():
    content = np.arange(6, dtype=np.float32)
    array = ak.unflatten(content, [2, 4])
    assert np.shares_memory(nesting.peel(array, "it").content, content)


def test_fields_of_different_lengths_are_refused():
    records = ak.Array({"pt": [[1.0], [2.0]], "eta": [[1.0], [2.0, 3.0]]})
    with pytest.raises(InvalidInput, match="field 'eta' has lists of other lengths than the field 'pt'"):
        layout.flatten_fields(records, ["pt", "eta"])


@pytest.mark.parametrize("value", [np.zeros((2, 3)), [[1.0]], ak.Array([[1.0]]), ak.Array([{"pt": 1.0}])[0]])
def test_anything_but_a_record_array_is_refused_with_what_is_expected(value):
    with pytest.raises(
        InvalidInput,
        match="without fields. Expected an awkward record array of … × jets × constituents with the fields pt, eta",
    ):
        layout.flatten_fields(value, ["pt", "eta"])


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (ak.Array([[1.0, "a"]]), "it mixes types"),
        (ak.Array([["a", "b"]]), "it holds strings. Expected numbers"),
        (ak.Array([[b"a"]]), "it holds strings"),
        (ak.Array([[{"pt": 1.0}]]), r"it holds records with the fields \['pt'\].*pass one field"),
        (ak.Array([[1j]]), "it has dtype complex128. Expected real numbers"),
        (ak.Array(np.array([0], "M8[s]")), r"it has dtype datetime64\[s\]. Expected real numbers"),
        (np.array(["a"]), "it has dtype <U1. Expected real numbers"),
        (
            np.array([None]),
            r"it has dtype object. Expected real numbers .* np\.stack\(x\), or ak\.Array\(list\(x\)\)",
        ),
        (np.ones(()), "it is a single number. Expected an array with one row per inference"),
    ],
)
def test_anything_but_plain_numbers_is_refused_with_advice(array, advice):
    with pytest.raises(InvalidInput, match=advice):
        nesting.peel(array, "it")


@pytest.mark.parametrize("inside", [[[1.0, None]], [[1.0], [None]]])
def test_values_that_are_missing_inside_a_row_are_refused_with_advice(inside):
    with pytest.raises(InvalidInput, match=r"it has type .*\?float64 and holds missing values inside.*ak.drop_none"):
        nesting.peel(ak.Array(inside), "it").split(1)


@given(
    st.lists(
        st.none() | st.lists(st.none() | st.lists(st.floats(-9, 9, width=32), max_size=3), max_size=3), max_size=4
    )
)
def test_none_stays_in_its_place_when_lists_are_taken_apart(events):
    array = ak.Array([[[0.0]], *events])[1:]  # of the right type whatever is drawn
    outer, (counts,) = nesting.peel(array, "it").split(1)
    rows = [jet for event in events if event is not None for jet in event if jet is not None]
    assert outer.rows == len(rows)
    content = ak.to_layout(ak.Array(np.arange(len(rows))))
    back = ak.Array(nesting.wrap(content, outer)).to_list()
    places = iter(range(len(rows)))
    expected = [
        None if event is None else [None if jet is None else next(places) for jet in event] for event in events
    ]
    assert back == expected


def test_an_option_type_is_accepted_if_no_value_is_missing():
    lists = ak.Array([[1.0, 2.0], [], [3.0]])
    for array in (
        ak.mask(lists, [True, True, True]),
        ak.Array(ak.contents.UnmaskedArray(lists.layout)),
        ak.mask(lists, lists > 0),
        ak.mask(ak.mask(lists, lists > 0), [True, True, True])[[2, 0]],
    ):
        assert "?" in str(array.type) or "option" in str(array.type)
        peeled = nesting.peel(array, "it")
        assert peeled.content.tolist() == ak.flatten(array).to_list()
        assert [level.tolist() for level in peeled.levels] == [ak.num(array).to_list()]


CHANNELS = [[[1.0, 2.0], [3.0]], [[10.0, 20.0], [30.0]]]  # channels × rows × constituents
BY_ROW = [[[1.0, 2.0], [10.0, 20.0]], [[3.0], [30.0]]]  # rows × channels × constituents
BY_POINT = [[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0]]]  # rows × constituents × channels
FORMS = {
    "rows × channels × var": ((2, -1), ak.Array(BY_ROW)),
    "rows × regular channels × var": ((2, -1), ak.to_regular(ak.Array(BY_ROW), axis=1)),
    "records, channels first": ((2, -1), ak.zip({"a": CHANNELS[0], "b": CHANNELS[1]})),
    "records of lists": ((2, -1), ak.Array({"a": CHANNELS[0], "b": CHANNELS[1]})),
    "tuples": ((2, -1), ak.zip((CHANNELS[0], CHANNELS[1]))),
    "a list of channels": ((2, -1), [ak.Array(channel) for channel in CHANNELS]),
    "rows × var × channels": ((-1, 2), ak.Array(BY_POINT)),
    "rows × var × regular channels": ((-1, 2), ak.to_regular(ak.Array(BY_POINT), axis=2)),
    "records, channels last": ((-1, 2), ak.zip({"a": CHANNELS[0], "b": CHANNELS[1]})),
    "a tuple of channels, last": ((-1, 2), tuple(ak.Array(channel) for channel in CHANNELS)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("events", [False, True])
def test_every_form_of_a_jagged_input_gives_its_channels(form, events):
    shape, value = FORMS[form]
    if events:  # both rows belong to the second of three events
        counts = [0, 2, 0]
        value = (
            type(value)(ak.unflatten(part, counts) for part in value)
            if isinstance(value, list | tuple)
            else (ak.unflatten(value, counts))
        )
    columns, nested = layout.columns_of(value, tensor("x", *shape))
    assert [column.tolist() for column in columns] == [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]
    assert nested.counts.tolist() == [2, 1]
    assert (nested.outer.rows, nested.outer.length) == (2, 3 if events else 2)


@pytest.mark.parametrize("shape", [(-1,), (1, -1), (-1, 1)])
def test_a_single_channel_needs_no_axis(shape):
    columns, nested = layout.columns_of(ak.Array([[1.0, 2.0], [], [3.0]]), tensor("x", *shape))
    assert [column.tolist() for column in columns] == [[1.0, 2.0, 3.0]]
    assert nested.counts.tolist() == [2, 0, 1]
    with_axis = {(1, -1): [[[1.0, 2.0]], [[]]], (-1, 1): [[[1.0], [2.0]], []]}.get(shape)
    if with_axis:
        columns, nested = layout.columns_of(ak.Array(with_axis), tensor("x", *shape))
        assert (columns[0].tolist(), nested.counts.tolist()) == ([1.0, 2.0], [2, 0])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_may_have_no_rows(form):
    shape, value = FORMS[form]
    none = type(value)(part[:0] for part in value) if isinstance(value, list | tuple) else value[:0]
    columns, nested = layout.columns_of(none, tensor("x", *shape))
    assert [column.tolist() for column in columns] == [[], []]
    assert nested.outer.rows == 0


@pytest.mark.parametrize(
    ("shape", "value", "why"),
    [
        ((3, -1), ak.Array(BY_ROW), "its axis -2 is not 3 long. Got an awkward array of type 2 .*× rows × 3 × var"),
        ((-1, 3), ak.Array(BY_POINT), "its axis -1 is not 3 long"),
        ((2, -1), ak.Array([[1.0]]), "its axis -2 is not 2 long"),
        ((3, -1), ak.zip({"a": CHANNELS[0], "b": CHANNELS[1]}), "it has 2 channels"),
        ((2, -1), [ak.Array([[1.0]])], "it has 1 channels. Got a list"),
        (
            (2, -1),
            [ak.Array([[1.0]]), ak.Array([[1.0, 2.0]])],
            "1 has lists of other lengths than input 'x', channel 0",
        ),
        ((2, -1), [ak.Array([[1.0]]), 3], "channel 1 is a number, not an awkward array"),
        ((-1,), ak.Array([1.0]), "Input 'x' has type 1 .* one number per row"),
        ((-1,), [ak.Array([[1.0]])], "channel 0 is a list, not an awkward array"),
        ((-1, 2, 2), ak.Array([[[[1.0, 2.0], [3.0, 4.0]]]]), "one axis of channels and one of constituents"),
        ((2, -1), [ak.Array([[None]]), ak.Array([[1.0]])], "Input 'x', channel 0 has type .* holds missing"),
        ((2, -1), ak.Array([[["a"], ["b"]]]), "holds strings"),
    ],
)
def test_a_jagged_input_that_does_not_fit_is_refused_with_what_fits(shape, value, why):
    with pytest.raises(InvalidInput, match=why):
        layout.columns_of(value, tensor("x", *shape))


@pytest.mark.parametrize("batched", [True, False])
@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=3), changed=layouts)
def test_rows_of_fixed_shape_keep_their_outer_lists(batched, sizes, changed):
    values = np.arange(np.prod(sizes) * 6, dtype=np.float32).reshape(*sizes, 2, 3)
    for value in (values, changed(regular(values)), changed(ak.from_regular(regular(values), axis=None))):
        rows, outer = layout.dense_of(value, tensor("x", 2, 3), batched=batched)
        assert rows.shape == (np.prod(sizes), 2, 3)
        np.testing.assert_array_equal(rows, values.reshape(-1, 2, 3))
        back = ak.Array(nesting.wrap(ak.to_layout(regular(rows)), outer))
        assert back.to_list() == values.tolist()


def test_a_model_without_a_batch_axis_takes_a_single_row():
    rows, outer = layout.dense_of(np.ones((2, 3)), tensor("x", 2, 3), batched=False)
    assert (rows.shape, outer.length, outer.rows) == ((1, 2, 3), None, 1)


def test_an_axis_of_length_one_can_be_left_out():
    one = tensor("x", 1)
    for value in (np.array([1.0, 2.0]), np.array([[1.0], [2.0]]), ak.Array([1.0, 2.0])):
        rows, outer = layout.dense_of(value, one, batched=True)
        assert (rows.tolist(), outer.length, outer.levels) == ([[1.0], [2.0]], 2, ())
    rows, outer = layout.dense_of(ak.Array([[1.0, 2.0], []]), one, batched=True)
    assert (rows.tolist(), outer.rows, len(outer.levels)) == ([[1.0], [2.0]], 2, 1)


@pytest.mark.parametrize(
    ("shape", "value", "why"),
    [
        ((2, 3), np.ones((4, 3, 2)), r"its sizes differ. Got a numpy array of shape \(4, 3, 2\) and dtype float64"),
        ((2, 3), np.ones((2, 3)), "it has too few axes.*Expected FP32 of shape … × rows × 2 × 3"),
        ((2,), ak.Array([[1.0, 2.0], [3.0]]), "its lists differ in length"),
        ((2,), [ak.Array([1.0, 2.0]), ak.Array([3.0, 4.0])], "its channels belong in one array. Got a list"),
        ((2,), ak.Array([[1.0, None]]), "holds missing values"),
    ],
)
def test_a_dense_input_that_does_not_fit_is_refused_with_what_fits(shape, value, why):
    with pytest.raises(InvalidInput, match=why):
        layout.dense_of(value, tensor("x", *shape), batched=True)


@given(st.lists(st.floats(-1e30, 1e30) | st.sampled_from([np.inf, -np.inf, np.nan]), max_size=8))
def test_double_precision_becomes_single_without_a_warning(values):
    made = cast(np.array(values, np.float64), tensor("x", -1))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, values, rtol=1e-7, atol=1e-45)


@given(
    values=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=5),
    source=st.sampled_from(["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]),
    target=st.sampled_from(["INT8", "INT32", "INT64", "UINT8", "UINT64", "FP16", "FP32", "FP64"]),
)
def test_integers_convert_exactly_or_not_at_all(values, source, target):
    info = np.iinfo(source)
    array = np.array([min(max(value, info.min), info.max) for value in values], source)
    spec = tensor("x", -1, datatype=target)
    if spec.dtype.kind == "f":
        with np.errstate(over="ignore"):
            images = array.astype(spec.dtype)
        exact = all(
            np.isfinite(image) and int(image) == int(value) for image, value in zip(images, array, strict=True)
        )
    else:
        limits = np.iinfo(spec.dtype)
        exact = all(limits.min <= int(value) <= limits.max for value in array)
    if not exact:
        with pytest.raises(InvalidInput, match="some values would change"):
            cast(array, spec)
        return
    made = cast(array, spec)
    assert made.dtype == spec.dtype
    assert [int(value) for value in made] == [int(value) for value in array]


@pytest.mark.parametrize(
    ("values", "datatype", "why"),
    [
        (np.array([[1e300]]), "FP32", r"dtype float64 and shape \(1, 1\).*FP32: some values are beyond its range"),
        (
            np.array([0.5]),
            "INT32",
            "dtype float64 .* does not convert to the model's INT32: floats may have fractions",
        ),
        (np.array([16.0]), "INT32", "floats may have fractions. Convert it yourself"),
        (np.array([1.0]), "FP16", "model's FP16: it has fewer digits"),
        (np.array([2**24 + 1]), "FP32", "some values would change"),
        (np.array([2**63 - 1]), "FP32", "some values would change"),
        (np.array([2**64 - 1], np.uint64), "FP64", "some values would change"),
        (np.array([2**53 + 1]), "FP64", "some values would change"),
        (np.array([-1]), "UINT8", "Input 'x' has dtype int64.*Convert it yourself if that is what you want"),
    ],
)
def test_a_lossy_conversion_is_refused_with_name_dtype_and_shape(values, datatype, why):
    with pytest.raises(InvalidInput, match=why):
        cast(values, tensor("x", -1, datatype=datatype))


def test_safe_conversions_are_made_and_fitting_arrays_not_copied():
    for source in ("bool", "uint8", "int16", "float16", ">f4"):
        made = cast(np.array([0, 1], source), tensor("x", -1))
        assert (made.dtype, made.tolist()) == (np.dtype("<f4"), [0.0, 1.0])
    assert cast(np.array([2**63], np.uint64), tensor("x", -1)).tolist() == [2.0**63]
    values = np.ones(3, np.float32)
    assert cast(values, tensor("x", -1)) is values
    assert cast(np.zeros(0), tensor("x", -1, datatype="INT8")).dtype == np.int8


@given(data=nested_lists(2))
def test_regular_and_jagged_outer_lists_can_be_equal(data):
    array = jagged(data, 2)
    one, other = (nesting.peel(each, "it").split(1)[0] for each in (array, array + 1))
    assert one.same_as(other)
    assert not one.same_as(
        nesting.peel(ak.concatenate([array, array[-1:]]) if data else jagged([[]], 2), "it").split(1)[0]
    )
    regular = np.zeros((2, 3, 4))
    var = ak.from_regular(regular, axis=None)
    assert nesting.peel(regular, "it").split(1)[0].same_as(nesting.peel(var, "it").split(1)[0])
