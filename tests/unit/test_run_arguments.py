"""The arguments of `eaf-inference run`: a job's share, filesets, and functions by name."""

from __future__ import annotations

import gzip
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference._run_arguments import files_given, job_number, object_named, schema_named, share_of
from eaf_inference.cli import main
from eaf_inference.errors import ConfigurationError, InvalidInput

FILESET = {
    "ttbar": {"files": {"/data/a.root": "Events", "/data/b.root": {"object_path": "Events", "steps": [[0, 10]]}}},
    "qcd": {"files": ["/data/c.parquet"], "metadata": {"xsec": 3}},
}


@given(st.integers(0, 50), st.integers(1, 60))
def test_all_jobs_together_take_each_file_once_and_equally(files, jobs):
    shares = [share_of(list(range(files)), *job_number(f"{number}/{jobs}")) for number in range(1, jobs + 1)]
    assert sorted(itertools.chain(*shares)) == list(range(files))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/20", "21/20", "3", "3/", "-1/20", "1/0", "1.5/2", "a/b", "3/20/40", "", " 1/2"])
def test_a_job_that_does_not_exist_is_wrong_usage(capsys, text):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "m", "f", "--out", "d", f"--jobs={text}"])
    message = capsys.readouterr().err
    assert "is no i/n with i from 1 to n, such as 3/20" in message
    assert ("add 1" in message) == (text in ("0/20", "21/20"))


@pytest.mark.parametrize(
    "wrong", [["--workers=0"], ["--workers=two"], ["--select=selections"], ["--select=a b:c"], ["--format=csv"]]
)
def test_options_of_run_that_mean_nothing_are_wrong_usage(wrong):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "m", "f", "--out", "d", *wrong])


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_a_fileset_follow_those_before_it_in_order(tmp_path, packed):
    path = tmp_path / ("fileset.json.gz" if packed else "fileset.json")
    content = json.dumps(FILESET).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    files = files_given(["/data/0.root:tree", str(path)])
    assert [str(file) for file in files] == [
        "/data/0.root:tree",
        "/data/a.root:Events",
        "/data/b.root:Events",
        "/data/c.parquet",
    ]
    assert [file.dataset for file in files] == ["", "ttbar", "ttbar", "qcd"]
    assert [file.steps for file in files] == [(), (), ((0, 10),), ()]
    assert files[-1].metadata == {"xsec": 3}


def test_a_fileset_may_be_a_list_of_paths(tmp_path):
    (tmp_path / "list.json").write_text('["/data/a.parquet", "/data/b.parquet"]', encoding="utf-8")
    assert [file.path for file in files_given([str(tmp_path / "list.json")])] == [
        "/data/a.parquet",
        "/data/b.parquet",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"files": ["x.root"]}, "a": {"files": ["y.root"]}}', "'a' is there twice"),
        ('{"a": {"files": {"x.root": "t", "x.root": "u"}}}', "'x.root' is there twice"),
        ("{", "is no fileset"),
        ("3", "is no fileset"),
        ("[3]", "set.json names no files: 3"),
        ("[]", "set.json has no files"),
        ('{"a": {"files": []}}', "'a' has no files"),
        ("{}", "set.json names no files: {}"),
    ],
)
def test_a_fileset_that_would_lose_files_is_refused(tmp_path, text, message):
    (tmp_path / "set.json").write_text(text, encoding="utf-8")
    with pytest.raises((ConfigurationError, InvalidInput), match=message):
        files_given([str(tmp_path / "set.json")])


def test_a_damaged_or_absent_fileset_is_named(tmp_path):
    (tmp_path / "set.json.gz").write_bytes(gzip.compress(b"{}" * 99)[:20])
    for name in ("set.json.gz", "absent.json"):
        with pytest.raises(ConfigurationError, match=name):
            files_given([str(tmp_path / name)])


def test_a_function_is_found_in_this_directory(tmp_path, monkeypatch):
    (tmp_path / "eaf_selections.py").write_text("def leading(events): return events[0]", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/absent"])
    assert object_named("eaf_selections:leading")("xyz") == "x"
    for absent in ("eaf_selections:absent", "eaf_absent:leading"):
        with pytest.raises(ConfigurationError, match=absent.partition(":")[0]):
            object_named(absent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def leading(:", r"SyntaxError: invalid syntax \(eaf_broken.py, line 1\)\. Correct the module"),
        ("\n1 / 0", r"ZeroDivisionError in line 2 of .*eaf_broken\.py: division by zero\. Correct the module"),
    ],
)
def test_a_module_that_fails_is_named_with_the_line(tmp_path, monkeypatch, text, message):
    (tmp_path / "eaf_broken.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/absent"])
    with pytest.raises(ConfigurationError, match=message):
        object_named("eaf_broken:leading")


def test_a_file_is_not_taken_for_a_module(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "m", "f", "--out", "d", "--select=selections.py:cut"])
    assert "'selections.py' is a file. Expected the module: selections:cut" in capsys.readouterr().err


def test_schemas_are_those_of_coffea_or_the_users_own():
    nanoevents = pytest.importorskip("coffea.nanoevents", reason="coffea is not installed")
    assert schema_named("NanoAODSchema") is nanoevents.NanoAODSchema
    assert schema_named("coffea.nanoevents:BaseSchema") is nanoevents.BaseSchema
    with pytest.raises(ConfigurationError, match=r"no schema 'Nano'. Expected one of BaseSchema, NanoAODSchema"):
        schema_named("Nano")
