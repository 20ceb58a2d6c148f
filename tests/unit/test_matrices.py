"""Inputs of several variable axes: every row keeps its own shape and values."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from builders import rows_of, run, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.inputs import DenseInput, MatrixInput, RaggedInput
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.matrices import matrix_of

SHAPES = {
    "P × P": (-1, -1),
    "C × P × P": (3, -1, -1),
    "P × P × C": (-1, -1, 3),
    "P × C × P": (-1, 3, -1),
    "C × D × P": (3, 2, -1),
    "one channel": (1, -1, -1),
}


def made(shape, sizes, seed=0):
    """Make one array for each row: each variable axis takes the next of the row's sizes."""
    random = np.random.default_rng(seed)
    arrays = []
    for own in sizes:
        left = list(own)
        arrays.append(random.normal(size=[left.pop(0) if size == -1 else size for size in shape]).astype(np.float32))
    return arrays


def nested(arrays, depth):
    """Return the rows as jagged lists of float32, whatever is empty."""
    content = ak.contents.NumpyArray(np.concatenate([each.reshape(-1) for each in arrays]))
    for axis in reversed(range(depth)):
        lengths = [length for each in arrays for length in [each.shape[axis]] * int(np.prod(each.shape[:axis]))]
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        content = ak.contents.ListOffsetArray(ak.index.Index64(offsets), content)
    return ak.Array(content)


def rows_in(matrix):
    return [matrix.gathered(np.array([row]))[0] for row in range(len(matrix.shapes))]


def assert_rows(matrix, arrays):
    for got, expected in zip(rows_in(matrix), arrays, strict=True):
        np.testing.assert_array_equal(got.reshape(-1), expected.reshape(-1))
        if expected.size:
            assert got.shape == expected.shape


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@given(sizes=pairs)
def test_rows_of_any_shape_are_flattened_in_order(shape, sizes):
    arrays = made(shape, sizes)
    value = nested(arrays, len(shape))
    matrix, outer = matrix_of(value, tensor("u", *shape), batched=True)
    assert outer.rows == len(sizes)
    assert_rows(matrix, arrays)
    grouped = ak.unflatten(value, [0, len(sizes), 0])
    again, outer = matrix_of(grouped, tensor("u", *shape), batched=True)
    assert (outer.rows, len(outer.levels)) == (len(sizes), 1)
    assert_rows(again, arrays)
    backwards, _ = matrix_of(value[::-1], tensor("u", *shape), batched=True)
    assert_rows(backwards, arrays[::-1])


@pytest.mark.parametrize("shape", [(3, -1, -1), (-1, -1, 3)])
@given(sizes=pairs)
def test_channels_are_one_array_each_or_the_fields_of_records(shape, sizes):
    arrays = made(shape, sizes)
    axis = shape.index(3)
    parts = [nested([each.take(channel, axis=axis) for each in arrays], 2) for channel in range(3)]
    records = ak.zip(dict(zip("abc", parts, strict=True)))
    for value in (parts, tuple(parts), records):
        matrix, outer = matrix_of(value, tensor("u", *shape), batched=True)
        assert outer.rows == len(sizes)
        assert_rows(matrix, arrays)


def test_an_axis_of_one_channel_may_be_left_out():
    arrays = made((-1, -1), [(2, 2), (0, 0), (3, 3)])
    matrix, _ = matrix_of(nested(arrays, 2), tensor("u", 1, -1, -1), batched=True)
    assert matrix.shapes.tolist() == [[1, 2, 2], [1, 0, 0], [1, 3, 3]]


def test_a_model_without_a_batch_axis_takes_one_row_alone():
    row = np.arange(6, dtype=np.float32).reshape(2, 3)
    alone, outer = matrix_of(ak.from_numpy(row), tensor("u", -1, -1), batched=False)
    assert isinstance(alone, DenseInput)
    assert outer.length is None
    np.testing.assert_array_equal(alone.rows, row[None])


def test_strings_may_differ_in_number_from_row_to_row():
    value = ak.Array([["a"], [], ["bb", "c"]])
    matrix, _ = matrix_of(value, tensor("u", -1, datatype="BYTES"), batched=True)
    assert [row.tolist() for row in rows_in(matrix)] == [[b"a"], [], [b"bb", b"c"]]


