"""Sizes of requests that are learned from a real Triton, whose models take stated times or lack memory."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import awkward as ak
import numpy as np
import pytest

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.accelerator import VALUES, SimulatedAccelerator
from eaf_inference.errors import InferenceError
from eaf_inference.inference import protocol
from eaf_inference.inference.crowd import Crowd
from eaf_inference.inference.direct import ask_triton
from eaf_inference.inference.pipeline import Question
from eaf_inference.inference.tuning import Tuning

# It takes only a few numbers at once, as a GPU does that others use too.
MEMORY = 50_000
NARROW = f"""
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(each, "x").as_numpy()) for each in requests]

    def answer(self, x):
        if x.size > {MEMORY} or x.max() > 1e6:
            error = pb_utils.TritonError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return pb_utils.InferenceResponse(error=error)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x.sum(axis=2))])
"""
CONFIG = """
backend: "python"
max_batch_size: 1024
input { name: "x" data_type: TYPE_FP32 dims: [1, -1] }
output { name: "y" data_type: TYPE_FP32 dims: [1] }
"""


# It takes 20 ms however many rows it gets.
MERGING = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.02)
        x = [pb_utils.get_input_tensor_by_name(each, "x").as_numpy() for each in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", each.sum(axis=2))]) for each in x]
"""
BATCHER = "dynamic_batching { max_queue_delay_microseconds: 1000 }"


class Crowded(Crowd):
    """A server that many share at every moment."""

    def __init__(self):
        super().__init__()
        self.long, self.request_seconds = True, 0.02

    def due(self, _seconds):
        return False


def add(repository, name, config, model):
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(config)
    (directory / "1" / "model.py").write_text(model)


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    repository = tmp_path_factory.mktemp("accelerators")
    SimulatedAccelerator(0.005, 50e-9, batch=1024, length=-1, name="fast").write(repository)
    add(repository, "narrow", CONFIG, NARROW)
    add(repository, "merging", CONFIG + BATCHER, MERGING)
    add(repository, "preferring", CONFIG + "dynamic_batching { preferred_batch_size: [ 16, 48 ] }", MERGING)
    with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc) as connection:
        yield connection


def jets(number):
    rng = np.random.default_rng(1)
    counts = np.clip(rng.normal(72, 25, number).astype(np.int64), 1, None)
    return counts, rng.integers(0, 9, counts.sum()).astype(np.float32)


def test_an_accelerators_times_are_learned_and_requests_grow(triton):
    model = triton.model("fast")
    counts, values = jets(20_000)
    column = ak.unflatten(values, counts)
    before = triton.traffic.requests
    scores = model({"x": [column] * VALUES}, progress=False)
    np.testing.assert_array_equal(ak.to_numpy(scores)[:, 0], ak.to_numpy(ak.firsts(column)))
    assert triton.traffic.requests - before < 20_000 * 80 / 8192 / 2  # less than half as many as of 8,192 cells
    assert 0 < model.tuning.request_seconds < 0.05
    assert "ms" in str(model.tuning)
    assert triton.model("fast").tuning is model.tuning  # all of a process share it
    copy = Tuning()
    copy.adopt(pickle.loads(pickle.dumps(model.tuning.learned)))  # noqa: S301
    assert copy.request_seconds == model.tuning.request_seconds


def test_a_request_without_memory_is_halved_and_later_ones_are_smaller(triton):
    counts, values = jets(30_000)
    model = triton.model("narrow", cell_budget=1 << 20)
    scores = model({"x": [ak.unflatten(values, counts)]}, progress=False)
    np.testing.assert_array_equal(ak.to_numpy(scores)[:, 0], np.add.reduceat(values, np.cumsum(counts) - counts))
    learned = triton.model("narrow")
    assert learned.tuning.learned.most <= MEMORY
    retries = triton.traffic.retries
    again = learned({"x": [ak.unflatten(values, counts)]}, progress=False)
    assert ak.array_equal(again, scores)
    assert triton.traffic.retries == retries


def test_a_row_that_never_fits_is_an_error_with_the_servers_words(triton):
    with pytest.raises(InferenceError, match="CUDA out of memory"):
        triton.model("narrow")({"x": [ak.Array([[1.0], [2e6], [3.0]])]}, progress=False)


def executions(server, name):
    """Return the requests that a model has answered, its executions, and the numbers of rows in these."""
    request = protocol.ModelStatisticsRequest(name=name)
    [answer] = ask_triton(server, Question("ModelStatistics", request))
    [stats] = answer.model_stats
    rows = {each.batch_size: each.compute_infer.count for each in stats.batch_stats}
    return stats.inference_stats.success.count, stats.execution_count, rows


def test_in_a_crowd_the_server_merges_the_requests_of_many_users(triton, monkeypatch):
    server = triton.endpoint.urls[0]
    calls = [jets(20 + number) for number in range(32)]
    model = triton.model("merging")

    def call(one):
        counts, values = one
        scores = model({"x": [ak.unflatten(values, counts)]}, progress=False)
        np.testing.assert_array_equal(ak.to_numpy(scores)[:, 0], np.add.reduceat(values, np.cumsum(counts) - counts))

    def executions_a_request():
        requests, times, _ = executions(server, "merging")
        with ThreadPoolExecutor(8) as users:
            list(users.map(call, calls))
        more, others, _ = executions(server, "merging")
        return (others - times) / (more - requests)

    call(calls[0])  # padding is tried once
    alone = executions_a_request()
    monkeypatch.setattr(model.tuning, "crowd", Crowded())
    crowded = executions_a_request()
    assert crowded < 0.6
    assert crowded < alone


def test_batches_have_the_size_that_the_server_prefers(triton):
    model = triton.model("preferring")
    counts, values = jets(1000)
    scores = model({"x": [ak.unflatten(values, counts)]}, progress=False)
    np.testing.assert_array_equal(ak.to_numpy(scores)[:, 0], np.add.reduceat(values, np.cumsum(counts) - counts))
    _, _, rows = executions(triton.endpoint.urls[0], "preferring")
    assert rows[48] >= 1000 // 48
    assert "preferred_batch_size, 48 rows" in str(model.tuning)
