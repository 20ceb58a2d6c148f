"""Scores come back from their files as they were, whole or not at all, whatever happened in between."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import permutations

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("pyarrow")

from score_files import JAGGED, MADE, print_of, results, tree_of

from eaf_inference.dataset import output
from eaf_inference.dataset.parts import File, Part
from eaf_inference.dataset.results import Result
from eaf_inference.dataset.writing import Outputs, write
from eaf_inference.errors import InvalidInput


@pytest.fixture
def pieces(monkeypatch):
    """Pieces of five rows instead of many."""
    monkeypatch.setattr(output, "ROWS", 5)


KINDS = {
    "float16": np.arange(12, dtype=np.float16),
    "float64 matrix": np.arange(24.0).reshape(12, 2),
    "int64": np.arange(12),
    "bool": np.arange(12) % 2 == 0,
    "jagged": JAGGED,
    "classes of jets": ak.zip({"top": JAGGED, "qcd": 2 * JAGGED}),
    "classes": ak.zip({"top": np.arange(12.0), "w z": np.arange(12, dtype=np.int32)}),
    "missing": ak.Array([None, 1.0, 2.0] * 4),
    "missing lists": ak.Array([None, [1.0, None], []] * 4),
    "missing records": ak.Array([None, {"a": 1.0, "b": [1, 2]}] * 6),
    "missing rows of a matrix": ak.mask(np.arange(24.0).reshape(12, 2), np.arange(12) % 3 > 0),
    "deep": ak.Array([[[1.0], []], [], [[2.0, 3.0]]] * 4),
    "strings": ak.Array(["a", "", "b c"] * 4),
    "objects": np.array(["a", "", "b c"] * 4, dtype=object),
    "tuples": ak.zip((np.arange(12.0), np.arange(12))),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [(), (0, 1, 4, 6, 6, 11)])
def test_scores_come_back_with_their_type_and_entry_numbers(tmp_path, pieces, kind, cuts):
    scores, file = KINDS[kind], File("/data/a.root", "Events", "qcd")
    event = np.arange(12, dtype=np.uint64) + 2**60
    written = write(results(file, scores, cuts, ids={"event": event}), tmp_path, provenance=MADE)
    path = Outputs(tmp_path, MADE).path_of(file)
    back = ak.from_parquet(path)
    expected = ak.from_iter(scores.tolist()) if kind == "objects" else ak.Array(scores)
    assert back.scores.type.content == expected.type.content
    assert back.scores.tolist() == expected.tolist()
    assert (back.entry.tolist(), back.event.tolist()) == (list(range(12)), event.tolist())
    assert (written.files, written.entries, written.bytes, written.incomplete) == (1, 12, path.stat().st_size, [])
    assert ak.from_parquet(tmp_path).entry.tolist() == list(range(12))


MISSING = {
    "of jets": (ak.mask(JAGGED, np.arange(12) != 7), 0),
    "of classes": (ak.mask(KINDS["classes"], np.arange(12) != 10), 0),
    "of rows of a matrix": (ak.mask(np.arange(24.0).reshape(12, 2), np.arange(12) > 0), 0),
    "inside": (ak.mask(JAGGED, JAGGED != 2.5), 1),
    "of records inside": (ak.mask(KINDS["classes of jets"], JAGGED < 2), 1),
}


@pytest.mark.parametrize("what", MISSING)
def test_only_some_parts_may_have_missing_scores(tmp_path, pieces, what):
    """A model's scores have a type that allows missing values only if some are."""
    scores, axis = MISSING[what]
    file, made = File("/data/a.root", "Events", "qcd"), set()
    for n, cuts in enumerate([(), (1, 2, 3), (6,), (1, 8), (11,)]):
        parts = results(file, scores, cuts, ids={"event": np.arange(12)})
        parts = [
            each
            if ak.any(ak.is_none(each.scores, axis=axis))
            else replace(each, scores=ak.drop_none(each.scores, axis))
            for each in parts
        ]
        write(parts, tmp_path / str(n), provenance=MADE)
        made.add(str(tree_of(tmp_path / str(n))))
        [path] = (tmp_path / str(n)).rglob("*.parquet")
        back = ak.from_parquet(path)
        assert (back.scores.type.content, back.scores.tolist()) == (scores.type.content, scores.tolist())
        assert back.entry.tolist() == back.event.tolist() == list(range(12))
    assert len(made) == 1


ALL_MISSING = {
    "lists": ak.Array([[1.0, None]]),
    "rows of a matrix": ak.Array(np.ones((1, 2))),
    "strings": ak.Array(["a"]),
    "records of lists": ak.Array([{"a": [1.0], "b": [[2]]}]),
    "records of what may be missing": ak.Array([{"a": [1.0]}, {"a": None}])[:1],
    "deep": ak.Array([[[1.0, None], None]]),
}