@pytest.mark.parametrize("empty", [ak.Array([]), ak.Array([[[1.0]]])[:0], ak.Array([[], []])[:0]])
def test_no_rows_have_no_values(empty):
    spec = tensor("u", -1, -1)
    if empty.ndim < 3:
        with pytest.raises(InvalidInput, match="too few axes"):
            matrix_of(empty, spec, batched=True)
        return
    matrix, outer = matrix_of(empty, spec, batched=True)
    assert (outer.rows, matrix.shapes.shape, len(matrix.values)) == (0, (0, 2), 0)


@pytest.mark.parametrize(
    ("value", "shape", "why"),
    [
        ([[[1.0, 2], [3]]], (-1, -1), r"no single shape in row 0: its lists along axis 1 .* have the lengths 1, 2"),
        ([[[1.0]], [[1.0, 2], [3, 4], [5]]], (-1, -1), "in row 1"),
        ([[[[1.0]], [[2.0], [3.0]]]], (2, -1, -1), "along axis 1"),
        ([[[1.0, 2]], [[1.0]]], (-1, 2), "its axis -1 is not 2 long in every row"),
        ([[[[1.0]]], [[[1.0]], [[2.0]]]], (2, -1, -1), "its axis -3 is not 2 long in every row"),
        ([[1.0], [2.0]], (-1, -1), "it has too few axes"),
        ([[[1.0]], [None]], (-1, -1), "missing values inside its rows"),
        ([[[1.0]], [["a"]]], (-1, -1), "mixes types"),
        ([[[0.5]]], (-1, -1), "does not convert to the model's INT64"),
    ],
)
def test_what_is_no_matrix_is_refused_with_its_place(value, shape, why):
    datatype = "INT64" if "INT64" in why else "FP32"
    with pytest.raises(InvalidInput, match=why):
        matrix_of(ak.Array(value), tensor("u", *shape, datatype=datatype), batched=True)


@pytest.mark.parametrize(
    ("parts", "shape", "why"),
    [
        ([[[[1.0]]]], (2, -1, -1), "it has 1 channels"),
        ([[[[1.0]]], [[[1.0, 2.0]]]], (2, -1, -1), "channel 1 has other sizes than channel 0"),
        ([[[[1.0]]], [[[1.0]]]], (-1, 2, -1), "its values belong in one array"),
        ([[[[1.0]]], [[[1.0]]]], (2, 2, -1), "its values belong in one array"),
    ],
)
def test_channels_that_do_not_fit_are_refused(parts, shape, why):
    with pytest.raises(InvalidInput, match=why):
        matrix_of([ak.Array(part) for part in parts], tensor("u", *shape), batched=True)


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=40), budget=st.integers(1, 40))
def test_only_rows_of_equal_sizes_share_a_batch_and_none_is_padded(sizes, budget):
    squares = made((-1, -1), [(size, size) for size in sizes])
    lengths = np.array(sizes)
    starts = np.cumsum(lengths) - lengths
    column = np.arange(1, lengths.sum() + 1, dtype=np.float32)
    matrix, _ = matrix_of(nested(squares, 2), tensor("u", -1, -1), batched=True)
    assert isinstance(matrix, MatrixInput)
    weights = np.arange(len(sizes), dtype=np.float32)[:, None]
    arrays = [
        RaggedInput(tensor("x", 1, -1), [column], [0.0], starts, lengths),
        matrix,
        DenseInput(tensor("w", 1), weights),
    ]
    rows = rows_of(arrays, [tensor("y", -1), tensor("z", 1)], max_batch_size=8)
    assert not rows.inputs.is_ragged

    def model(batch):
        x, u, w = batch.tensors
        assert x.shape[2] == u.shape[1] == u.shape[2]
        assert len(x) <= 8
        assert len(x) == 1 or len(x) * x.shape[2] <= budget
        return {"y": np.einsum("rij,rj->ri", u, x[:, 0]), "z": w}

    run(rows, model, lengths=Lengths(exact=True), cell_budget=budget, backwards=True)
    assert rows.outputs.complete
    np.testing.assert_array_equal(rows.outputs.dense("z"), weights)
    found = ak.Array(rows.outputs.nested("y"))
    for row, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        np.testing.assert_allclose(found[row], squares[row] @ column[start : start + size], rtol=1e-5, atol=1e-5)
