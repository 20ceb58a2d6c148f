"""Tables of every library for an input of features: matched by name, or by position with a warning."""

from __future__ import annotations

import warnings

import awkward as ak
import numpy as np
import pytest
from builders import tensor

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import flat
from eaf_inference.inference.marshal import columns, prepare
from eaf_inference.inference.spec import ModelSpec

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

PT, ETA = [30.0, 40.0, 50.0], [0.5, -1.5, 2.0]
ROWS = np.array([PT, ETA], np.float32).T
# eta before pt, and a column that no model reads
COLUMNS = {"eta": np.array(ETA), "run": np.array([1, 2, 3]), "pt": np.array(PT)}
TABLES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "lazy polars": pl.LazyFrame,
    "pyarrow": pa.table,
    "record batch": pa.RecordBatch.from_pydict,
    "dictionary": dict,
    "dictionary of Series": lambda columns: {name: pd.Series(values) for name, values in columns.items()},
    "structured": lambda columns: pd.DataFrame(columns).to_records(index=False),
    "records": lambda columns: ak.zip(columns, depth_limit=1),
}
tables = pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)


def spec_of(*inputs, features=None, max_batch_size=64, name="bdt"):
    return ModelSpec(
        name=name,
        version="",
        max_batch_size=max_batch_size,
        inputs=inputs or (tensor("x", 2),),
        outputs=(tensor("y", 1),),
        recipe=None,
        labels={},
        features=features or {},
    )


NAMED = spec_of(features={"x": ("pt", "eta")})
UNNAMED = spec_of()


def rows_of(data, spec=NAMED):
    """Return the rows of the first input."""
    return prepare(data, spec).inputs.arrays[0].rows


@pytest.fixture(autouse=True)
def no_earlier_warnings(monkeypatch):
    monkeypatch.setattr(flat, "_warned", set())


@tables
@pytest.mark.parametrize("wrap", [lambda table: table, lambda table: {"x": table}], ids=["alone", "by input"])
def test_features_are_found_by_name(make, wrap):
    job = prepare(wrap(make(COLUMNS)), NAMED)
    np.testing.assert_array_equal(job.inputs.arrays[0].rows, ROWS)
    assert job.inputs.arrays[0].rows.dtype == np.float32
    assert job.as_numpy is not isinstance(make(COLUMNS), ak.Array)


@tables
def test_a_missing_feature_is_named_with_the_nearest_column(make):
    table = make({"pT": COLUMNS["pt"], "eta": COLUMNS["eta"]})
    with pytest.raises(InvalidInput, match=r"'x' of 'bdt' lacks 'pt'\. Did you mean 'pT' for 'pt'\?.*'pT', 'eta'"):
        prepare({"x": table}, NAMED)


@tables
def test_columns_of_a_model_without_names_go_by_position_with_one_warning(make):
    table = make({"eta": COLUMNS["eta"], "pt": COLUMNS["pt"]})
    with pytest.warns(UserWarning, match=r"by their position.*: 'eta', 'pt'\. .*key: \"features\"") as caught:
        np.testing.assert_array_equal(rows_of(table, UNNAMED), ROWS[:, ::-1])
    assert caught[0].filename == __file__
    rows_of(table, UNNAMED)  # a second warning would be an error
    with pytest.warns(UserWarning, match="'pt', 'eta'"):  # another order
        rows_of(make({"pt": COLUMNS["pt"], "eta": COLUMNS["eta"]}), UNNAMED)


@tables
def test_too_many_columns_for_a_model_without_names_are_refused(make):
    with pytest.raises(InvalidInput, match=r"takes 2 features, and got 3 columns, 'eta', 'run', 'pt'.*\"features\""):
        prepare({"x": make(COLUMNS)}, UNNAMED)


