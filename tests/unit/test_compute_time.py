"""The server compute time of a request, from Triton's counters, and where it cannot be known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from eaf_inference.errors import NotAuthorized
from eaf_inference.inference import compute_time, protocol
from eaf_inference.inference.compute_time import ComputeTime

KINDS = protocol.ModelInstanceGroup


class Servers:
    """Replicas whose counters a test sets: by replica and model the requests, and executions of 10 ms each."""

    def __init__(self, *, kinds, steps=None, replicas=1):
        self.kinds, self.steps = kinds, steps or {}
        self.hits = 0
        self.channels = [object() for _ in range(replicas)]
        self.counters = [dict.fromkeys(kinds, (1000, 1000)) for _ in self.channels]  # of earlier users

    def ask(self, channels, questions, _limits):
        return [self._answer(channels[0], each.method, each.message.name) for each in questions]

    def _answer(self, channel, method, name):
        if method == "ModelConfig":
            config = protocol.ModelConfig(name=name)
            for step in self.steps.get(name, ()):
                config.ensemble_scheduling.step.add(model_name=step)
            for kind in self.kinds.get(name, ()):
                config.instance_group.add(kind=kind)
            return protocol.ModelConfigResponse(config=config)
        requests, executions = self.counters[self.channels.index(channel)][name]
        reply = protocol.ModelStatisticsResponse()
        model = reply.model_stats.add(name=name, version="1")
        model.inference_stats.success.count = requests
        model.inference_stats.cache_hit.count = self.hits * (requests > 1000)
        batch = model.batch_stats.add(batch_size=8)
        batch.compute_infer.count, batch.compute_infer.ns = executions, executions * 10_000_000
        return reply

    def more(self, requests, executions, replica=0):
        for name, (before, executed) in self.counters[replica].items():
            self.counters[replica][name] = before + requests, executed + executions


@pytest.fixture
def measure(monkeypatch):
    def measure(servers, *steps, requests, checks=0):
        monkeypatch.setattr(compute_time, "ask", servers.ask)
        spec = SimpleNamespace(name=next(iter(servers.steps or servers.kinds)), version="1")
        measured = ComputeTime(servers.channels, spec, timeout=1.0)
        measured.read()
        for step in steps:
            servers.more(*step)
            measured.read()
        return measured.per_request(requests, checks=checks), measured.missing

    return measure


def test_an_execution_of_several_requests_counts_once(measure):
    found, missing = measure(Servers(kinds={"m": [KINDS.KIND_GPU]}), (40, 10), (40, 10), (40, 10), requests=120)
    assert (found.seconds, found.error, found.device, found.shared, missing) == (0.0025, 0, "GPU", False, "")


@pytest.mark.parametrize(
    ("kinds", "device"),
    [([KINDS.KIND_CPU], "CPU"), ([KINDS.KIND_GPU, KINDS.KIND_CPU], ""), ([KINDS.KIND_MODEL], ""), ([], "")],
)
def test_a_gpu_is_named_only_if_all_instances_are_on_one(measure, kinds, device):
    found, _ = measure(Servers(kinds={"m": kinds}), (10, 10), requests=10)
    assert found.device == device


def test_the_models_of_an_ensemble_add_up_over_all_replicas(measure):
    servers = Servers(
        kinds={"a": [KINDS.KIND_GPU], "b": [KINDS.KIND_GPU]},
        steps={"both": ["a", "inner"], "inner": ["b"]},
        replicas=2,
    )
    found, _ = measure(servers, (30, 30, 0), (10, 10, 1), requests=40)
    assert found.seconds == pytest.approx(0.02)
    assert found.device == "GPU"


def test_checks_of_the_model_belong_to_the_run_and_other_users_do_not(measure):
    found, _ = measure(Servers(kinds={"m": [KINDS.KIND_CPU]}), (400, 400), requests=200, checks=200)
    assert (found.seconds, found.shared) == (0.02, False)  # twice the executions for each request
    found, _ = measure(Servers(kinds={"m": [KINDS.KIND_CPU]}), (4000, 4000), requests=200, checks=200)
    assert (found.seconds, found.shared) == (0.01, True)


def test_requests_answered_from_the_cache_are_noticed(measure):
    servers = Servers(kinds={"m": [KINDS.KIND_CPU]})
    servers.hits = 60
    found, _ = measure(servers, (100, 100), requests=90, checks=10)
    assert found.cached == 0.5


def test_counters_of_other_servers_give_no_time(measure):
    found, missing = measure(Servers(kinds={"m": [KINDS.KIND_CPU]}), (50, 50), requests=200)
    assert found is None
    assert "50 of 200 requests" in missing
    found, missing = measure(Servers(kinds={"m": [KINDS.KIND_CPU]}), (400, 400), (-300, -300), requests=100)
    assert found is None
    assert "in turn" in missing


def test_a_server_that_shows_no_counters_gives_no_time(measure):
    servers = Servers(kinds={"m": [KINDS.KIND_CPU]})

    def refuse(channels, questions, limits):
        raise NotAuthorized("no")

    servers.ask = refuse
    found, missing = measure(servers, requests=10)
    assert found is None
    assert missing
