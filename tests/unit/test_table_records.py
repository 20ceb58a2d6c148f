"""Tables of every library for a model with a recipe."""

from __future__ import annotations

import datetime

import awkward as ak
import numpy as np
import pytest
from builders import recipe_text, tensor, variable

from eaf_inference.dataset.parquet import open_parquet, parquet_table
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.table_records import as_records
from eaf_inference.inference.tables import numbers

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

COLUMNS = {
    "eta": [[0.5, 1.5], [], [2.5]],
    "run": [1, 2, 3],
    "when": [datetime.datetime(2026, 1, 1)] * 3,
    "pt": [[1.0, 2.0], [], [3.0]],
    "trigger": ["a", "b", None],
}
MAKERS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "lazy polars": pl.LazyFrame, "pyarrow": pa.table}
tables = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def spec_of(text, *inputs):
    return ModelSpec(
        name="jets",
        version="",
        max_batch_size=4,
        inputs=inputs,
        outputs=(tensor("y", 1),),
        recipe=Recipe.parse(text, model="jets"),
        labels={},
    )


JETS = spec_of(recipe_text({"x": {"pt": variable(), "eta": variable()}}), tensor("x", 2, -1))


@tables
def test_columns_with_a_list_per_row_are_constituents(make):
    (x,) = prepare(make(COLUMNS), JETS).inputs.arrays
    np.testing.assert_array_equal(np.stack(x.columns), [[1, 2, 3], [0.5, 1.5, 2.5]])
    np.testing.assert_array_equal(x.counts, [2, 0, 1])


@tables
def test_a_missing_column_is_named(make):
    with pytest.raises(InvalidInput, match="lacks pt"):
        prepare(make({"eta": COLUMNS["eta"]}), JETS)


@tables
def test_a_column_of_text_for_a_variable_is_refused(make):
    with pytest.raises(InvalidInput, match="'pt' holds strings"):
        prepare(make({"eta": COLUMNS["eta"], "pt": ["a", "b", "c"]}), JETS)


@pytest.mark.parametrize(
    "column",
    [pd.Series([1, 2, 3], dtype="Int64"), pd.Series([1.0, 2.0, 3.0]), pl.Series([1, 2, 3]), pa.array([1, 2, 3])],
)
def test_numbers_stay_numbers(column):
    assert as_records(pd.DataFrame({"a": column})).a.to_list() == [1, 2, 3]
    assert as_records({"a": column})["a"].to_list() == [1, 2, 3]


def test_missing_values_stay_missing():
    table = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [[1], None], "c": [1.0, np.nan]})
    records = as_records(table)
    assert records.a.to_list() == [1, None]
    assert records.b.to_list() == [[1], None]
    assert np.isnan(records.c[1])


@pytest.mark.parametrize("make", [pl.DataFrame, pa.table])
def test_what_is_missing_in_a_slice_of_a_table_is_missing_there(make):
    jets = [None, [1.0], None, [2.0, 3.0], None, []]
    table = make({"pt": jets, "jet": [None if pt is None else {"pt": pt} for pt in jets]})
    for start in range(len(jets)):
        records = as_records(table[start:])
        assert records.pt.to_list() == records.jet.pt.to_list() == jets[start:]


def test_what_is_missing_in_ranges_of_parquet_is_missing_there_in_the_file(tmp_path):
    numbers = [None, 1.0, None, 3.0, 4.0, None, 6.0]
    jets = [None if number is None else [{"pt": number}] * at for at, number in enumerate(numbers)]
    columns = {"number": numbers, "jets": jets, "met": [{"pt": number} for number in numbers]}
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), tmp_path / "a.parquet")
    with open_parquet(str(tmp_path / "a.parquet")) as file:
        table = parquet_table(file)
        for start in range(len(numbers)):
            got = table.read(None, start, len(numbers))
            assert {name: got[name].to_list() for name in columns} == {
                name: values[start:] for name, values in columns.items()
            }


@pytest.mark.parametrize("extension", [True, False])
def test_slices_of_arrays_inside_others_are_noticed(extension):
    jets = ak.Array(
        [None, [{"pt": 1.0, "name": "a"}], [], None, [{"pt": 2.0, "name": None}, {"pt": 3.0, "name": "b"}]]
    )
    arrow = ak.to_arrow(jets, extensionarray=extension)
    part = pa.array([None, 1.0, None, 2.0])[1:]
    assert (
        as_records(pa.chunked_array([arrow[1:], arrow[:0], arrow[4:]])).to_list() == jets[[1, 2, 3, 4, 4]].to_list()
    )
    assert as_records(pa.StructArray.from_arrays([part], ["a"])).a.to_list() == [1.0, None, 2.0]
    assert as_records(pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), part)).to_list() == [
        [1.0],
        [None, 2.0],
    ]