@tables
def test_a_table_without_rows_gives_no_rows(make):
    none = {name: values[:0] for name, values in COLUMNS.items()}
    assert rows_of(make(none)).shape == (0, 2)


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(columns=["eta", "pt"]),
        pd.DataFrame({"eta": pd.Series(dtype="str"), "pt": pd.Series(dtype="category")}),
        pl.DataFrame({"eta": [], "pt": []}),
        pa.table({"eta": [], "pt": []}),
        {"eta": [], "pt": []},
    ],
    ids=["objects", "strings", "polars", "pyarrow", "lists"],
)
def test_a_table_without_rows_may_have_columns_of_any_type(table):
    assert rows_of(table).shape == (0, 2)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, None, 3], dtype="Int16"),
        pd.Series([1.0, None, 3.0], dtype="float64[pyarrow]"),
        pd.Series([True, None, False], dtype="boolean"),
        pl.Series([1, None, 3]),
        pa.array([1.0, None, 3.0]),
        pa.chunked_array([[1.0], [None, 3.0]]),
        np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False]),
        ak.Array([1.0, None, 3.0]),
        [1.0, None, 3.0],
    ],
    ids=lambda column: type(column).__name__,
)
def test_a_missing_value_is_refused_with_its_column(column):
    with pytest.raises(InvalidInput, match="'pt'"):
        prepare({"eta": ETA, "pt": column}, NAMED)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", "b", "c"]),
        pd.Series([1, 2, 1], dtype="category"),
        pd.Series(pd.to_datetime(["2026-01-01"] * 3)),
        pd.Series([1, "b", None], dtype=object),
        pl.Series(["a", "b", "c"]),
        pl.Series(["a", "b", "c"], dtype=pl.Categorical),
        pl.Series([[1.0], [], [2.0, 3.0]]),
        pa.array(["a", "b", "c"]),
        pa.array(["a", "b", "c"]).dictionary_encode(),
        np.array(["a", "b", "c"]),
        np.array([1j, 2, 3]),
        ak.Array(["a", "b", "c"]),
        ["a", "b", "c"],
        [[1.0], [], [2.0]],
        7.0,
    ],
)
def test_a_column_of_something_else_is_refused_by_name(column):
    with pytest.raises(InvalidInput, match="'pt'"):
        prepare({"eta": ETA, "pt": column}, NAMED)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 0, 1], dtype="Int64"),
        pd.Series([True, False, True], dtype="boolean"),
        pd.Series([1, 0, 1], dtype="float64[pyarrow]"),
        pd.Series(pd.arrays.SparseArray([1.0, 0.0, 1.0])),
        pd.Series([1, 0, 1], index=[7, 8, 9]),
        pl.Series([1, 0, 1], dtype=pl.UInt8),
        pl.Series([True, False, True]),
        pa.array([True, False, True]),
        pa.chunked_array([[1], [0, 1]]),
        pa.array([1.0, 0.0, 1.0]).dictionary_encode(),
        np.ma.array([1, 0, 1], mask=False),
        np.array([1, 0, 1], np.float16),
        [1, 0, 1],
        (True, False, True),
        range(1, -2, -1),
    ],
)
def test_numbers_and_booleans_of_any_type_are_taken(column):
    expected = [1, 0, -1] if isinstance(column, range) else [1, 0, 1]
    np.testing.assert_array_equal(rows_of({"eta": ETA, "pt": column})[:, 0], expected)


def test_nan_is_a_number_and_float64_becomes_float32():
    rows = rows_of(pd.DataFrame({"pt": [np.nan, 0.1, np.inf], "eta": ETA}))
    np.testing.assert_array_equal(rows[:, 0], np.float32([np.nan, 0.1, np.inf]))


@pytest.mark.parametrize("values", [[1e300, 0, 0], [2**53 + 1, 0, 0]])
def test_a_column_that_float32_would_change_is_refused_by_name(values):
    with pytest.raises(InvalidInput, match=r"^Column 'pt': .*FP32"):
        prepare(pd.DataFrame({"eta": ETA, "pt": values}), NAMED)


