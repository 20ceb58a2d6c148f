"""Arrays of libraries that are not known here, such as torch, and columns that hold lists or records."""

from __future__ import annotations

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from builders import tensor
from test_flat_inputs import COLUMNS, ETA, NAMED, PT, ROWS, no_earlier_warnings, rows_of, spec_of

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.collections import CollectionSpec
from eaf_inference.inference.conversion import cast
from eaf_inference.inference.marshal import prepare

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")

__all__ = ["no_earlier_warnings"]  # a fixture


class Tensor:
    """An array of a library that numpy reads, or does not: of torch one with gradients, or on a GPU."""

    def __init__(self, values, why=""):
        self.values, self.why, self.ndim = np.asarray(values), why, np.ndim(values)

    def __array__(self, dtype=None, copy=None):
        if self.why:
            raise RuntimeError(self.why)
        return self.values


def test_arrays_of_other_libraries_are_columns_as_those_of_numpy_are():
    columns = [Tensor(PT), Tensor(ETA)]
    np.testing.assert_array_equal(rows_of(columns), ROWS)
    np.testing.assert_array_equal(rows_of({"eta": columns[1], "pt": columns[0]}), ROWS)
    with pytest.warns(UserWarning, match=r"taken as the columns .*np\.stack\(rows\)"):
        np.testing.assert_array_equal(rows_of([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])]), [[1, 3], [2, 4]])
    np.testing.assert_array_equal(rows_of([Tensor(row) for row in ROWS]), ROWS)  # three are no two columns


@pytest.mark.parametrize("pair", [(np.array, Tensor), (Tensor, np.array), (ak.Array, Tensor), (pl.Series, Tensor)])
def test_a_list_of_arrays_of_several_libraries_holds_columns(pair):
    first, second = pair
    np.testing.assert_array_equal(rows_of([first(PT), second(ETA)]), ROWS)


def test_missing_values_of_arrays_of_pandas_are_found():
    pd = pytest.importorskip("pandas")
    lacking = pd.DataFrame({"pt": pd.array([1.0, None], "Float64")}).pt
    for column in (lacking, lacking.array, pd.Index(lacking)):
        for data in ({"pt": column, "eta": column}, [column, column]):
            with pytest.raises(InvalidInput, match="missing values: 1 of 2"):
                prepare(data, NAMED)
    for column in (pd.Series(PT), pd.Series(PT).array, pd.Index(PT), pd.array(PT, "Float64")):
        np.testing.assert_array_equal(rows_of({"pt": column, "eta": ETA}), ROWS)
    nan = pd.Series([np.nan, 1.0]).array  # a number
    assert np.isnan(rows_of({"pt": nan, "eta": nan})[0]).all()
    with pytest.raises(InvalidInput):
        prepare(pd.MultiIndex.from_tuples([(1.0, 2.0)]), NAMED)


def test_an_array_that_numpy_cannot_read_is_refused_with_its_reason():
    bad = Tensor(PT, "It requires grad.")
    for data in (bad, {"x": bad}, [bad, bad], [bad] * 3, {"pt": bad, "eta": bad}):
        with pytest.raises(InvalidInput, match=r"numpy cannot read: It requires grad\. Expected .*detach\(\)"):
            prepare(data, NAMED)


def test_two_arrays_that_may_be_channels_or_rows_give_a_warning():
    with pytest.warns(UserWarning, match=r"2 arrays of shape \(2, 4\), .*ak\.Array\(rows\)"):
        prepare([np.zeros((2, 4)), np.ones((2, 4))], spec_of(tensor("x", 2, -1)))
    with pytest.raises(InvalidInput, match=r"got 3 columns without names.*ak\.Array\(rows\)"):
        prepare([np.zeros((2, 4))] * 3, spec_of(tensor("x", 2, -1)))
    with pytest.raises(InvalidInput, match=r"has 3 channels \(a list of rows is passed as ak\.Array\(rows\)\)"):
        prepare([ak.Array([[1.0], [2.0]])] * 3, spec_of(tensor("x", 2, -1)))
    (x,) = prepare([np.zeros(2), np.ones(3)], spec_of(tensor("x", -1))).inputs.arrays  # one channel: these are rows
    assert x.counts.tolist() == [2, 3]


def test_a_list_of_channels_of_matrices_is_no_list_of_rows():
    matrix = ak.Array([[[1.0]], [[1.0, 2.0], [3.0, 4.0]]])
    (channels,) = prepare([matrix, 2 * matrix], spec_of(tensor("u", 2, -1, -1))).inputs.arrays
    np.testing.assert_array_equal(channels.shapes, [[2, 1, 1], [2, 2, 2]])
    (rows,) = prepare([np.eye(1), np.eye(2)], spec_of(tensor("u", -1, -1))).inputs.arrays
    np.testing.assert_array_equal(rows.shapes, [[1, 1], [2, 2]])


