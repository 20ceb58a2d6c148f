"""A directory of scores: complete files, resumed after any end, of one model, with names that stay inside."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from score_files import JAGGED, MADE, print_of, results, tree_of

from eaf_inference.dataset import output
from eaf_inference.dataset.drafts import Draft, remove_leftovers
from eaf_inference.dataset.parts import File
from eaf_inference.dataset.writing import Outputs, write
from eaf_inference.errors import ConfigurationError


@pytest.fixture
def pieces(monkeypatch):
    """Pieces of five rows instead of many."""
    monkeypatch.setattr(output, "ROWS", 5)


def test_a_killed_writer_leaves_whole_files_and_the_next_run_the_rest(tmp_path):
    script = Path(__file__).with_name("killed_writers.py")
    done = subprocess.run([sys.executable, script, tmp_path, "61"], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_an_error_of_the_run_leaves_what_is_complete(tmp_path, pieces):
    files = [File(f"/data/{n}.parquet") for n in range(2)]

    def failing():
        yield from results(files[0], np.arange(12.0))
        yield from results(files[1], np.arange(12.0), (7,), 1)[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(failing(), tmp_path, provenance=MADE)
    outputs = Outputs(tmp_path, MADE)
    assert [outputs.done(file) for file in files] == [True, False]
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []
    assert outputs.write([]).skipped == 1


DAMAGE = {
    "empty": lambda _: b"",
    "cut": lambda content: content[:-100],
    "longer": lambda content: content + b"more",
    "its footer": lambda content: content[:-300] + bytes(200) + content[-100:],
    "not ours": lambda _: (Path(__file__).parents[2] / "notebooks" / "jets.parquet").read_bytes(),
    "text": lambda _: b"{}",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_output_is_not_done_and_is_replaced(tmp_path, damage):
    file = File("/data/a.parquet")
    write(results(file, JAGGED), tmp_path, provenance=MADE)
    outputs = Outputs(tmp_path, MADE)
    path = outputs.path_of(file)
    content = path.read_bytes()
    path.write_bytes(DAMAGE[damage](content))
    assert not outputs.done(file)
    outputs.write(results(file, JAGGED))
    assert path.read_bytes() == content
    assert outputs.done(file)


def test_an_input_that_changed_is_scored_again(tmp_path):
    source = tmp_path / "a.parquet"
    source.write_bytes(b"one")
    file, out = File(str(source), dataset="qcd"), tmp_path / "out"
    write(results(file, np.arange(3.0)), out, provenance=MADE)
    os.utime(source, (0, 0))
    assert Outputs(out, MADE).done(file)
    for other in (replace(file, tree="Runs"), replace(file, steps=((0, 2),)), replace(file, dataset="top")):
        assert not Outputs(out, MADE).done(other)
    source.write_bytes(b"two")
    outputs = Outputs(out, MADE)
    assert not outputs.done(file)
    source.write_bytes(b"six")  # while it is scored
    assert outputs.write(results(file, np.arange(3.0))).incomplete == [str(source)]


def test_scores_of_two_models_are_not_mixed(tmp_path):
    file = File("/data/a.parquet")
    write(results(file, JAGGED), tmp_path, provenance=MADE)
    before = tree_of(tmp_path)
    near = replace(MADE, fingerprint=print_of(1.001), server="grpc://b")
    assert Outputs(tmp_path, near).done(file)
    for other, what in [
        (replace(MADE, fingerprint=print_of(2.0)), "the model: the scores 'prob'"),
        (replace(MADE, fingerprint=print_of(version="2")), "the model"),
        (replace(MADE, select="cut (13)"), r"select: cut \(12\) there, cut \(13\) here"),
        (replace(MADE, schema="NanoAODSchema"), "schema: none there, NanoAODSchema here"),
    ]:
        with pytest.raises(ConfigurationError, match=what):
            Outputs(tmp_path, other)
        with pytest.raises(ConfigurationError, match="another directory"):
            write(results(file, JAGGED), tmp_path, provenance=other)
    assert tree_of(tmp_path) == before
    (tmp_path / "_provenance.json").unlink()
    with pytest.raises(ConfigurationError, match="the scores 'prob'"):
        Outputs(tmp_path, replace(MADE, fingerprint=print_of(2.0))).done(file)
    (tmp_path / "_provenance.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is damaged"):
        Outputs(tmp_path, MADE)


def test_an_output_records_what_made_it_and_no_time_or_secret(tmp_path):
    from pyarrow.parquet import read_metadata

    file = File("root://user:secret@eos//data/a.root", "Events", "qcd", metadata={"xsec": 1.0})
    write(results(file, JAGGED, (5,)), tmp_path, provenance=MADE)
    [path] = tmp_path.rglob("*.parquet")
    found = json.loads(read_metadata(path).metadata[b"eaf_inference"])
    assert found == {
        "model": "m",
        "version": "1",
        "recipe": "r0",
        "fingerprint": json.loads(print_of().to_json()),
        "select": "cut (12)",
        "schema": "",
        "server": "grpc://a",
        "input": {"dataset": "qcd", "path": "root://…@eos//data/a.root", "tree": "Events", "steps": [], "digest": ""},
        "ranges": [[0, 12]],
        "entries": 12,
        "scores": 12,
        "aligned": True,
    }
    assert b"secret" not in path.read_bytes()


@pytest.mark.parametrize(
    "file",
    [
        File("/data/../../etc/passwd", dataset="../.."),
        File("/data/..", dataset="/etc"),
        File("/a\n\0b.root", "Events", "\udcff $(rm) 'x'"),
        File("/data/" + "é" * 300 + ".parquet", dataset="d" * 300),
        File("https://host/a/b.root?token=abc/../../x", dataset="_hidden"),
        File("/data/-rf.root", dataset=".git"),
    ],
)
def test_hostile_names_stay_inside_the_directory(tmp_path, file):
    write(results(file, np.arange(3.0)), tmp_path / "out", provenance=MADE)
    [path] = (tmp_path / "out").rglob("*.parquet")
    assert path == Outputs(tmp_path / "out", MADE).path_of(file)
    assert re.fullmatch(
        r"[A-Za-z0-9][\w.=+-]*/[A-Za-z0-9][\w.=+-]*", str(path.relative_to(tmp_path / "out")), re.ASCII
    )
    assert "abc" not in str(path)


def test_names_are_readable_and_apart(tmp_path):
    outputs = Outputs(tmp_path, MADE)
    files = [
        File(f"/{n}/nano_1.root", "Events", d, s) for n in "ab" for d in ("", "qcd", "q/cd") for s in ((), ((0, 1),))
    ]
    names = [outputs.path_of(file).relative_to(tmp_path) for file in files]
    assert len({*names}) == len(files)
    assert all(name.name.startswith("nano_1-") for name in names)
    assert {str(name.parent) for name in names} == {".", "qcd", "q_cd"}


def test_cuts_into_other_steps_are_the_same_entries(tmp_path):
    parts = {}
    for n, cuts in enumerate([(0, 4, 12), (0, 12), (0, 6, 6, 12)]):
        steps = tuple(pairwise(cuts))
        each = results(File("/data/a.root", "Events", steps=steps), np.arange(12.0), cuts[1:-1])
        write(each, tmp_path / str(n), provenance=MADE)
        parts[steps] = tree_of(tmp_path / str(n))
    assert len({str(tree) for tree in parts.values()}) == 1
    outputs = Outputs(tmp_path / "0", MADE)
    assert all(outputs.done(File("/data/a.root", "Events", steps=steps)) for steps in parts)
    for other in ((), ((0, 0),), ((0, 11),), ((0, 4), (5, 12))):
        assert not outputs.done(File("/data/a.root", "Events", steps=other))


def test_a_file_that_is_given_twice_is_written_once(tmp_path):
    file = File("/data/a.parquet")
    each = [results(file, JAGGED, (4,), n) for n in range(2)]
    written = write([each[0][0], each[1][0], each[0][1], each[1][1]], tmp_path, provenance=MADE)
    assert (written.files, written.skipped, written.incomplete) == (1, 1, [])


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="Expected a directory in which you may create files"):
        Outputs(tmp_path / "file", MADE)
    with pytest.raises(ConfigurationError, match="Expected 'parquet'"):
        Outputs(tmp_path / "out", MADE, "csv")


def test_a_full_disk_is_an_error_and_what_is_complete_stays(tmp_path, monkeypatch):
    files, noise = [File(f"/data/{n}.parquet") for n in range(2)], np.random.default_rng(1).normal(size=40_000)
    outputs = Outputs(tmp_path, MADE)
    monkeypatch.setattr(output, "ROWS", 10_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def parts():
        yield from results(files[0], noise)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        yield from results(files[1], noise, (15_000,), 1)

    try:
        with pytest.raises(ConfigurationError, match=r"cannot be written.*free space.*go on"):
            outputs.write(parts())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.rglob(".*")) == []
    assert [outputs.done(file) for file in files] == [True, False]


def test_drafts_of_a_living_process_are_not_removed(tmp_path):
    draft = Draft(tmp_path / "qcd" / "a.parquet")
    left = draft.path.with_name(".a.parquet.0123abcd.draft")
    left.write_text("", encoding="utf-8")
    own = tmp_path / ".mine.draft"
    own.write_text("", encoding="utf-8")
    remove_leftovers(tmp_path)
    assert (draft.path.exists(), left.exists(), own.exists()) == (True, False, True)
    draft.publish()
    assert [path.name for path in (tmp_path / "qcd").iterdir()] == ["a.parquet"]


def test_a_draft_that_is_taken_for_a_leftover_gets_another_name(tmp_path, monkeypatch):
    """Before it is locked, another process may remove it, and a third one may still be about to."""
    names, flock = [], fcntl.flock

    def removed_first(descriptor, operation):
        if not names:
            names.extend(path for path in tmp_path.iterdir())
            names[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr("eaf_inference.dataset.drafts.fcntl.flock", removed_first)
    draft = Draft(tmp_path / "a.parquet")
    assert draft.path not in names
    draft.file.write(b"whole")
    draft.publish()
    assert (tmp_path / "a.parquet").read_bytes() == b"whole"
