"""Kill a process that writes scores at many lines of its code, resume, and compare with a run that was left alone.

Run by test_outputs.py; prints how many processes were killed. Forks instead of starting Python for each of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from score_files import MADE, results, tree_of

from eaf_inference.dataset import output
from eaf_inference.dataset.parts import File
from eaf_inference.dataset.writing import Outputs

output.ROWS = 5
FILES = [File(f"/data/{name}.root", "Events", "qcd") for name in "abc"]
SCORES = np.arange(12.0)
WRITERS = ("drafts.py", "output.py", "parquet_output.py", "provenance.py", "writing.py")


def run(directory: Path) -> None:
    """Write what is missing, as a driver does."""
    outputs = Outputs(directory, MADE)
    left = [file for file in FILES if not outputs.done(file)]
    outputs.write(each for n, file in enumerate(left) for each in results(file, SCORES, (3, 9), n))


def in_a_child(directory: Path, *, kill_at: int = 0) -> bool:
    """Run in a process that kills itself at a line; returns whether it came to its end."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(WRITERS):
            return None
        lines += event == "line"
        if lines == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace if kill_at else None)
    run(directory)
    os._exit(0)


def main(base: Path, step: int) -> None:
    assert in_a_child(base / "whole")
    expected, killed = tree_of(base / "whole"), 0
    for kill_at in range(1, 10**6, step):
        directory = base / "killed"
        if in_a_child(directory, kill_at=kill_at):
            break
        killed += 1
        found = tree_of(directory) if directory.exists() else {}
        named = {name: content for name, content in found.items() if not Path(name).name.startswith(".")}
        assert named.items() <= expected.items(), f"a wrong file after {kill_at} lines"
        assert in_a_child(directory)
        assert tree_of(directory) == expected, f"another result after {kill_at} lines"
        shutil.rmtree(directory)
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