def test_columns_of_one_wanted_name_are_refused():
    table = pd.DataFrame(np.ones((3, 3)), columns=["pt", "eta", "pt"])
    with pytest.raises(InvalidInput, match=r"ambiguous: several columns of the table are called 'pt'"):
        prepare(table, NAMED)
    table.columns = ["pt", "eta", "eta.1"]
    assert rows_of(table).shape == (3, 2)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(InvalidInput, match=r"different sizes: 'pt' has shape \(2,\), and 'eta' has shape \(3,\)"):
        prepare({"eta": ETA, "pt": [1, 2]}, NAMED)
    with pytest.raises(InvalidInput, match=r"different lengths: \[2, 3\]"):
        prepare({"eta": ak.Array(ETA), "pt": [1, 2]}, NAMED)


def test_the_index_of_a_table_is_ignored():
    table = pd.DataFrame(COLUMNS, index=[2, 0, 1])
    np.testing.assert_array_equal(rows_of(table), ROWS)


def test_a_table_whose_columns_are_only_counted_goes_by_position():
    np.testing.assert_array_equal(rows_of(pd.DataFrame(ROWS)), ROWS)
    np.testing.assert_array_equal(rows_of(pd.DataFrame(ROWS), UNNAMED), ROWS)
    with pytest.raises(InvalidInput, match="lacks 'pt', 'eta'"):
        prepare(pd.DataFrame(ROWS)[[1, 0]], NAMED)  # counted once, but in another order since


@pytest.mark.parametrize("spec", [NAMED, UNNAMED], ids=["named", "unnamed"])
@pytest.mark.parametrize("kind", [np.array, ak.Array, pl.Series, pa.array])
def test_a_list_of_columns_goes_by_position(spec, kind):
    job = prepare({"x": [kind(PT), kind(ETA)]}, spec)
    np.testing.assert_array_equal(job.inputs.arrays[0].rows, ROWS)
    assert job.as_numpy is (kind is not ak.Array)


def test_a_list_of_columns_that_have_the_features_names_goes_by_name():
    table = pd.DataFrame(COLUMNS)
    np.testing.assert_array_equal(rows_of([table.eta, table.pt]), ROWS)


def test_names_in_a_list_of_columns_that_contradict_the_order_count():
    table = pd.DataFrame(COLUMNS)
    with pytest.raises(InvalidInput, match="lacks 'eta'.* the table has 'run', 'pt'"):
        rows_of([table.run, table.pt])
    np.testing.assert_array_equal(rows_of([table.pt, table.eta.rename("other")]), ROWS)  # pt is in its place
    np.testing.assert_array_equal(rows_of([table.pt, table.pt * 0 + table.eta]), ROWS)
    np.testing.assert_array_equal(rows_of([table.pt, (table.pt * 2).rename("pt")]), [[pt, 2 * pt] for pt in PT])
    digits = spec_of(features={"x": ("1", "0")})  # these are no positions
    np.testing.assert_array_equal(rows_of([np.array(PT), np.array(ETA)], digits), ROWS)


def test_arrays_that_may_be_columns_or_rows_give_a_warning():
    with pytest.warns(UserWarning, match=r"taken as the columns .*np\.stack\(rows\)"):
        np.testing.assert_array_equal(rows_of([np.array([1.0, 2.0]), np.array([3.0, 4.0])]), [[1, 3], [2, 4]])


def test_a_list_of_rows_or_chunks_is_refused():
    with pytest.raises(InvalidInput, match=r"got 3 columns without names.*np\.stack\(rows\)"):
        prepare(list(ROWS), NAMED)
    with pytest.raises(InvalidInput, match="the list has an array for each feature"):
        prepare([ROWS, ROWS], NAMED)


