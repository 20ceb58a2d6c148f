"""Learning the size of requests, with simulated accelerators behind a queue and a network."""

from __future__ import annotations

import heapq
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from builders import ragged, rows_of, tensor

from eaf_inference.inference import tuning_store
from eaf_inference.inference.batching import batches
from eaf_inference.inference.inputs import DenseInput, Inputs, RaggedInput
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.tuning import Learned, Tuning, fixed_sizes
from eaf_inference.inference.window import Window

SPEC = ModelSpec("jets", "1", 1024, (tensor("x", 1, -1),), (tensor("y", 1),), None, {})
CLIENT = 100e-6, 2.5e-6  # seconds of this process for each request and row


def jets(number, seed=0):
    counts = np.clip(np.random.default_rng(seed).normal(72, 25, number).astype(np.int64), 1, None)
    column = np.zeros(int(counts.sum()), np.float32)
    ragged = RaggedInput(tensor("x", 1, -1), [column], [0.0], np.cumsum(counts) - counts, counts)
    return Inputs([ragged], rows=number, max_batch_size=1024)


def seconds_for(inputs, shape, tuning, *, request, cell, latency, instances=2):
    """Return the time that a client needs for all rows, on accelerators that serve requests in turn."""
    now, previous = 0.0, None
    free, flying, window = [0.0] * instances, [], Window(16)

    def receive(*, full):
        nonlocal now, previous
        ended, started, cells, in_flight = heapq.heappop(flying)
        now = max(now, ended)
        window.replied(ended - started, cells, in_flight)
        tuning.answered(cells, ended - started)
        if full and previous is not None:
            tuning.followed(cells, ended - previous)
        previous = ended

    for batch in batches(inputs, [Lengths()], shape):
        while flying and len(flying) >= window.size:
            receive(full=True)
        now += CLIENT[0] + CLIENT[1] * batch.size
        starts = max(heapq.heappop(free), now + latency / 2)
        heapq.heappush(free, starts + request + cell * batch.cells)
        heapq.heappush(
            flying, (starts + request + cell * batch.cells + latency / 2, now, batch.cells, len(flying) + 1)
        )
    while flying:
        receive(full=False)
    return now


@pytest.mark.parametrize("latency", [0.0, 0.01])
@pytest.mark.parametrize(
    ("request_seconds", "cell"), [(0.2e-3, 50e-9), (1e-3, 200e-9), (5e-3, 50e-9), (20e-3, 10e-9)]
)
def test_batches_come_near_the_best_fixed_size_on_any_accelerator(request_seconds, cell, latency):
    inputs = jets(100_000)
    stated = {"request": request_seconds, "cell": cell, "latency": latency}
    tuning = Tuning()
    learned = seconds_for(inputs, tuning.shape, tuning, **stated)
    fixed = [
        seconds_for(inputs, fixed_sizes(budget), Tuning(), **stated) for budget in (8192, 32_768, 131_072, 524_288)
    ]
    assert learned <= min(fixed) / 0.85
    assert learned <= fixed[0]


def test_a_pause_now_and_then_does_not_make_requests_small():
    class Pausing(Tuning):
        def followed(self, cells, seconds):
            super().followed(
                cells, seconds + (self.learned.replies % 100 == 99)
            )  # as while a TCP segment is sent again

    inputs, stated = jets(300_000), {"request": 20e-3, "cell": 10e-9, "latency": 0.0}
    steady, pausing = Tuning(), Pausing()
    expected = seconds_for(inputs, steady.shape, steady, **stated)
    assert seconds_for(inputs, pausing.shape, pausing, **stated) < 1.5 * expected


def test_a_slow_server_keeps_small_requests():
    tuning = Tuning()
    sizes = []

    def shape(cell_bytes, *, dense=False):
        made = tuning.shape(cell_bytes)
        sizes.append(made.cells)
        return made

    seconds_for(jets(3000), shape, tuning, request=1e-3, cell=8e-6, latency=0.0, instances=1)
    assert max(sizes) == 8192  # 65 ms each


