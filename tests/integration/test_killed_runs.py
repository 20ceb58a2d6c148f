"""A data set that another process writes: a worker and that process are killed, and the rest is written later."""

from __future__ import annotations

import json
import os
import signal

import eaf_inference
from benchmarks.data_set.checks import check_failed, check_outputs
from benchmarks.data_set.disturbed import Driver
from benchmarks.data_set.files import MODEL, make

FILES = 20


def test_killed_worker_and_driver_lose_and_misplace_no_row(zoo, client, tmp_path):
    made = make(tmp_path / "inputs", FILES, print)
    fileset = tmp_path / "fileset.json"
    fileset.write_text(json.dumps(made.fileset), encoding="utf-8")
    driver = Driver(zoo, client.scheduler.address, fileset, tmp_path / "scores")
    driver.when(lambda: driver.outputs >= 2)
    worker = min(client.run(os.getpid).values())
    os.kill(worker, signal.SIGKILL)
    driver.when(lambda: driver.outputs >= 6)
    driver.kill()
    there = {path: path.stat().st_mtime_ns for path in driver.directory.rglob("*.parquet")}
    assert 6 <= len(there) < len(made.good)
    again = Driver(zoo, client.scheduler.address, fileset, tmp_path / "scores")
    report = again.report()
    assert report["chunks"] == len(made.good) - len(there)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert again.drafts == []
    assert worker not in client.run(os.getpid).values()
    check_failed(report, made)
    with eaf_inference.connect(zoo.grpc) as connection:
        check_outputs(tmp_path / "scores", made, connection.model(MODEL))