def test_lists_of_python_numbers_are_rows():
    np.testing.assert_array_equal(rows_of(ROWS.tolist()), ROWS)
    np.testing.assert_array_equal(rows_of([{"eta": eta, "pt": pt} for pt, eta in zip(PT, ETA, strict=True)]), ROWS)
    assert rows_of([]).shape == (0, 2)
    nested = prepare([[[1, 2], [3, 4]], [], [[5, 6]]], NAMED)
    np.testing.assert_array_equal(nested.outer.levels[0], [2, 0, 1])
    (jagged,) = prepare([[1.0, 2.0], [], [3.0]], spec_of(tensor("x", 1, -1))).inputs.arrays
    np.testing.assert_array_equal(jagged.counts, [2, 0, 1])


def test_one_row_of_a_table_is_refused_with_a_remedy():
    with pytest.raises(InvalidInput, match=r"got one column, a pandas Series of 3\..*df\.iloc\[\[row\]\]"):
        prepare(pd.DataFrame(COLUMNS).iloc[0], NAMED)
    np.testing.assert_array_equal(rows_of(pd.DataFrame(COLUMNS).iloc[[0]]), ROWS[:1])


@pytest.mark.parametrize("column", [pd.Series(PT), pl.Series(PT), pa.array(PT), np.array(PT), ak.Array(PT), PT])
def test_an_input_of_one_number_takes_a_column(column):
    spec = spec_of(tensor("x", 1))
    np.testing.assert_array_equal(rows_of(column, spec), ROWS[:, :1])
    np.testing.assert_array_equal(rows_of({"x": column}, spec), ROWS[:, :1])


def test_one_column_of_another_name_than_the_input_gives_a_warning_too():
    spec = spec_of(tensor("x", 1))
    with pytest.warns(UserWarning, match=r"by their position.*: 'pt'\. .*string_value: \"\[\\\"pt\\\"\]\""):
        np.testing.assert_array_equal(rows_of(pd.DataFrame({"pt": PT}), spec), ROWS[:, :1])
    np.testing.assert_array_equal(rows_of(pd.DataFrame({"x": PT}), spec), ROWS[:, :1])


def test_nested_records_keep_their_lists():
    jets = ak.unflatten(ak.zip(COLUMNS), [2, 0, 1])
    job = prepare(jets, NAMED)
    np.testing.assert_array_equal(job.inputs.arrays[0].rows, ROWS)
    np.testing.assert_array_equal(job.outer.levels[0], [2, 0, 1])
    by_column = prepare({name: jets[name] for name in jets.fields}, NAMED)
    np.testing.assert_array_equal(by_column.inputs.arrays[0].rows, ROWS)
    with pytest.raises(InvalidInput, match="lists of other lengths"):
        prepare({"pt": jets.pt, "eta": ak.unflatten(COLUMNS["eta"], [1, 1, 1])}, NAMED)


def test_a_structured_array_of_events_and_jets_keeps_its_shape():
    jets = np.zeros((3, 4), [("eta", "f8"), ("pt", "f4")])
    jets["pt"] = np.arange(12).reshape(3, 4)
    job = prepare(jets, NAMED)
    assert (job.outer.length, job.outer.levels) == (3, (4,))
    np.testing.assert_array_equal(job.inputs.arrays[0].rows[:, 0], np.arange(12))


def test_one_table_feeds_all_inputs_of_a_model():
    spec = spec_of(
        tensor("x", 2),
        tensor("charge", 1, datatype="INT32"),
        tensor("z", 1),
        features={"x": ("pt", "eta"), "z": ("run",)},
    )
    table = pd.DataFrame(COLUMNS).assign(charge=[1, -1, 1], unused="text")
    x, charge, z = prepare(table, spec).inputs.arrays
    np.testing.assert_array_equal(x.rows, ROWS)
    np.testing.assert_array_equal(charge.rows, np.int32([[1], [-1], [1]]))
    np.testing.assert_array_equal(z.rows, [[1], [2], [3]])
    with pytest.raises(InvalidInput, match=r"takes 3 inputs, and the 4 columns .* have none for charge: INT32 \[1\]"):
        prepare(table.drop(columns="charge"), spec)
    assert columns(spec, table.columns) == ("pt", "eta", "charge", "run")