def objects(rows):
    """Return lists as numpy has them from uproot: an array of arrays."""
    column = np.empty(len(rows), object)
    column[:] = [np.array(row) for row in rows]
    return column


@pytest.mark.parametrize("kind", [list, objects, ak.Array, pl.Series, pa.array])
def test_columns_of_lists_are_constituents_or_outer_lists(kind):
    jagged = {"eta": kind([[0.5, 1.5], [], [2.0]]), "pt": kind([[1.0, 2.0], [], [3.0]])}
    spec = spec_of(tensor("x", 2, -1), features={"x": ("pt", "eta")})
    for data in (jagged, [jagged["pt"], jagged["eta"]]):
        if kind is list and data is not jagged:  # the lists of two rows
            continue
        (x,) = prepare(data, spec).inputs.arrays
        np.testing.assert_array_equal(np.stack(x.columns), [[1, 2, 3], [0.5, 1.5, 2.0]])
        np.testing.assert_array_equal(x.counts, [2, 0, 1])
    events = prepare(jagged, NAMED)
    np.testing.assert_array_equal(events.inputs.arrays[0].rows, [[1, 0.5], [2, 1.5], [3, 2.0]])
    np.testing.assert_array_equal(events.outer.levels[0], [2, 0, 1])


def test_a_list_of_dask_columns_is_computed():
    pd, dataframe = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    table = dataframe.from_pandas(pd.DataFrame(COLUMNS), npartitions=2)
    np.testing.assert_array_equal(rows_of([table.pt, table.eta]), ROWS)


def test_a_column_of_records_is_a_table():
    jets = pl.DataFrame(COLUMNS).select(pl.struct(pl.all()).alias("jet"))
    for column in (jets["jet"], jets.to_arrow()["jet"], pa.array([None, {"eta": 0.5, "pt": 30.0}])[1:]):
        np.testing.assert_array_equal(rows_of(column), ROWS[: len(column)])


def test_a_column_that_was_not_read_is_named():
    form, length, buffers = ak.to_buffers(ak.zip({"pt": PT, "eta": ETA, "run": [1, 2, 3]}, depth_limit=1))
    placeholders = pytest.importorskip("awkward._nplikes.placeholder")
    numpy = pytest.importorskip("awkward._nplikes.numpy").Numpy.instance()

    def without(name):
        key = f"{form.content(name).form_key}-data"
        left_out = placeholders.PlaceholderArray(numpy, (length,), buffers[key].dtype)
        return ak.from_buffers(form, length, {**buffers, key: left_out})

    np.testing.assert_array_equal(rows_of(without("run")), ROWS)
    with pytest.raises(
        InvalidInput, match="The field 'eta' was left out when its file was read. Expected its numbers"
    ):
        prepare(without("eta"), NAMED)


def test_a_padded_mask_beside_jagged_inputs_is_refused():
    inputs = (tensor("pf_x", 1, -1), tensor("pf_mask", 1, -1))
    collection = CollectionSpec("pf", ("pf_x", "pf_mask"))
    spec = replace(spec_of(*inputs), collections=(collection,))
    jagged = {"pf_x": ak.Array([[1.0, 2.0], [3.0]])}
    with pytest.raises(
        InvalidInput, match="'pf_mask' has 2 constituents in every row, as if padded. Expected the same"
    ):
        prepare({**jagged, "pf_mask": np.ones((2, 1, 2))}, spec)
    assert prepare({**jagged, "pf_mask": ak.Array([[1.0, 1.0], [1.0]])}, spec).rows == 2


def test_integers_0_and_1_are_booleans():
    mask = cast(np.array([1, 0]), tensor("mask", -1, datatype="BOOL"))
    assert (mask.dtype, mask.tolist()) == (np.bool_, [True, False])
    with pytest.raises(InvalidInput, match="model's BOOL: some values would change"):
        cast(np.array([2, 0]), tensor("mask", -1, datatype="BOOL"))


@pytest.mark.parametrize("rows", [[[1.5, True], [2.5, False]], [[1.5, "a"]], [[1.5, [2.5]]]])
def test_rows_of_several_types_are_refused_with_their_type(rows):
    with pytest.raises(InvalidInput, match=r"mixes types: .*union\[.*Expected lists of one kind of number"):
        prepare(rows, NAMED)