def test_times_that_are_known_are_shown_and_found_again():
    tuning = Tuning()
    assert "not known yet" in str(tuning)
    for cells in np.tile([8192.0, 32_768.0, 131_072.0], 8):
        tuning.followed(cells, 0.005 + 50e-9 * cells)
    assert tuning.request_seconds == pytest.approx(0.005, rel=1e-6)
    assert tuning.cell_seconds == pytest.approx(50e-9, rel=1e-6)
    text = str(tuning)
    for part in ("5.00 ms", "50.0 ns", "100,000 cells", "24 replies"):
        assert part in text
    again = Tuning(tuning.learned)
    assert again.request_seconds == tuning.request_seconds
    other = Tuning()
    other.adopt(tuning.learned)
    other.adopt(Learned())  # less than is known
    assert other.cell_seconds == tuning.cell_seconds


def test_what_is_learned_is_kept_when_much_of_it_is_new():
    kept = []
    tuning = Tuning(keep=kept.append)
    for number in range(200):
        tuning.followed(8192.0, 0.005)
        if number % 10 == 0:
            tuning.call_ended()
    assert [each.replies for each in kept] == [71, 141]


def test_a_server_without_memory_gets_smaller_requests_from_then_on():
    tuning = Tuning()
    for cells in np.tile([8192.0, 131_072.0], 8):
        tuning.followed(cells, 0.005 + 50e-9 * cells)
    for _ in range(8):
        assert tuning.shape(28).cells > 0
    tuning.refused(100_000)
    assert max(tuning.shape(28).cells for _ in range(40)) == 50_000
    tuning.refused(400_000)  # one that was sent before the refusal
    assert max(tuning.shape(28).cells for _ in range(40)) == 50_000
    tuning.refused(1)
    assert tuning.shape(28).cells == 1
    assert "fit the server's memory" in str(tuning)


def test_requests_grow_again_after_memory_was_short_for_a_moment():
    tuning = Tuning()
    tuning.refused(1)
    for number in range(100):
        tuning.followed(1.0, 0.005)
        assert tuning.shape(28).cells == 1, number
    for _ in range(6000):
        cells = tuning.shape(28).cells
        tuning.followed(float(cells), 0.005)
    assert cells >= 8192


def test_requests_stay_below_a_size_in_bytes():
    tuning = Tuning()
    for cells in np.tile([8192.0, 131_072.0], 8):
        tuning.followed(cells, 0.02 + 1e-9 * cells)
    assert max(tuning.shape(4096).cells for _ in range(40)) == (8 << 20) // 4096


def in_a_crowd(tuning, seconds, *, windows=12):
    """Return the sizes of batches while many share a server that takes so long for a request."""
    sizes = []
    for _ in range(windows):
        tuning.crowd.long = True
        tuning.crowd.readings += 2
        tuning.crowd.request_seconds = seconds(sizes[-1] if sizes else 8192)
        sizes.append(tuning.shape(64).cells)
    return sizes


def test_in_a_crowd_batches_grow_while_the_server_is_quick_with_them():
    gpu = in_a_crowd(Tuning(), lambda cells: 0.005 + 50e-9 * cells)
    assert gpu[-1] == (8 << 20) // 64
    slow_requests = in_a_crowd(Tuning(), lambda cells: 0.04 + 10e-9 * cells)
    assert slow_requests[-1] > 50_000
    processor = in_a_crowd(Tuning(), lambda cells: 0.0002 + 8e-6 * cells)
    assert set(processor) == {8192}
    between = in_a_crowd(Tuning(), lambda cells: 2e-6 * cells)
    assert max(between) <= 0.05 / 2e-6


def test_in_a_crowd_the_few_times_that_were_learned_are_forgotten():
    tuning = Tuning()
    for cells in np.tile([8192.0, 32_768.0], 8):
        tuning.followed(cells, 1.0 + 50e-9 * cells)  # others' requests came between
    assert tuning.request_seconds == pytest.approx(1.0, rel=0.01)
    tuning.crowd.long = True
    tuning.shape(64)
    assert tuning.request_seconds is None
    assert "many users share the server" in str(tuning)


def test_the_table_says_what_bounds_a_batch():
    def bound(cells, seconds):
        tuning = Tuning()
        for each in np.tile([8192.0, 131_072.0], 8):
            tuning.followed(each, seconds(each))
        for _ in range(8):
            tuning.shape(cells)
        return str(tuning)

    assert "nothing is known yet" in str(Tuning())
    assert "16 × the cost of a request" in bound(28, lambda cells: 0.4e-3 + 100e-9 * cells)
    assert "25 ms for the cells of a request" in bound(28, lambda cells: 5e-3 + 400e-9 * cells)
    assert "8 MiB for a request" in bound(4096, lambda cells: 5e-3 + 50e-9 * cells)
    assert "the fewest cells" in bound(28, lambda cells: 8e-6 * cells)
    tuning = Tuning()
    tuning.refused(9000)
    tuning.shape(28)
    assert "by                            the server's memory" in str(tuning)
    assert "cell_budget=500" in str(tuning.with_budget(500))
    tuning.full = "max_batch_size, 64 rows"
    assert "max_batch_size, 64 rows" in str(tuning)


