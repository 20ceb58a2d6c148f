"""What a data set of very many files consists of, of which only some are opened."""

from __future__ import annotations

import numpy as np
import pytest

from eaf_inference.dataset import population
from eaf_inference.dataset.contents import Contents
from eaf_inference.dataset.parts import File
from eaf_inference.errors import UnreadableFile


def data_set(monkeypatch, *, files, bad=0.0, seed=0):
    """Let files be of sizes from 1 to 1000, and have fewer events in a byte the larger they are."""
    rng = np.random.default_rng(seed)
    sizes = 10 ** rng.uniform(0, 3, files)
    entries = np.round(100 * np.sqrt(sizes) * rng.uniform(0.7, 1.3, files))
    wrong = rng.random(files) < bad
    opened = []

    def contents_of(found, *_arguments, **_options):
        number = int(found.path)
        opened.append(number)
        if wrong[number]:
            raise UnreadableFile(f"{found} is damaged.")
        edges = np.array([0.0, entries[number]])
        return Contents([(0, int(entries[number]))], [], edges, edges * 8, edges * 4)

    monkeypatch.setattr(population, "contents_of", contents_of)
    monkeypatch.setattr(population, "stored_size", lambda found: sizes[int(found.path)])
    found = population.population_of([File(str(number)) for number in range(files)], None, None)
    return found, entries[~wrong].sum(), len(opened)


def test_files_that_are_not_opened_count_like_those_of_their_size(monkeypatch):
    deviations = []
    for seed in range(10):
        found, true, opened = data_set(monkeypatch, files=3000, seed=seed)
        assert opened == 256
        assert found.files == 3000
        assert found.totals.parts.value == 3000
        assert abs(found.totals.entries.value / true - 1) < 0.06
        deviations.append((found.totals.entries.value - true) / found.totals.entries.error)
    assert np.abs(deviations).max() < 3.5
    assert 0.3 < np.std(deviations) < 1.7


def test_unreadable_files_among_those_opened_stand_for_others(monkeypatch):
    found, true, _ = data_set(monkeypatch, files=3000, bad=0.2)
    assert found.files == pytest.approx(2400, abs=200)
    assert found.totals.entries.value == pytest.approx(true, rel=0.12)
    assert len(found.unreadable) > 20


def test_few_files_are_all_opened_and_their_numbers_are_known(monkeypatch):
    found, true, opened = data_set(monkeypatch, files=100, bad=0.2)
    assert opened == 100
    assert (found.totals.entries.value, found.totals.entries.error) == (true, 0)
    with pytest.raises(UnreadableFile):
        data_set(monkeypatch, files=3, bad=1.0)