@pytest.mark.parametrize("kind", ALL_MISSING)
@pytest.mark.parametrize("inside", [False, True])
def test_all_scores_of_a_file_or_a_piece_may_be_missing(tmp_path, pieces, kind, inside):
    scores = ALL_MISSING[kind][[0] * 12]
    scores = scores[:, np.newaxis] if inside else scores
    missing = ak.Array([[None]] * 12) if inside else ak.Array([None] * 12)
    for n, first in enumerate([0, 6, 11]):  # the entries from this one on
        there = np.arange(12) < first
        expected = ak.mask(scores, ak.Array(there[:, np.newaxis]) if inside else there)
        write(results(File("/data/a.root"), expected, (3, 7)), tmp_path / str(n), provenance=MADE)
        [path] = (tmp_path / str(n)).rglob("*.parquet")
        back = ak.from_parquet(path)
        assert back.scores.type.content == expected.type.content
        assert back.scores.tolist() == expected.tolist()
        assert back.scores.tolist()[first:] == missing.tolist()[first:]


def test_the_bytes_depend_on_the_scores_alone(tmp_path, pieces):
    file = File("/data/a.root", "Events", "qcd")
    for kind, scores in KINDS.items():
        made = set()
        for n, cuts in enumerate([(), (1, 2, 3), (5, 10), (7,)]):
            directory = tmp_path / f"{kind} {n}"
            parts = results(file, scores, cuts, number=n)
            if n == 3 and kind != "objects":  # other memory, same values
                parts = [replace(each, scores=ak.Array(each.scores)[::-1][::-1]) for each in parts]
            write(parts, directory, provenance=replace(MADE, fingerprint=print_of(1.0)))
            made.add(str(tree_of(directory)))
        assert len(made) == 1, kind