def dense(number, width, most):
    return Inputs(
        [DenseInput(tensor("x", width), np.zeros((number, width), np.float32))], rows=number, max_batch_size=most
    )


def test_requests_of_fixed_shape_follow_the_cost_of_a_request_too():
    tuning = Tuning()

    def sent(inputs):
        return [batch.nbytes for batch in batches(inputs, [], tuning.shape)]

    rows = dense(200_000, 16, 1 << 30)
    assert set(sent(rows)[:-1]) == {4 << 20}  # as long as nothing is known
    for cells in np.tile([8192.0, 65_536.0], 8):
        tuning.followed(cells, 0.0003 + 1e-6 * cells)
    assert max(sent(rows)) == 4 << 20
    for cells in np.tile([8192.0, 65_536.0], 300):
        tuning.followed(cells, 0.0003 + 1e-5 * cells)
    assert max(sent(rows)) == pytest.approx(25_000 * 64, rel=1e-3)  # 250 ms
    for cells in np.tile([8192.0, 65_536.0], 300):
        tuning.followed(cells, 0.01 + 1e-9 * cells)
    assert max(sent(rows)) == 8 << 20
    assert max(sent(dense(5000, 16, 1000))) == 1000 * 64  # max_batch_size
    tuning.refused(10_000)
    assert max(sent(rows)) == 5000 * 64


def test_rows_of_fixed_shape_count_as_cells_of_a_jagged_model():
    made = Inputs([DenseInput(tensor("x", 16, -1), np.zeros((4, 16, 100), np.float32))], rows=4, max_batch_size=8)
    (batch,) = batches(made, [], fixed_sizes(8192))
    assert batch.cells == 400


def test_halves_of_a_batch_hold_all_of_its_rows():
    rows = rows_of([ragged(tensor("x", 1, -1), [[1.0], [2, 3], [4], [5]])], [tensor("y")])
    (batch,) = batches(rows.inputs, [Lengths()], fixed_sizes(10_000))
    first, last = batch.halves()
    assert sorted([*first.rows, *last.rows]) == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.concatenate([first.tensors[0], last.tensors[0]]), batch.tensors[0])
    for half in (first, last):
        rows.outputs.put(half, {"y": half.tensors[0].sum(axis=(1, 2))})
    assert rows.outputs.dense("y").tolist() == [1, 5, 4, 5]
    assert first.halves()[0].halves() == ()


def test_a_tuning_is_kept_for_the_next_session(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    urls = ["grpc://a:1"]
    assert tuning_store.load(urls, SPEC) is None
    learned = Learned(replies=9, n=9.0, x=1e5, xx=2e9, y=0.1, xy=2e3, yy=0.002, cells=65_536.0)
    tuning_store.save(urls, SPEC, learned)
    assert tuning_store.load(urls, SPEC) == learned
    assert tuning_store.load(["grpc://b:1"], SPEC) is None
    assert tuning_store.load(urls, replace(SPEC, version="2")) is None
    for port in range(2, 130):
        tuning_store.save([f"grpc://a:{port}"], SPEC, learned)
    assert len(list((tmp_path / "eaf-inference" / "tuning").iterdir())) == 100
    for path in (tmp_path / "eaf-inference" / "tuning").iterdir():
        path.unlink()
    tuning_store.save(urls, SPEC, learned)
    (path,) = (tmp_path / "eaf-inference" / "tuning").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    kept = json.loads(path.read_text())
    wrong = [
        {"x": "many"},
        {"y": 0.0},
        {"n": math.nan},
        {"n": 1e-320},
        {"cells": math.inf},
        {"cells": 0.0},
        {"x": 1e200},
        {"most": -1},
    ]
    for damage in ("", "[]", "[" * 4096, json.dumps({"n": 1}), *(json.dumps({**kept, **change}) for change in wrong)):
        path.write_text(damage)
        assert tuning_store.load(urls, SPEC) is None
