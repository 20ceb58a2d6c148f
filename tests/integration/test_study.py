"""A small study: every part, its report, and how it reports what is missing."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import replace

import pytest

from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.accelerator import SimulatedAccelerator
from eaf_facility.study.edge_proxy import edge_proxy
from eaf_facility.study.outcome import (
    AFFINITY,
    AFFINITY_WITHOUT_SPILL,
    ALONE,
    LEAST_BUSY,
    LEAST_REQUEST,
    ONE_EACH,
    PIPELINED,
    TOGETHER,
    Scale,
    Site,
)
from eaf_facility.study.report import save
from eaf_facility.study.run import study
from eaf_facility.study.server_counts import ServerCounts, read_counts
from eaf_facility.study.simulated_workers import WorkerGroup, run_workers
from eaf_inference.errors import BadReply, ConfigurationError, ServerUnavailable

TINY = Scale(
    timing_jets={"b": 64, "c": 20},
    local_workers=(1,),
    local_replicas=(1,),
    file_jets=64,
    files_per_worker=1,
    simulated_workers=(1, 8),
    simulated_replicas=(1,),
    seconds=0.5,
    capacity_seconds=5.0,
)


@pytest.mark.extended
@pytest.mark.slow
def test_every_part_is_measured_and_reported(tmp_path):
    outcome = study(scale=TINY, progress=lambda _: None)
    assert not outcome.remarks
    assert {each.workload for each in outcome.timings} == {"b", "c"}
    assert all(each.points[-1][0] == TINY.timing_jets[each.workload] for each in outcome.timings)
    assert {(each.simulated, each.workers) for each in outcome.scaled} == {(False, 1), (True, 1), (True, 8)}
    assert all(each.inferences_per_second > 0 for each in outcome.scaled)
    mixtures = {each.title: each for each in outcome.mixtures}
    assert list(mixtures) == [ALONE, TOGETHER, LEAST_REQUEST, AFFINITY, AFFINITY_WITHOUT_SPILL, ONE_EACH]
    assert mixtures[ALONE].requests_per_second > 2 * mixtures[TOGETHER].requests_per_second
    assert all(each.queue > 0 for each in outcome.mixtures)
    # Envoy spreads a model's requests or keeps them together, as its settings say
    assert mixtures[LEAST_REQUEST].locality < 0.6
    assert mixtures[AFFINITY_WITHOUT_SPILL].locality > 0.9
    assert (mixtures[ONE_EACH].locality, mixtures[ONE_EACH].replicas_used) == (1, 4)
    assert [workers for workers, _, _ in outcome.predicted.points] == [1, 8]
    report, numbers = save(outcome, tmp_path)
    page = report.read_text()
    assert re.search(r"<h1>One simulated Triton carries .* workers like these", page)
    for expected in ("Timing: our ParticleNet", "What was simulated", "Several models", "Prediction and measurement"):
        assert expected in page
    assert json.loads(numbers.read_text())["findings"]


@pytest.mark.extended
def test_without_envoy_the_simulated_workers_choose_the_tritons(monkeypatch):
    monkeypatch.setitem(sys.modules, "envoy", None)  # as if it were not installed
    outcome = study(scale=TINY, parts=["models"], progress=lambda _: None)
    assert [each.title for each in outcome.mixtures] == [ALONE, TOGETHER, LEAST_BUSY, ONE_EACH]
    assert outcome.mixtures[-1].requests_per_second > 2 * outcome.mixtures[-2].requests_per_second
    (remark,) = outcome.remarks
    assert "without Envoy" in remark
    assert "Envoy is not installed" in remark


def test_the_edge_proxy_accepts_only_the_studys_token(triton):
    address = triton.grpc.removeprefix("grpc://")
    group = WorkerGroup(PIPELINED, 1, ("particlenet",), 4, 0.0, 0.0)
    with edge_proxy([triton], {}, progress=lambda _: None) as proxy:
        assert proxy.token not in repr(proxy)
        forged = replace(proxy, token=proxy.token[:-8])
        with pytest.raises(ServerUnavailable, match="UNAUTHENTICATED"):
            run_workers([address], group, 0.1, lambda: read_counts([address], group.models), forged)


def test_locality_is_the_share_of_requests_on_each_models_main_server():
    before = ServerCounts(Counter({("a", "one"): 5}))
    after = ServerCounts(Counter({("a", "one"): 11, ("a", "two"): 2, ("b", "two"): 2}))
    assert after.since(before).requests == 10
    assert after.since(before).locality == pytest.approx(0.8)
    assert after.since(before).servers == 2
    assert ServerCounts().locality == 0


def test_a_wrong_score_ends_the_measurement(tmp_path):
    accelerator = SimulatedAccelerator(request=1e-3, cell=0.0, batch=4)
    accelerator.write(tmp_path)
    program = tmp_path / accelerator.name / "1" / "model.py"
    program.write_text(program.read_text().replace("values[:, 0, :1]", "values[:, 1, :1]"))
    with TritonServer.start([tmp_path]) as server:
        address = server.grpc.removeprefix("grpc://")
        group = WorkerGroup(PIPELINED, 2, (accelerator.name,), accelerator.batch, 0.0, accelerator.seconds(4))
        with pytest.raises(BadReply, match="'simulated' returned wrong scores"):
            run_workers([address], group, 0.5, lambda: read_counts([address], group.models))


@pytest.mark.extended
def test_without_coffea_only_its_curves_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "coffea", None)  # as if it were not installed
    outcome = study(scale=replace(TINY, timing_jets={"b": 64}), parts=["timing"], progress=lambda _: None)
    assert {each.client.partition(",")[0] for each in outcome.timings} == {PIPELINED, "local ONNX Runtime"}
    [remark] = outcome.remarks
    assert remark == (
        "coffea triton_wrapper: the package coffea is not installed: pip install 'eaf-inference[study]'"
    )


def test_a_missing_package_is_reported_and_does_not_end_the_study(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    outcome = study(scale=TINY, parts=["timing"], progress=lambda _: None)
    assert outcome.timings == []
    assert outcome.remarks == ["timing: the package onnx is not installed: pip install 'eaf-inference[study]'"]


def test_without_the_sample_of_jets_the_report_says_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("eaf_facility.study.workloads.JETS", tmp_path / "jets.parquet")  # as in an installed wheel
    outcome = study(scale=replace(TINY, timing_jets={"b": 64}), parts=["timing"], progress=lambda _: None)
    assert outcome.timings == []
    [remark] = outcome.remarks
    assert remark.startswith(f"timing: The sample of jets is missing: {tmp_path / 'jets.parquet'}.")
    assert "clone the project" in remark


def test_invalid_options_are_rejected():
    with pytest.raises(ConfigurationError, match="no part weather"):
        study(parts=["weather"], progress=lambda _: None)
    with pytest.raises(ConfigurationError, match="--url"):
        study(site=Site(prometheus="http://127.0.0.1:9"), progress=lambda _: None)
