"""Friend trees hold the scores of all entries in order, and refuse what a branch cannot hold."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("uproot")

import uproot
from score_files import JAGGED, MADE, results, tree_of

from eaf_inference.dataset import output
from eaf_inference.dataset.parts import File
from eaf_inference.dataset.writing import Outputs, write
from eaf_inference.errors import ConfigurationError, InvalidInput

FILE = File("/data/a.root", "Events", "qcd")
CLASSES = ak.zip({"top": JAGGED, "w-z": 2 * JAGGED})
PLACES = np.arange(12)


def friend(directory, scores, cuts=(), file=FILE, **ids):
    written = write(results(file, scores, cuts, ids=ids), directory, format="root", provenance=MADE)
    assert (written.files, written.entries) == (
        1,
        len(next(iter(scores.values())) if isinstance(scores, dict) else scores),
    )
    return uproot.open(Outputs(directory, MADE, "root").path_of(file))


@pytest.mark.parametrize("cuts", [(), (0, 1, 4, 6, 6, 11)])
@pytest.mark.parametrize(
    ("scores", "branches"),
    [
        (np.arange(12, dtype=np.float32), {"scores": np.arange(12, dtype=np.float32)}),
        (np.arange(12) % 2 == 0, {"scores": np.arange(12) % 2 == 0}),
        (np.arange(24.0).reshape(12, 2), {"scores": np.arange(24.0).reshape(12, 2)}),
        (JAGGED, {"nscores": ak.num(JAGGED), "scores": JAGGED}),
        (CLASSES, {"nscores": ak.num(JAGGED), "scores_top": JAGGED, "scores_w_z": 2 * JAGGED}),
        (ak.zip({"a": PLACES / 2, "b": PLACES}), {"scores_a": PLACES / 2, "scores_b": PLACES}),
        ({"nominal": JAGGED, "up": PLACES}, {"nnominal": ak.num(JAGGED), "nominal": JAGGED, "up": PLACES}),
        (ak.mask(JAGGED, [True] * 12), {"nscores": ak.num(JAGGED), "scores": JAGGED}),
    ],
)  # fmt: skip
def test_branches_hold_the_scores_of_all_entries(tmp_path, monkeypatch, scores, branches, cuts):
    monkeypatch.setattr(output, "ROWS", 5)
    event = np.arange(12, dtype=np.uint64) + 2**60
    with friend(tmp_path, scores, cuts, event=event) as file:
        tree = file["scores"]
        assert tree.keys() == ["entry", "event", *branches]
        assert tree["entry"].array().tolist() == list(range(12))
        assert tree["event"].array().tolist() == event.tolist()
        for name, expected in branches.items():
            found = tree[name].array()
            assert found.tolist() == ak.to_list(expected)
            assert name[0] == "n" or found.type.content == ak.type(ak.Array(expected)).content
        metadata = json.loads(file["eaf_inference"])
        assert (metadata["model"], metadata["entries"], metadata["input"]["path"]) == ("m", 12, "/data/a.root")


def test_a_friend_of_a_tree_without_entries_has_its_branches(tmp_path):
    with friend(tmp_path, CLASSES[:0]) as file:
        assert file["scores"].num_entries == 0
        assert file["scores"].keys() == ["entry", "nscores", "scores_top", "scores_w_z"]


@pytest.mark.parametrize(
    "scores",
    [
        ak.Array([[[1.0], []], []]),
        ak.Array([[{"a": [1.0]}], []]),
        ak.Array(["a", "b"]),
        ak.Array([["a"], []]),
        ak.Array([1.0, None]),
        ak.Array([[1.0, None], []]),
        ak.Array([None, [1.0]]),
        np.arange(2, dtype=np.float16),
        ak.to_regular(ak.Array([[[1.0, 2.0]], [[3.0, 4.0]]]), axis=2),
        np.arange(2) + 1j,
        ak.zip({"w z": [1.0, 2.0], "w-z": [1.0, 2.0]}),
    ],
)
def test_scores_that_a_branch_cannot_hold_are_refused(tmp_path, scores):
    with pytest.raises(InvalidInput, match="format='parquet'"):
        write(results(FILE, scores), tmp_path, format="root", provenance=MADE)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["_provenance.json"]


def test_scores_that_are_missing_in_a_later_part_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "ROWS", 5)
    parts = results(FILE, np.arange(12.0), (8,))
    parts[1] = replace(parts[1], scores=ak.mask(parts[1].scores, np.arange(4) > 0))
    with pytest.raises(InvalidInput, match=r"a\.root.*entries 8 to 12 are missing.*format='parquet'"):
        write(parts, tmp_path, format="root", provenance=MADE)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["_provenance.json"]


def test_a_friend_tree_without_some_of_the_entries_is_refused(tmp_path):
    [part] = results(FILE, JAGGED)
    for scores in (JAGGED[1:], ak.concatenate([JAGGED, JAGGED])):
        with pytest.raises(InvalidInput, match=r"not one score for each entry.*ak\.mask"):
            write([replace(part, scores=scores)], tmp_path, format="root", provenance=MADE)
    assert list(tmp_path.rglob("*.root")) == []


def test_steps_of_a_friend_tree_must_cover_all_entries(tmp_path):
    source = tmp_path / "a.root"
    with uproot.recreate(source) as file:
        file.mktree("Events", {"pt": "float64"}).extend({"pt": np.arange(12.0)})
    whole = File(str(source), "Events", steps=((0, 4), (4, 12)))
    assert friend(tmp_path / "out", JAGGED, (4,), whole)["scores"].num_entries == 12
    assert friend(tmp_path / "only", JAGGED, (4,), replace(whole, tree=""))["scores"].num_entries == 12
    ak.to_parquet(ak.Array({"pt": np.arange(12.0)}), tmp_path / "a.parquet")
    table = replace(whole, path=str(tmp_path / "a.parquet"), tree="")
    assert friend(tmp_path / "of parquet", JAGGED, (4,), table)["scores"].num_entries == 12
    with uproot.recreate(tmp_path / "none.root") as file:
        file.mktree("Events", {"pt": "float64"})
    none = File(str(tmp_path / "none.root"), "Events", steps=((0, 0),))
    assert friend(tmp_path / "empty", JAGGED[:0], (), none)["scores"].num_entries == 0
    for file in (replace(whole, steps=((0, 4), (4, 8))), replace(whole, steps=((4, 12), (0, 4)))):
        with pytest.raises(InvalidInput, match="has 12 entries, and its steps are"):
            write(results(file, JAGGED[:8], (4,)), tmp_path / "out", format="root", provenance=MADE)
    with pytest.raises(InvalidInput, match="number of entries cannot be read here"):
        friend(tmp_path / "out", JAGGED, (4,), replace(whole, path=str(tmp_path / "gone.root")))


def test_a_damaged_friend_tree_is_not_done_and_is_replaced(tmp_path):
    friend(tmp_path, JAGGED).close()
    outputs = Outputs(tmp_path, MADE, "root")
    path = outputs.path_of(FILE)
    content = path.read_bytes()
    assert outputs.done(FILE)
    for damaged in (b"", content[:-100], content + b"more", b"tree" + content[4:], b"root"):
        path.write_bytes(damaged)
        assert not outputs.done(FILE)
    path.unlink()
    assert not outputs.done(FILE)
    outputs.write(results(FILE, JAGGED))
    assert outputs.done(FILE)


def test_two_formats_are_not_mixed(tmp_path):
    friend(tmp_path, JAGGED).close()
    before = tree_of(tmp_path)
    with pytest.raises(ConfigurationError, match="format: root there, parquet here"):
        Outputs(tmp_path, MADE, "parquet")
    assert tree_of(tmp_path) == before


def test_friend_trees_differ_in_their_times_alone(tmp_path):
    content = []
    for n, cuts in enumerate([(), (3, 7)]):
        with friend(tmp_path / str(n), JAGGED, cuts) as file:
            content.append(np.fromfile(file.file_path, np.uint8))
    assert len(content[0]) == len(content[1])
    assert np.count_nonzero(content[0] != content[1]) < 4 * 40  # times have four bytes


def test_a_full_disk_leaves_no_friend_tree(tmp_path, monkeypatch):
    outputs = Outputs(tmp_path, MADE, "root")

    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("eaf_inference.dataset.drafts.os.fsync", full)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        outputs.write(results(FILE, JAGGED))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["_provenance.json"]
