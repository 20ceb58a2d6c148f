"""A model in other processes than the one that looked it up."""

from __future__ import annotations

import subprocess
import sys

FORKS = """
import multiprocessing, sys
import numpy as np
import eaf_inference

def score(results):
    results.put(float(model(rows).sum()))

model = eaf_inference.connect(sys.argv[1]).model("sums")
rows = np.ones((20, 2, 100), np.float32)
context = multiprocessing.get_context("fork")
for _ in range(4):
    assert model(rows).sum() == 4000
    results = context.SimpleQueue()
    child = context.Process(target=score, args=[results])
    child.start()
    child.join(20)
    if child.exitcode is None:
        child.kill()
        sys.exit("the forked process waits for ever")
    assert results.get() == 4000
assert model(rows).sum() == 4000
"""


def test_forked_processes_score_whenever_they_were_forked(zoo):
    command = [sys.executable, "-W", "ignore", "-c", FORKS, zoo.grpc]
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
