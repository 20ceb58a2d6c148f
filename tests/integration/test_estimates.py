"""An estimate before a run: what it says is what the run does, bad files are left out, and it spoils nothing."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from eaf_inference.errors import InvalidInput, UnreadableFile


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """12 files of 50 to 400 events, with 1 to 5 jets each and 5 to 60 constituents, in two formats."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(17)
    paths = []
    for number in range(12):
        in_event = rng.poisson(rng.uniform(1, 5), rng.integers(50, 400))
        in_jet = rng.poisson(rng.uniform(5, 60), in_event.sum())
        x = ak.unflatten(ak.unflatten(rng.random(in_jet.sum(), np.float32), in_jet), in_event)
        path = folder / f"{number}.parquet"
        if number % 2:
            ak.to_parquet(ak.zip({"x": x}, depth_limit=1), path)
        else:
            path = path.with_suffix(".root")
            with uproot.recreate(path) as file:  # which holds no lists of lists
                file["Events"] = {"x": ak.flatten(x, axis=1)} | {"unused": rng.random(len(in_jet))}
        paths.append(str(path))
    return paths


@pytest.fixture
def model(connection):
    return connection.model("sums")


def select(events):
    return [events.x, events.x]


def test_an_estimate_is_about_what_the_run_then_does(connection, model, files, pool):
    estimate = connection.estimate(model, files, select=select, client=pool, progress=False)
    before = connection.traffic.totals()
    with connection.submit(model, files, select=select, client=pool, progress=False) as run:
        events = sum(result.entries for result in run.as_completed())
    after = connection.traffic.totals()
    assert (estimate.events.value, estimate.events.error) == (events, 0)
    for found, true in (
        (estimate.jets, run.summary.jets),
        (estimate.requests, after["requests"] - before["requests"]),
        (estimate.bytes_to_send, after["bytes"] - before["bytes"]),
    ):
        assert abs(found.value / true - 1) < 0.25
    assert (estimate.files, estimate.chunks, estimate.threads) == (12, 12, 2)
    assert estimate.bytes_to_read.value > 0
    assert estimate.compute_seconds.value > 0
    assert estimate.device == "CPU"  # so no GPU is mentioned
    assert "GPU" not in str(estimate)


def test_bad_files_are_reported_and_left_out_of_an_estimate(connection, model, files, pool, tmp_path):
    opened = tmp_path / "cut.parquet"  # its list of contents is good and its data is not
    good = bytearray(Path(files[1]).read_bytes())
    good[4:2000] = bytes(1996)
    opened.write_bytes(good)
    (tmp_path / "text.root").write_text("no tree", encoding="utf-8")
    some = [*files[:4], str(opened), str(tmp_path / "text.root"), str(tmp_path / "missing.parquet")]
    estimate = connection.estimate(model, some, select=select, client=pool, progress=False)
    assert estimate.files == 4
    with connection.submit(model, files[:4], select=select, client=pool, progress=False) as run:
        list(run)
    assert estimate.jets.value == pytest.approx(run.summary.jets, rel=0.1)
    text = str(estimate)
    assert "2 files cannot be read and are left out" in text
    assert str(opened) in text
    with pytest.raises(UnreadableFile, match="missing"):
        connection.estimate(model, some[-1:], select=select, client=pool, progress=False)
    with pytest.raises(UnreadableFile, match="cut"):
        connection.estimate(model, [str(opened)], select=select, client=pool, progress=False)


def test_an_iterator_is_refused_before_it_is_used_up(connection, model, files, pool):
    with pytest.raises(InvalidInput, match="use up"):
        connection.estimate(model, iter(files), client=pool)
    with pytest.raises(InvalidInput, match="empty"):
        connection.estimate(model, [], client=pool)


def test_arrays_steps_and_empty_files_are_estimated(connection, model, files, pool, tmp_path):
    array = {"x": ak.unflatten(np.ones(200, np.float32), [2] * 100)}
    arrays = [[array["x"], array["x"]]] * 3
    estimate = connection.estimate(model, arrays, client=pool, progress=False)
    assert (estimate.jets.value, estimate.jets.error) == (300, 0)
    steps = {"some": {"files": {files[0]: {"object_path": "Events", "steps": [[0, 20], [20, 30]]}}}}
    estimate = connection.estimate(model, steps, select=select, client=pool, progress=False)
    assert (estimate.events.value, estimate.jets.value, estimate.chunks) == (30, 30, 2)
    empty = tmp_path / "empty.parquet"
    ak.to_parquet(ak.from_parquet(files[1])[:0], empty)
    estimate = connection.estimate(model, [str(empty)], select=select, client=pool, progress=False)
    assert (estimate.events.value, estimate.jets.value, estimate.seconds.value) == (0, 0, 0)
