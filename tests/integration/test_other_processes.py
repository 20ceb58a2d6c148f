"""A model in other processes than the one that looked it up."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import grpc
import pytest
from edge_proxy import edge_proxy
from rows import assert_undisturbed

import eaf_inference
from eaf_inference.connection import Connection
from eaf_inference.errors import ServerUnavailable
from eaf_inference.inference.model import Model
from eaf_inference.registry import Options

FORKS = """
import multiprocessing, sys, threading
import numpy as np
import numpy.ma  # so that no thread imports it when a process is forked
import eaf_inference

def score(results):
    results.put(float(model(rows).sum()))

model = eaf_inference.connect(sys.argv[1]).model("sums")
rows = np.ones((20, 2, 100), np.float32)
assert model(rows).sum() == 4000

def keep_scoring():
    while not ended.is_set():
        assert model(rows).sum() == 4000

ended = threading.Event()
threads = [threading.Thread(target=keep_scoring, daemon=True) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
context = multiprocessing.get_context("fork")
for _ in range(int(sys.argv[3])):
    assert model(rows).sum() == 4000
    results = context.SimpleQueue()
    child = context.Process(target=score, args=[results])
    child.start()
    child.join(20)
    if child.exitcode is None:
        child.kill()
        sys.exit("the forked process waits for ever")
    assert child.exitcode == 0
    assert results.get() == 4000
ended.set()
for thread in threads:
    thread.join(20)
    assert not thread.is_alive()
assert model(rows).sum() == 4000
"""


@pytest.mark.parametrize(("threads", "forks"), [(0, 4), (2, 12)], ids=["between calls", "during calls"])
def test_forked_processes_score_whenever_they_were_forked(zoo, threads, forks):
    command = [sys.executable, "-W", "ignore", "-c", FORKS, zoo.grpc, str(threads), str(forks)]
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_call_elsewhere_obeys_the_facilitys_limits(zoo, jagged, tmp_path):
    directory = tmp_path / "jupyter"
    directory.mkdir()
    settings = json.dumps({"Facility": {"time_budget": 0.5}})
    (directory / "eaf_inference_config.json").write_text(settings, encoding="utf-8")
    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        url = f"grpc://127.0.0.1:{port}"
        with eaf_inference.connect(url) as connection:
            spec = connection.model("sums").spec
        arrived = Model(Connection(Options(url=url, ca=None, allow_insecure_token=None)), spec)  # opens on first use
        handler.faults = [(grpc.StatusCode.UNAVAILABLE, "no healthy upstream", ())] * 10_000
        started = time.monotonic()
        with pytest.raises(ServerUnavailable, match="within the time budget"):
            arrived(jagged[:10])
        assert time.monotonic() - started < 60  # and not 120
        handler.faults = []
        assert_undisturbed(arrived(jagged[:10]), jagged[:10])
