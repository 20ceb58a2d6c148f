"""The chunks of a sample, which are drawn from files of all sizes, and the table of an estimate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from eaf_inference.dataset.contents import Contents
from eaf_inference.dataset.extrapolation import Quantity
from eaf_inference.dataset.forecast import Estimate
from eaf_inference.dataset.parts import File, Part
from eaf_inference.dataset.population import Chunk
from eaf_inference.dataset.sampler import Sampler
from eaf_inference.dataset.sampling import places, range_at


def test_every_beginning_of_a_sample_is_spread_over_small_and_large_files():
    sizes = [1.0] * 100 + [50.0] * 2  # half of the data set each
    for number in (8, 16, 50):
        drawn = [file for file, _ in itertools.islice(places(sizes), number)]
        assert abs(sum(file >= 100 for file in drawn) - number / 2) <= 1
    assert drawn == [file for file, _ in itertools.islice(places(sizes), 50)]  # the same each time


def test_places_in_a_large_file_are_spread_over_all_of_it():
    where = [at for _, at in itertools.islice(places([1.0]), 16)]
    assert np.histogram(where, bins=8, range=(0, 1))[0].tolist() == [2] * 8


def test_ranges_stay_inside_and_begin_where_reading_is_cheap():
    assert range_at(100, 200, [], 0.5, 10) == (150, 160)
    assert range_at(100, 200, [], 0.99, 10) == (190, 200)
    assert range_at(100, 103, [], 0.5, 10) == (100, 103)
    assert range_at(0, 300, [0, 100, 200], 0.5, 80) == (100, 200)  # a row group is near enough
    assert range_at(0, 300, [0, 100, 200], 0.99, 10) == (200, 210)  # only the beginning of a large one
    assert range_at(120, 300, [0, 100, 200], 0.1, 10) == (120, 130)


def estimate_with(**changes):
    known = Quantity(0.0)
    names = ("events", "jets", "requests", "bytes_to_read", "bytes_to_send", "seconds")
    values = dict.fromkeys(names, known) | {"compute_seconds": None, "device": "", "remarks": ()}
    counts = {"model": "m", "files": 3, "chunks": 3, "threads": 2, "sampled": 1, "share": 0.1, "took": 1.0}
    return Estimate(**{**values, **counts, **changes})


def test_an_estimate_shows_as_many_digits_as_are_known():
    text = str(
        estimate_with(
            events=Quantity(1_234_567.0),
            jets=Quantity(2_345_678.0, 34_567.0),
            bytes_to_send=Quantity(3.4567e9, 0.2e9),
            seconds=Quantity(754.0, 60.0),
            requests=Quantity(50.0, math.inf),
        )
    )
    rows = {line.split("  ")[0]: " ".join(line.split("  ")[1:]).split() for line in text.splitlines()[2:]}
    assert rows["events"] == ["1,234,567", "known"]
    assert rows["jets"] == ["2,346,000", "2,311,000", "to", "2,380,000"]
    assert rows["to send"] == ["3.46", "GB", "3.26", "GB", "to", "3.66", "GB"]
    assert rows["time with 2 threads"] == ["12.6", "min", "11.6", "min", "to", "13.6", "min"]
    assert rows["requests"] == ["50", "not", "known"]
    assert rows["server compute time"] == ["not", "known"]


def test_only_time_on_a_gpu_is_called_gpu_minutes():
    spent = Quantity(600.0, 60.0)
    text = str(estimate_with(compute_seconds=spent, device="GPU"))
    assert "GPU-minutes (server compute time)  10.0      9.0 to 11.0" in text
    for device in ("CPU", ""):
        text = str(estimate_with(compute_seconds=spent, device=device))
        assert "GPU" not in text
        assert "10.0 min" in text


def test_remarks_are_shown_as_text_in_html():
    assert "<b>" not in estimate_with(remarks=("a <b> file",))._repr_html_()


def test_pieces_that_overlap_count_once():
    edges = np.array([0.0, 100.0])
    contents = Contents([(0, 100)], [], edges, edges * (1 << 16), edges)
    sampler = Sampler([Chunk(Part(0, File("a.root"), 0, 100), None, contents)], 1)
    drawn = [sampler.draw()[0][0] for _ in range(12)]
    entries = {entry for part in drawn for entry in range(part.start, part.stop)}
    assert sampler.share == 1
    assert sampler.covered == pytest.approx(len(entries) / 100)
    assert sampler.covered < 1
