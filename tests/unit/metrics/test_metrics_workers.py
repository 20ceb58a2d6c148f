"""Sums over a user's Dask workers."""

from __future__ import annotations

from eaf_inference.dask.worker_plugin import NAME
from eaf_inference.metrics.workers import REPORT, Workers, WorkerSums, sums_of


def worker(**report):
    return {"metrics": {REPORT: report} if report else {}}


def test_workers_report_under_the_name_of_the_plugin():
    assert REPORT == NAME


def test_sums_skip_what_a_worker_does_not_report():
    scoring = worker(state="connected", inferences_per_second=500.0, token_age=12.0)
    other = worker(state="connected", inferences_per_second=300.0, token_age=40.0)
    idle = worker(state="waiting", inferences_per_second=None, token_age=None)
    assert sums_of([scoring, other, idle, worker()]) == WorkerSums(4, 2, 800.0, 40.0)


def test_sums_are_unknown_until_a_worker_reports():
    assert sums_of([worker(), worker()]) == WorkerSums(2, None, None, None)
    assert sums_of([]) == WorkerSums(0, 0, None, None)


def test_a_cluster_without_a_rate_adds_no_workers_to_the_advice():
    measured = {"configured": 4, "inferences_per_second": 1000.0}
    unknown = {"configured": 3, "inferences_per_second": None}
    assert Workers.of([measured, measured, unknown]) == Workers(8, 2000.0)
    assert Workers.of([unknown]) is None
    assert Workers.of([]) is None