def test_records_whose_fields_are_the_inputs_go_by_name():
    spec = spec_of(tensor("x", 2, -1), tensor("w", 2))
    records = ak.Array([{"w": [1, 2], "x": [[1, 2, 3], [4, 5, 6]], "unused": "text"}])
    x, w = prepare(records, spec).inputs.arrays
    np.testing.assert_array_equal(np.stack(x.columns), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(w.rows, [[1, 2]])
    np.testing.assert_array_equal(rows_of(records[["w"]], spec_of(tensor("w", 2))), [[1, 2]])


def test_an_input_of_one_number_takes_the_column_with_its_name():
    table = pd.DataFrame({"y": [1.0], "x": [2.0], "z": [3.0]})
    np.testing.assert_array_equal(rows_of(table, spec_of(tensor("x", 1))), [[2]])
    with pytest.warns(UserWarning, match="'y', 'x', 'z'"):
        np.testing.assert_array_equal(rows_of(table, spec_of(tensor("x", 3))), [[1, 2, 3]])


def test_a_column_with_an_inputs_name_does_not_hide_a_missing_feature():
    with pytest.raises(InvalidInput, match="'x' of 'bdt' lacks 'eta'"):
        prepare(pd.DataFrame({"x": PT, "pt": PT, "y": ETA}), NAMED)
    one = spec_of(tensor("x", 1), features={"x": ("pt",)})
    with pytest.raises(InvalidInput, match="'x' of 'bdt' lacks 'pt'"):
        prepare(pd.DataFrame({"x": PT, "y": ETA}), one)


def test_an_optional_input_takes_a_table_only_if_it_has_a_feature():
    optional = type(tensor("z", 1))("z", "FP32", (2,), optional=True)
    spec = spec_of(tensor("x", 2), optional, features={"x": ("pt", "eta"), "z": ("run", "lumi")})
    assert len(prepare(pd.DataFrame(COLUMNS).drop(columns="run"), spec).inputs.arrays) == 1
    with pytest.raises(InvalidInput, match="'z' of 'bdt' lacks 'lumi'"):
        prepare(pd.DataFrame(COLUMNS), spec)
    assert columns(spec, ["pt", "eta"]) == ("pt", "eta")


def test_an_unknown_input_in_a_dictionary_is_still_refused():
    with pytest.raises(InvalidInput, match=r"has no input 'X'"):
        prepare({"X": ROWS}, UNNAMED)
    with pytest.raises(InvalidInput, match=r"has no input 'w'"):
        prepare({"x": ROWS, "w": PT}, UNNAMED)


def test_features_of_constituents_are_found_by_name():
    spec = spec_of(tensor("x", 2, -1), features={"x": ("pt", "eta")})
    records = ak.unflatten(ak.zip(COLUMNS), [2, 0, 1])
    (x,) = prepare(records, spec).inputs.arrays
    np.testing.assert_array_equal(np.stack(x.columns, axis=1), ROWS)


def test_a_model_without_a_batch_axis_takes_a_table_as_one_input():
    spec = spec_of(tensor("x", -1, 2), features={"x": ("pt", "eta")}, max_batch_size=0)
    np.testing.assert_array_equal(rows_of(pd.DataFrame(COLUMNS), spec), ROWS[np.newaxis])
    spec = spec_of(tensor("x", 2, -1), features={"x": ("pt", "eta")}, max_batch_size=0)
    np.testing.assert_array_equal(rows_of(pd.DataFrame(COLUMNS), spec), ROWS.T[np.newaxis])


def test_a_table_for_an_input_of_another_shape_is_refused():
    with pytest.raises(InvalidInput, match="features are on one axis"):
        prepare(pd.DataFrame(COLUMNS), spec_of(tensor("x", 3, 4, 5)))
    with pytest.raises(InvalidInput, match="one number per row, not one per constituent"):
        prepare(pd.DataFrame(np.zeros((5, 3))), spec_of(tensor("x", 3, 4)))
    with pytest.raises(InvalidInput, match="one number per row, not one per constituent"):
        prepare(pd.DataFrame(COLUMNS), spec_of(tensor("x", 3, -1)))


@pytest.mark.parametrize("kind", [np.array, ak.Array, pl.Series, pa.array, pd.Series])
def test_columns_of_lists_make_an_input_with_constituents(kind):
    jagged = {"eta": [[0.5, 1.5], [], [2.5]], "pt": [[1.0, 2.0], [], [3.0]]}
    spec = spec_of(tensor("x", 2, -1), features={"x": ("pt", "eta")})
    if kind is not np.array:
        (x,) = prepare({name: kind(values) for name, values in jagged.items()}, spec).inputs.arrays
        np.testing.assert_array_equal(np.stack(x.columns), [[1, 2, 3], [0.5, 1.5, 2.5]])
        np.testing.assert_array_equal(x.counts, [2, 0, 1])
        single = prepare(kind(jagged["pt"]), spec_of(tensor("x", 1, -1))).inputs.arrays[0]
        np.testing.assert_array_equal(single.counts, [2, 0, 1])
    even = {"eta": kind([[0.5, 1.5], [2.5, 3.5]]), "pt": kind([[1.0, 2.0], [3.0, 4.0]])}
    expected = np.array([[[1, 2], [0.5, 1.5]], [[3, 4], [2.5, 3.5]]], np.float32)
    np.testing.assert_array_equal(dense(prepare(even, spec).inputs.arrays[0]), expected)


@pytest.mark.parametrize("kind", [np.array, ak.Array])
def test_columns_of_lists_of_one_length_make_an_input_of_two_fixed_sizes(kind):
    even = {"pt": kind(np.arange(12.0).reshape(4, 3)), "eta": kind(-np.arange(12.0).reshape(4, 3))}
    expected = np.stack([ak.to_numpy(each) for each in even.values()], axis=1)
    spec = spec_of(tensor("x", 2, 3))
    np.testing.assert_array_equal(rows_of({"x": list(even.values())}, spec), expected)
    with pytest.warns(UserWarning, match="'pt', 'eta'"):
        np.testing.assert_array_equal(rows_of({"x": even}, spec), expected)
    with pytest.raises(InvalidInput, match="sizes differ"):
        prepare({"x": list(even.values())}, spec_of(tensor("x", 2, 4)))


def dense(array):
    """Return a jagged input whose rows are equally long as numpy has it."""
    if hasattr(array, "rows"):
        return array.rows
    return np.stack([column.reshape(len(array.counts), -1) for column in array.columns], axis=1)


def test_a_dask_table_is_computed():
    dataframe = pytest.importorskip("dask.dataframe")
    np.testing.assert_array_equal(rows_of(dataframe.from_pandas(pd.DataFrame(COLUMNS), npartitions=2)), ROWS)


def test_a_type_without_data_records_the_columns_that_are_read():
    layout = ak.to_layout(ak.unflatten(ak.zip(COLUMNS), [2, 0, 1]))
    tracer, report = ak.typetracer.typetracer_with_report(layout.form_with_key("node{id}"), highlevel=True)
    job = prepare(tracer, NAMED)
    assert job.rows == 0
    keys = {name: layout.form_with_key("node{id}").content.content(name).form_key for name in COLUMNS}
    assert {name for name, key in keys.items() if key in report.data_touched} == {"pt", "eta"}


def test_plain_arrays_go_by_position_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(rows_of(ROWS), ROWS)
        np.testing.assert_array_equal(rows_of(ak.Array(ROWS), UNNAMED), ROWS)