def test_the_mask_of_a_masked_column_is_not_lost():
    values = np.ma.masked_greater([[1.0, 2.0], [3.0, 9.0]], 5)
    with pytest.raises(InvalidInput, match="'pt' has type .* holds missing values inside its rows"):
        prepare({"pt": values, "eta": values}, JETS)
    jet = spec_of(recipe_text({"x": {"pt": variable(), "eta": variable()}}), tensor("x", 2))
    assert prepare({"pt": values[:, 1], "eta": values[:, 1]}, jet).outer.masks[0].tolist() == [False, True]
    structured = np.ma.array([(1.0, 2.0), (3.0, 4.0)], mask=[(0, 0), (0, 1)], dtype=[("pt", "f4"), ("eta", "f4")])
    plain = ModelSpec("jets", "", 4, (tensor("x", 2),), (tensor("y", 1),), None, {}, features={"x": ("pt", "eta")})
    with pytest.raises(InvalidInput, match="'eta' is missing .None. in other places than the field 'pt'"):
        prepare(structured, jet)
    with pytest.raises(InvalidInput, match="column 'eta' has missing values: 1 of 2"):
        prepare(structured, plain)


@pytest.mark.parametrize("kind", [dict, lambda columns: np.rec.fromarrays(columns.values(), names=list(columns))])
def test_columns_of_another_byte_order_are_taken(kind):
    columns = {"pt": np.array([1.0, 2.0], ">f8"), "eta": np.array([3, 4], ">i4")}
    jet = spec_of(recipe_text({"x": {"pt": variable(), "eta": variable()}}), tensor("x", 2))
    np.testing.assert_array_equal(prepare(kind(columns), jet).inputs.arrays[0].rows, [[1, 3], [2, 4]])


class DataSet:
    """A structured array in a file, as h5py reads it."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize("read", [np.asarray, DataSet])
def test_the_padding_of_structured_arrays_is_no_constituent(read):
    padded = np.zeros((3, 2), [("valid", "?"), ("eta", ">f4"), ("name", "S1"), ("pt", "f2")])
    padded["valid"] = [[True, True], [False, False], [False, True]]  # wherever padding is
    padded["pt"], padded["eta"] = [[1, 2], [9, 9], [9, 3]], [[0.5, 1.5], [9, 9], [9, 2.5]]
    x, y = tensor("x", 2, -1), tensor("y", 1)
    plain = ModelSpec("jets", "", 4, (x,), (y,), None, {}, features={"x": ("pt", "eta")})
    for spec in (JETS, plain):
        for data in (read(padded), {"x": read(padded)}):
            job = prepare(data, spec)
            (x,) = job.inputs.arrays
            np.testing.assert_array_equal(np.stack(x.columns), [[1, 2, 3], [0.5, 1.5, 2.5]])
            np.testing.assert_array_equal(x.counts, [2, 0, 1])
    events = prepare(np.stack([padded, padded]), JETS)
    assert (events.outer.length, events.outer.levels) == (2, (3,))


def test_structured_arrays_of_unknown_padding_are_refused_with_a_recipe():
    padded = np.zeros((3, 2), [("pt", "f4"), ("eta", "f4")])
    for data in (padded, {"x": padded}):  # the name of an input makes them no prepared array
        with pytest.raises(InvalidInput, match=r"structured array of shape \(3, 2\), .* field 'valid'"):
            prepare(data, JETS)
    real = np.array([[True, True], [False, False], [True, False]])
    by_hand = ak.zip({name: ak.from_regular(padded[name])[ak.from_regular(real)] for name in padded.dtype.names})
    assert prepare(by_hand, JETS).inputs.arrays[0].counts.tolist() == [2, 0, 1]


def test_masked_values_of_structured_arrays_may_only_be_padding():
    padded = np.ma.array(np.zeros((1, 2), [("valid", "?"), ("pt", "f4"), ("eta", "f4")]))
    padded["valid"] = [[True, False]]
    padded["pt"][0, 1] = np.ma.masked
    assert prepare(padded, JETS).inputs.arrays[0].counts.tolist() == [1]
    padded["pt"][0, 0] = np.ma.masked
    with pytest.raises(InvalidInput, match=r"masked where its field 'valid' is True\. Fill it"):
        prepare(padded, JETS)


@pytest.mark.parametrize("error", [AssertionError, AttributeError, KeyError])  # such as for list views, extensions
def test_columns_that_awkward_cannot_hold_are_left_out(monkeypatch, error):
    convert = ak.from_arrow

    def from_arrow(column):
        if column.type == pa.binary():
            raise error
        return convert(column)

    monkeypatch.setattr(ak, "from_arrow", from_arrow)
    table = pa.table({"pt": COLUMNS["pt"], "eta": COLUMNS["eta"], "other": pa.array([b"1", b"2", b"3"])})
    assert as_records(table).fields == ["pt", "eta"]
    with pytest.raises(InvalidInput, match="lacks other"):
        prepare(table, spec_of(recipe_text({"x": {"other": variable()}}), tensor("x", 1, -1)))
    alone = table.select(["other"])
    assert as_records(alone) is alone
    with pytest.raises(InvalidInput, match="pyarrow Table, without fields"):
        prepare(alone, JETS)


def test_a_column_of_unions_is_refused_with_its_type():
    kinds = pa.array([0, 1], pa.int8())
    union = pa.UnionArray.from_sparse(kinds, [pa.array([1, 2]), pa.array([1.5, 2.5])])
    with pytest.raises(InvalidInput, match="has type sparse_union"):
        numbers(union, "A column")


def test_columns_of_one_name_are_left_out():
    table = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["a", "b", "a"])
    assert as_records(table).fields == ["b"]


def test_other_values_are_returned_as_they_are():
    for value in (np.zeros((2, 3)), ak.Array([1, 2]), [1, 2], pd.DataFrame(np.zeros((2, 2)))):
        assert as_records(value) is value
