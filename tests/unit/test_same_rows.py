"""Rows are recognised by every bit of them, wherever they are, and even if all hashes are equal."""

from __future__ import annotations

import numpy as np
import pytest
from builders import ragged, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.inference import same_rows
from eaf_inference.inference.graphs import Graphs
from eaf_inference.inference.inputs import DenseInput, Inputs, MatrixInput
from eaf_inference.inference.same_rows import KnownRows, rows_of_graphs, rows_of_inputs

VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan"), float("inf")])
ROWS = st.lists(st.lists(VALUES, max_size=3), max_size=12)


def rows(*arrays, number):
    return rows_of_inputs(Inputs(arrays, rows=number, max_batch_size=8))


def of_lists(lists):
    return rows(ragged(tensor("x", 1, -1), lists), number=len(lists))


def bits(row):
    return np.array(row, np.float32).tobytes()


@pytest.mark.parametrize("collide", [False, True])
@given(known=ROWS, others=ROWS)
def test_a_row_is_found_if_and_only_if_all_its_bits_are_known(collide, known, others):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(same_rows, "_BLOCK", 4)
        if collide:
            patch.setattr(same_rows, "_hashes", lambda _, chosen: np.zeros(len(chosen), np.uint64))
        places = KnownRows(of_lists(known)).places_of(of_lists(others))
    for number, (row, place) in enumerate(zip(others, places.tolist(), strict=True)):
        if place >= 0:
            assert bits(known[place]) == bits(row)
        if number < len(known) and bits(known[number]) == bits(row):
            assert place == number
        elif not collide:
            assert (place >= 0) == (bits(row) in map(bits, known))


def test_dense_rows_strings_and_masks_are_compared():
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    words = np.array([[b"a"], [b"b"], [b"c"], [b"d"]], object)
    masks = np.array([[True], [False], [True], [True]])

    def of(order, change=None):
        each = [array[order].copy() for array in (values, words, masks)]
        if change is not None:
            each[change][0] = (-0.0, b"z", False)[change]
        specs = tensor("v", 2, 3), tensor("w", 1, datatype="BYTES"), tensor("m", 1, datatype="BOOL")
        return rows(*map(DenseInput, specs, each), number=len(order))

    known = KnownRows(of([0, 1, 2, 3]))
    assert known.places_of(of([3, 3, 1])).tolist() == [3, 3, 1]
    for change in range(3):
        assert known.places_of(of([2, 1, 0], change)).tolist() == [-1, 1, 0]


def test_matrices_of_other_shapes_differ_though_their_numbers_agree():
    spec = tensor("m", -1, -1)
    known = KnownRows(rows(MatrixInput(spec, np.arange(9.0), np.array([[2, 3], [1, 3]])), number=2))
    other = MatrixInput(spec, np.r_[0:6, 6:9, 0:6].astype(float), np.array([[2, 3], [3, 1], [3, 2]]))
    assert known.places_of(rows(other, number=3)).tolist() == [0, -1, -1]


def test_rows_of_other_inputs_padding_or_shapes_are_never_equal():
    known = KnownRows(of_lists([[1.0], [2.0]]))
    spec = tensor("x", 1, -1)
    for other in (ragged(spec, [[1.0]], pad=-1.0), ragged(tensor("z", 1, -1), [[1.0]])):
        assert known.places_of(rows(other, number=1)).tolist() == [-1]
    dense = KnownRows(rows(DenseInput(spec, np.zeros((2, 1, 4), np.float32)), number=2))
    assert dense.places_of(rows(DenseInput(spec, np.zeros((2, 1, 5), np.float32)), number=2)).tolist() == [-1, -1]


def test_graphs_differ_by_nodes_edges_and_features():
    def graphs(nodes=(2, 0, 1), edges=(1, 0, 2), last=5.0, to=0):
        x = np.array([[1.0], [2.0], [last]], np.float32)
        index = np.array([[0, 0, 0], [1, 0, to]])
        return rows_of_graphs(Graphs(np.array(nodes), np.array(edges), {"x": x[: sum(nodes)]}, {}, index))

    known = KnownRows(graphs())
    assert known.places_of(graphs()).tolist() == [0, 1, 2]
    assert known.places_of(graphs(last=6.0)).tolist() == [0, 1, -1]
    assert known.places_of(graphs(edges=(1, 1, 1))).tolist() == [0, -1, -1]
    assert known.places_of(graphs(nodes=(1, 1, 1))).tolist() == [-1, -1, 2]