def test_two_jobs_together_write_what_one_run_writes(tmp_path, pieces):
    files = [File(f"/data/{n}/part.root", "Events", "qcd") for n in range(6)]
    each = [results(file, np.arange(8.0) + n, (3,), n) for n, file in enumerate(files)]
    write([part for parts in each for part in parts], tmp_path / "one", provenance=MADE)
    jobs = [Outputs(tmp_path / "two", replace(MADE, server=f"grpc://{n}")) for n in "aa"]
    threads = [
        threading.Thread(target=job.write, args=([part for parts in each[n::2] for part in parts],))
        for n, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tree_of(tmp_path / "one") == tree_of(tmp_path / "two")
    assert len(list((tmp_path / "two").rglob("part-*.parquet"))) == 6


def test_parts_of_files_that_take_turns_go_to_their_files(tmp_path, pieces):
    files = [File(f"/data/{n}.parquet") for n in range(3)]
    each = [results(file, np.arange(12.0) + 100 * n, (2, 5), n) for n, file in enumerate(files)]
    written = write([parts[k] for k in range(3) for parts in each[::-1]], tmp_path, provenance=MADE)
    assert written.files == 3
    for n, file in enumerate(files):
        back = ak.from_parquet(Outputs(tmp_path, MADE).path_of(file))
        assert (back.scores - back.entry).tolist() == [100 * n] * 12


@pytest.mark.parametrize("order", [(0, 2), (1, 2), (0, 1), (2, 1), (0,)])
def test_a_file_that_lacks_a_part_gets_no_output(tmp_path, order):
    good, bad = File("/data/good.parquet"), File("/data/bad.parquet")
    parts = results(bad, np.arange(12.0), (3, 7), 1)
    parts = [replace(parts[n], last=n == order[-1] and 2 in order) for n in order]
    written = write(parts + results(good, np.arange(3.0)), tmp_path, provenance=MADE)
    assert (written.incomplete, written.files) == (["/data/bad.parquet"], 1)
    visible = [path.name for path in tmp_path.iterdir() if path.name != "_provenance.json"]
    assert visible == [Outputs(tmp_path, MADE).path_of(good).name]


@pytest.mark.parametrize("order", [*permutations(range(4))][::5])
def test_parts_in_any_order_give_the_same_file(tmp_path, pieces, order):
    file, scores = File("/data/a.parquet"), np.arange(12.0)
    parts = results(file, scores, (3, 7, 8))
    write(parts, tmp_path / "sorted", provenance=MADE)
    mixed = [replace(parts[n], last=n == order[-1]) for n in order]
    assert write(mixed, tmp_path / "mixed", provenance=MADE).files == 1
    assert tree_of(tmp_path / "mixed") == tree_of(tmp_path / "sorted")
    assert write([parts[0], *parts], tmp_path / "twice", provenance=MADE).incomplete


@pytest.mark.parametrize("steps", [((0, 4), (4, 8), (10, 12)), ((10, 12), (0, 4), (4, 4), (4, 8))])
def test_steps_have_the_entry_numbers_of_the_file(tmp_path, steps):
    file = File("/data/a.parquet", steps=steps)
    parts = [
        Result(Part(0, file, *step), np.arange(*step) / 2, step[1] - step[0], last=step is steps[-1])
        for step in steps
    ]
    path = Outputs(tmp_path, MADE).path_of(file)
    assert write([*parts[:1], replace(parts[-1], last=True)], tmp_path, provenance=MADE).incomplete
    assert not path.exists()
    assert write(parts, tmp_path, provenance=MADE).files == 1
    back = ak.from_parquet(path)
    assert back.entry.tolist() == [entry for step in steps for entry in range(*step)]
    assert (back.scores == back.entry / 2).tolist() == [True] * 10


def test_a_file_without_entries_has_an_output_of_the_same_type(tmp_path):
    file = File("/data/a.parquet")
    assert write(results(file, JAGGED[:0]), tmp_path, provenance=MADE).files == 1
    outputs = Outputs(tmp_path, MADE)
    assert str(ak.from_parquet(outputs.path_of(file)).type) == "0 * {entry: int64, scores: var * float64}"
    assert outputs.done(file)


def test_variations_have_a_column_each(tmp_path, pieces):
    file = File("/data/a.parquet")
    scores = {"nominal": JAGGED, "jes.Up": JAGGED + 1}
    write(results(file, scores, (2, 9)), tmp_path, provenance=MADE)
    back = ak.from_parquet(Outputs(tmp_path, MADE).path_of(file))
    assert back.fields == ["entry", "nominal", "jes.Up"]
    assert back["jes.Up"].tolist() == (JAGGED + 1).tolist()
    for wrong in ({"entry": JAGGED}, {"nominal": JAGGED, "up": JAGGED[1:]}):
        with pytest.raises(InvalidInput, match=r"the name 'entry'|different lengths"):
            write([Result(Part(0, file, 0, 12), wrong, 12)], tmp_path / "wrong", provenance=MADE)


@pytest.mark.parametrize("dropped_in", [0, 1, 2])
def test_scores_without_their_entries_have_no_entry_numbers(tmp_path, pieces, dropped_in):
    file = File("/data/a.parquet")
    event = np.arange(12)
    parts = results(file, JAGGED, (2, 8), ids={"event": event})
    parts[dropped_in] = replace(parts[dropped_in], scores=parts[dropped_in].scores[1:])
    more = [replace(part, part=replace(part.part, number=1, file=File("/data/b.parquet"))) for part in parts]
    with pytest.warns(UserWarning, match=r"a\.parquet: .*no entry numbers.*ak\.mask") as caught:
        written = write(parts + more, tmp_path, provenance=MADE)
    assert len(caught) == 1
    assert "\n2 of these have no entry numbers" in str(written)
    outputs = Outputs(tmp_path, MADE)
    back = ak.from_parquet(outputs.path_of(file))
    kept = [row for entry, row in enumerate(JAGGED.tolist()) if entry != [0, 2, 8][dropped_in]]
    assert (back.fields, back.scores.tolist(), written.not_aligned) == (["scores"], kept, 2)
    assert outputs.done(file)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []


def test_scores_that_are_as_many_by_chance_have_no_entry_numbers(tmp_path):
    [part] = results(File("/data/a.parquet"), JAGGED)
    with pytest.warns(UserWarning, match="no entry numbers"):
        written = write([replace(part, aligned=False)], tmp_path, provenance=MADE)
    assert written.not_aligned == 1
    assert ak.from_parquet(Outputs(tmp_path, MADE).path_of(part.part.file)).fields == ["scores"]


def test_a_range_that_does_not_hold_its_entries_is_refused(tmp_path):
    part = Part(0, File("/data/a.parquet"), 0, 10)
    for result in (Result(part, np.arange(12.0), 12), Result(part, np.arange(10.0), 10, {"event": np.arange(9)})):
        with pytest.raises(InvalidInput, match=r"are 12 entries|event has 9 values"):
            write([result], tmp_path, provenance=MADE)


def test_scores_that_change_their_type_in_a_file_are_refused(tmp_path, pieces):
    parts = results(File("/data/a.parquet"), np.arange(12.0), (6,))
    parts[1] = replace(parts[1], scores=parts[1].scores.astype(np.float32))
    with pytest.raises(InvalidInput, match=r"entries 6 to 12.*float32.*float64"):
        write(parts, tmp_path, provenance=MADE)
    assert list(tmp_path.glob("*.parquet")) + list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("scores", [np.arange(3) + 1j, ak.Array([1, "a", [2]])])
def test_scores_that_parquet_cannot_hold_are_refused(tmp_path, scores):
    with pytest.raises(InvalidInput, match="cannot write scores of the types"):
        write(results(File("/data/a.parquet"), scores), tmp_path, provenance=MADE)


def test_an_array_has_no_name_to_write_its_scores_to(tmp_path):
    with pytest.raises(InvalidInput, match="is an array"):
        write([Result(Part(0, None, 0, 3), np.arange(3.0), 3)], tmp_path, provenance=MADE)
