"""Totals of a data set from a sample, with their uncertainty, and the time that threads need for its chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eaf_inference.dataset.extrapolation import makespan, total


def a_data_set(rng, files=400):
    """Chunks with [1, entries, bytes], and jets: busy files have up to six times the jets of an event."""
    entries = rng.integers(200, 5000, files)
    busy = rng.uniform(1, 6, files)
    jets = rng.poisson(entries * busy)
    nbytes = 40 * entries + 300 * jets * rng.uniform(0.97, 1.03, files)
    return np.column_stack([np.ones(files), entries, nbytes]), jets.astype(float)


def test_a_sample_gives_the_total_and_errors_that_hold_as_often_as_said():
    rng = np.random.default_rng(17)
    deviations, errors = [], []
    for _ in range(200):
        columns, jets = a_data_set(rng)
        drawn = rng.choice(len(jets), 30, replace=False, p=columns[:, 2] / columns[:, 2].sum())
        found, _ = total(columns[drawn, 1:], jets[drawn], columns[:, 1:].sum(axis=0), drawn, np.ones(30, bool))
        deviations.append((found.value - jets.sum()) / found.error)
        errors.append(abs(found.value / jets.sum() - 1))
    assert np.mean(errors) < 0.01  # although jets per event differ by a factor of six
    assert 0.6 < np.mean(np.abs(deviations) < 1) < 0.85


def test_a_sample_of_everything_is_exact():
    columns, jets = a_data_set(np.random.default_rng(1), files=20)
    found, _ = total(columns, jets, columns.sum(axis=0), np.arange(20), np.ones(20, bool))
    assert found.value == pytest.approx(jets.sum())
    assert found.error == 0


def test_one_chunk_gives_no_error_but_says_so():
    found, _ = total([[10.0, 1000.0]], [30.0], [100.0, 10_000.0], [0], [True])
    assert found.value == pytest.approx(300)
    assert math.isinf(found.error)


def test_pieces_of_two_sizes_show_what_a_chunk_costs_besides_its_entries():
    sizes = np.array([100.0, 300.0] * 6)
    columns = np.column_stack([np.ones(12), sizes, 50 * sizes])
    seconds = 0.2 + 0.001 * sizes
    found, coefficients = total(columns, seconds, [3, 30_000, 1_500_000], np.arange(12), np.zeros(12, bool))
    assert found.value == pytest.approx(3 * 0.2 + 30)
    assert coefficients[0] == pytest.approx(0.2)


def test_empty_chunks_and_an_empty_data_set_cost_nothing_more():
    found, _ = total([[0.0, 10.0], [0.0, 10.0]], [0.0, 0.0], [0.0, 10.0], [0, 1], [False, False])
    assert found.value == 0
    found, _ = total([[0.0, 0.0]] * 3, [0.0] * 3, [0.0, 0.0], [0, 1, 2], [True] * 3)
    assert (found.value, found.error) == (0, 0)


def test_chunks_of_unknown_size_are_not_taken_for_nothing():
    columns = np.array([[1.0, 10, 0], [1, 20, 0], [1, 30, 0]])
    for known in (columns, columns * [1, 0, 0]):
        found, _ = total(known, [5.0, 5, 5], [4.0, 80, 0], np.arange(3), np.zeros(3, bool))
        assert found.value == pytest.approx(20, rel=0.4)


def test_threads_share_what_limits_them_and_the_last_chunk_runs_alone():
    assert makespan([1.0] * 8, 4, 4.0) == pytest.approx(2)
    assert makespan([1.0] * 8, 4, 2.0) == pytest.approx(4)  # four threads do twice as much as one
    assert makespan([1.0] * 3, 2, 1.0) == pytest.approx(3)  # the server is the limit
    assert makespan([1.0] * 3, 2, 1.25) == pytest.approx(2 / 1.25 + 1)
    assert makespan([5.0, 1.0, 1.0], 2, 2.0) == pytest.approx(5)
    assert makespan([], 2, 2.0) == 0
