"""What a data set may be: files as coffea and uproot write them, patterns, folders, steps, and arrays."""

from __future__ import annotations

from itertools import count, islice
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from eaf_inference.dataset.fileset import files_of, names_files
from eaf_inference.errors import InvalidInput

STEPS = [[0, 5], [5, 9]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make a folder with empty files, the current one."""
    (tmp_path / "more" / "_hidden").mkdir(parents=True)
    for name in (
        "a.root",
        "b.root",
        "c.parquet",
        "notes.txt",
        "more/d.parquet",
        "more/_metadata.parquet",
        "more/_hidden/e.pq",
    ):
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(chunks):
    return [
        (each.dataset, Path(each.path).name + (f":{each.tree}" if each.tree else ""), *map(list, each.steps))
        for each in files_of(chunks)
    ]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({"a.root": "Events"}, [("", "a.root:Events")]),
        ({"a.root": None, "c.parquet": None}, [("", "a.root"), ("", "c.parquet")]),
        ({"tt": {"files": {"a.root": "Events"}, "metadata": {"year": 2018}}}, [("tt", "a.root:Events")]),
        (
            {
                "tt": {
                    "files": {"a.root": {"object_path": "E", "steps": STEPS, "num_entries": 9, "uuid": "1"}},
                    "form": None,
                }
            },
            [("tt", "a.root:E", [0, 5], [5, 9])],
        ),
        ({"a.root": {"object_path": "E", "steps": [0, 5, 9]}}, [("", "a.root:E", [0, 5], [5, 9])]),
        ({"a.root": {"object_path": "E", "steps": [[0, 0], [0, 9]]}}, [("", "a.root:E", [0, 9])]),
        (
            {"a.root": {"object_path": "E", "steps": [[0, 0]]}},
            [("", "a.root:E", [0, 0])],
        ),  # of a file without entries
        ({"a.root": {"object_path": "E", "steps": None}}, [("", "a.root:E")]),
        ({"tt": {"files": ["a.root", "c.parquet"], "treename": "E"}}, [("tt", "a.root:E"), ("tt", "c.parquet")]),
        ({"tt": ["a.root"], "/W/2018/NANO": ["b.root"]}, [("tt", "a.root"), ("/W/2018/NANO", "b.root")]),
        ({"tt": {"a.root": "E"}, "w": "b.*:E"}, [("tt", "a.root:E"), ("w", "b.root:E")]),
        ({"tt": "*.root", "w": {"files": "more/*.parquet"}}, None),
        ("*.root:Events", [("", "a.root:Events"), ("", "b.root:Events")]),
        ({"?.root": "Events"}, [("", "a.root:Events"), ("", "b.root:Events")]),
        (Path("a.root"), [("", "a.root")]),
        ("more", [("", "d.parquet")]),
        (["a.root:E", {"b.root": "E"}, Path("c.parquet")], [("", "a.root:E"), ("", "b.root:E"), ("", "c.parquet")]),
        (["a.root:E", "a.root:F", {"tt": ["a.root"]}], [("", "a.root:E"), ("", "a.root:F"), ("tt", "a.root")]),
        (["root://host//d/x.root:E", "http://host/x.root?a=b"], [("", "x.root:E"), ("", "x.root?a=b")]),
        (["DAOD.1._2.pool.root.1:CollectionTree"], [("", "DAOD.1._2.pool.root.1:CollectionTree")]),
    ],
)
def test_files_are_found_as_coffea_and_uproot_write_them(folder, chunks, expected):
    expected = expected or [("tt", "a.root"), ("tt", "b.root"), ("w", "_metadata.parquet"), ("w", "d.parquet")]
    assert found(chunks) == expected


def test_files_are_absolute_and_keep_their_data_sets_metadata(folder):
    [file] = files_of({"tt": {"files": ["a.root"], "metadata": {"year": 2018}}})
    assert file.path == str(folder / "a.root")
    assert file.metadata == {"year": 2018}


def test_a_path_has_one_name_whatever_the_directory_it_is_relative_to(folder, monkeypatch):
    names = [str(folder / "a.root")]
    for start, given in (
        ("none", "../a.root"),
        ("more", "../none/../a.root"),
        ("more", "../*a.root"),
        (".", "a.root"),
    ):
        monkeypatch.chdir(folder / start)
        names += [each.path for each in files_of([given])]
    (folder / "more" / "link").symlink_to(folder / "none")
    names += [each.path for each in files_of([str(folder / "more" / "link" / ".." / "a.root")])]
    assert {*names} == {str(folder / "a.root")}
    assert [each.path for each in files_of([folder / "none" / ".." / "more"])] == [str(folder / "more" / "d.parquet")]


def test_patterns_of_remote_files_are_found(folder):
    fsspec = pytest.importorskip("fsspec")
    storage = fsspec.filesystem("memory")
    for name in ("a.root", "b.root", "deep/c.parquet", "deep/notes.txt"):
        storage.pipe(f"/filesets/{name}", b"")
    assert found("memory://filesets/*.root:E") == [("", "a.root:E"), ("", "b.root:E")]
    assert found({"tt": ["memory://filesets/"]}) == [("tt", "a.root"), ("tt", "b.root"), ("tt", "c.parquet")]
    with pytest.raises(InvalidInput, match=r"The pattern memory://filesets/\*.pq has no files"):
        found("memory://filesets/*.pq")
    with pytest.raises(InvalidInput, match="a.root is given twice"):
        found([f"file://{folder}/a.root", "a.root"])


def test_coffeas_descriptions_of_data_sets_are_taken(folder):
    filespec = pytest.importorskip("coffea.dataset_tools.filespec")
    described = filespec.DataGroupSpec({"tt": {"files": {"a.root": {"object_path": "E", "steps": STEPS}}}})
    assert found(described) == [("tt", "a.root:E", [0, 5], [5, 9])]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ("x*.root", r"The pattern x\*.root has no files"),
        (["a.root", "none"], "The folder none has no files"),
        ({"tt": []}, "The data set 'tt' has no files"),
        ({"tt": {"files": {}}}, "The data set 'tt' has no files"),
        (["a.root", "*.root"], "a.root is given twice"),
        (["a.root", "a.root:Events"], "a.root:Events is given twice"),
        ({"tt": ["a.root", "more/../a.root"]}, "a.root of the data set 'tt' is given twice"),
        (["a.root", "link.root"], "link.root is given twice"),
        (["a.root:E;1", "a.root:E"], "a.root:E is given twice"),
        ({"a.root": {"object_path": "E", "steps": [[0, 5], [4, 9]]}}, "a.root has the steps .* without overlap"),
        ({"a.root": {"object_path": "E", "steps": [[5, 9], [0, 5]]}}, "a.root has the steps .* in order"),
        ({"a.root": {"object_path": "E", "steps": [[5, 0]]}}, "a.root has the steps"),
        ({"a.root": {"object_path": "E", "steps": [[0, 5.5]]}}, "a.root has the steps"),
        ({"a.root": {"object_path": "E", "steps": []}}, r"a.root has the steps \[\]"),
        ({"*.root": {"object_path": "E", "steps": STEPS}}, "stands for 2 files"),
        ({"tt": {"files": {"a.root": 3}}}, "a.root has 3. Expected the name of its tree"),
        ({"tt": {"files": [3]}}, "A file is given as 3"),
    ],
)
def test_files_that_are_missing_or_counted_twice_are_refused(folder, chunks, message):
    (folder / "link.root").symlink_to("a.root")
    if isinstance(chunks, list | dict) and "*.root" in chunks:
        (folder / "link.root").unlink()
    with pytest.raises(InvalidInput, match=message):
        found(chunks)


ARRAYS = (np.ones((2, 2)), ak.Array([1]), {"x": np.ones(2)}, {"pf": {"pt": ak.Array([[1.0]])}}, {"x": [[1.0]]}, {}, 3)


@pytest.mark.parametrize("array", ARRAYS)
def test_one_array_is_not_a_data_set_but_is_kept_in_a_list(array):
    assert not names_files(array)
    with pytest.raises(InvalidInput, match="The chunks are an? .*. Expected an iterable"):
        files_of(array)
    [kept] = files_of([array])
    assert kept is array


def test_an_endless_iterable_is_consumed_as_files_are_requested():
    assert len(list(islice(files_of(f"{number}.parquet" for number in count()), 3))) == 3
