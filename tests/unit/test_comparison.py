"""Served scores beside local ones: every kind of difference is found, and nothing else."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

from eaf_inference.deploy.comparison import compared

SCORES = ak.Array([[{"top": 0.25, "qcd": 0.75}], [], [{"top": 0.5, "qcd": 0.5}, {"top": 1.0, "qcd": 0.0}]])


def changed(array: np.ndarray, place: int, value: float) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def test_equal_scores_agree_and_are_counted():
    found = compared(SCORES, SCORES, 1e-5)
    assert (found.agree, found.values, found.largest) == (True, 6, 0.0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf])),
        (np.array([1.0, 2.0]), np.array([1.0, 2.001])),
        (np.array([1, 2]), np.array([1, 3])),
        (ak.Array(["top", "qcd"]), ak.Array(["top", "top"])),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (ak.Array([[1.0], []]), ak.Array([[], [1.0]])),
        ({"a": np.zeros(2)}, {"b": np.zeros(2)}),
        (SCORES, SCORES[["top"]]),
        (SCORES, SCORES[::-1]),
    ],
)
def test_each_difference_is_found_in_both_directions(ours, theirs):
    assert not compared(ours, theirs, 1e-5).agree
    assert not compared(theirs, ours, 1e-5).agree


def test_equal_nan_and_infinities_do_not_differ():
    odd = np.array([np.nan, np.inf, -np.inf, 0.0])
    assert compared(odd, odd.copy(), 1e-5).agree


def test_the_tolerance_is_relative_above_one():
    large = np.full(3, 1e6, np.float32)
    assert compared(large, changed(large, 1, 1e6 + 5), 1e-5).agree
    found = compared(large, changed(large, 1, 1e6 + 50), 1e-5)
    assert (found.beyond, found.where) == (1, "at number 1")


def test_no_rows_is_nothing_to_compare():
    assert str(compared(np.zeros((0, 2)), np.zeros((0, 2)), 1e-5)) == "there was nothing to compare"
