"""`eaf-inference run`: shares of the files, what is written, and what remains after an end in the middle."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from waiting import until

from eaf_inference import run_command
from eaf_inference.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "batch-jobs.md").read_text(encoding="utf-8")
SELECTIONS = """
import pathlib, time

def plain(events):
    with open("calls", "a") as calls:
        calls.write("x")
    return {"x": events.x}

def stuck(events):
    if events.event[0] >= 30:
        pathlib.Path("stuck").touch()
        while not pathlib.Path("free").exists():
            time.sleep(0.01)
    return {"x": events.x}
"""
CONSTITUENTS = "def constituents(events):\n    return events.jets.constituents\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory, with a module of selections and six files of 10 rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("selections.py").write_text(SELECTIONS, encoding="utf-8")
    Path("data").mkdir()
    for number in range(6):
        rows = np.arange(160, dtype=np.float32).reshape(10, 2, 8) + number
        ak.to_parquet(ak.Array({"x": rows, "event": np.arange(10) + 10 * number}), f"data/{number}.parquet")
    yield tmp_path
    sys.modules.pop("selections", None)


def command(zoo, *more):
    return ["run", "sums", "data/*.parquet", "--select", "selections:plain", "--url", zoo.grpc, *more]


def begin(*arguments, ignoring=()):
    return subprocess.Popen(
        [sys.executable, "-m", "eaf_inference.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: [signal.signal(each, signal.SIG_IGN) for each in ignoring],
    )


def outputs(directory):
    """The bytes of all files of scores, by name."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()
    }


def test_two_jobs_at_once_write_byte_for_byte_what_submit_writes(here, zoo, connection):
    from selections import plain

    jobs = [begin(*command(zoo, "--out", "jobs", "--jobs", f"{number}/2")) for number in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        connection.submit(connection.model("sums"), "data/*.parquet", client=pool, select=plain).write("submitted")
    for job, said in zip(jobs, [job.communicate(timeout=60) for job in jobs], strict=True):
        assert job.returncode == 0, said
        assert " scores 3 of 6 files" in said[0]
    assert outputs("jobs") == outputs("submitted")
    assert len(outputs("jobs")) >= 6


def test_a_bad_file_is_listed_and_only_it_is_scored_again(here, zoo, capsys, monkeypatch):
    monkeypatch.setattr(run_command, "_LINE_EVERY", 0.001)
    good = Path("data/3.parquet").read_bytes()
    Path("data/3.parquet").write_bytes(good[:100])
    assert main(command(zoo, "--out", "scores")) == 1
    said, logged = capsys.readouterr()
    assert re.search(r"^\d of 6 files, .*[\d,]+ jets/s$", logged, re.MULTILINE)
    assert re.search(r"data/3\.parquet .*damaged", said)
    assert "5 outputs written: 50 entries" in said
    before = outputs("scores")
    Path("data/3.parquet").write_bytes(good)
    assert main(command(zoo, "--out", "scores")) == 0
    said = capsys.readouterr().out
    assert re.match(r"1 output written: 10 entries, .* MB\n5 were complete before\n$", said)
    after = outputs("scores")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    calls = Path("calls").stat().st_size
    assert main(command(zoo, "--out", "scores")) == 0
    assert outputs("scores") == after
    assert Path("calls").stat().st_size == calls  # nothing was read


def test_a_command_that_scores_nothing_says_what_to_do(here, zoo, capsys):
    without_select = ["run", "sums", "data/*.parquet", "--url", zoo.grpc, "--out", "scores"]
    for number in range(6):
        ak.to_parquet(ak.Array([{"jets": {"x": [[1.0], [2.0]]}}]), f"data/{number}.parquet")
    assert main(without_select) == 1
    said = capsys.readouterr().out
    assert re.search(r"^The first in full: Chunk 0 .*0\.parquet lacks x; .* pass select=", said, re.MULTILINE)


def test_scores_that_are_not_finite_are_reported_once_for_all_files(here, zoo):
    for number in range(3):
        ak.to_parquet(ak.Array({"x": np.zeros((2, 2, 8), np.float32)}), f"data/{number}.parquet")
    ratio = command(zoo, "--out", "scores")
    ratio[1] = "ratio"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert main(ratio) == 0
    (found,) = [str(each.message) for each in warned if "NaN" in str(each.message)]
    assert found.startswith("6 jets have NaN")
    shown = warnings.formatwarning("what is wrong", UserWarning, "code.py", 1)
    assert shown.startswith("code.py")  # other programs have their own style
    with run_command._short_warnings():
        assert (
            warnings.formatwarning("what is wrong", UserWarning, "code.py", 1)
            == "eaf-inference: warning: what is wrong\n"
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_in_the_middle_keeps_what_is_done_for_the_next_run(here, zoo, number):
    stuck = command(zoo, "--out", "scores", "--workers", "1")
    stuck[stuck.index("selections:plain")] = "selections:stuck"
    in_background = number == signal.SIGTERM  # where shells let Ctrl-C be ignored
    with begin(*stuck, ignoring=[signal.SIGINT] * in_background) as process:
        until(Path("stuck").exists)
        until(lambda: len(list(Path("scores").glob("*.parquet"))) == 3)
        process.send_signal(number)
        said, complained = process.communicate(timeout=30)  # although a thread cannot be stopped
    assert process.returncode == 130, complained
    assert "interrupted" in complained
    assert "Traceback" not in complained
    kept = outputs("scores")
    Path("free").touch()
    assert main(stuck) == 0
    stuck[stuck.index("scores")] = "whole"
    assert main(stuck) == 0
    whole = outputs("whole")
    assert outputs("scores") == whole
    assert kept.items() < whole.items()


def test_every_command_line_of_the_page_scores_files(here, triton, events, monkeypatch, capsys):
    monkeypatch.setenv("EAF_TRITON_URL", triton.grpc)
    Path("selections.py").write_text(CONSTITUENTS, encoding="utf-8")
    for number in range(6):
        ak.to_parquet(events[:, ["jets"]][3 * number : 3 * number + 3], f"data/{number}.parquet")
    lines = re.findall(r"^ *(?:arguments +=|eaf-inference) (run .*?)(?: &)?$", PAGE, flags=re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        for variable, value in {"$SLURM_ARRAY_TASK_ID": "2", "$INT(share)": "20", "$share": "4"}.items():
            line = line.replace(variable, value)
        assert main(shlex.split(line)) == 0, line
    assert re.findall(r"Job \d+ of .*", capsys.readouterr().out) == [
        "Job 2 of 20 scores 1 of 6 files.",
        "Job 20 of 20 scores 0 of 6 files.",
        "Job 4 of 4 scores 1 of 6 files.",
    ]
    assert len(list(Path("scores").glob("*.parquet"))) == 6
