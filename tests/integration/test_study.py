"""The study on a small scale: every part of it, its report, and that a wrong score ends it."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import replace

import pytest

from eaf_inference.bench.models import Simulated
from eaf_inference.errors import BadReply, ConfigurationError, ServerUnavailable
from eaf_inference.facility.triton import TritonServer
from eaf_inference.study.door import door
from eaf_inference.study.load import Crowd, Served, run
from eaf_inference.study.outcome import (
    AFFINITY,
    ALONE,
    APART,
    LEAST_BUSY,
    LEAST_REQUEST,
    PIPELINED,
    TOGETHER,
    UNSPILT,
    Scale,
    Site,
)
from eaf_inference.study.report import save
from eaf_inference.study.run import study
from eaf_inference.study.servers import counted

TINY = Scale(
    timing_jets={"b": 64, "c": 20},
    local_workers=(1,),
    local_instances=(1,),
    file_jets=64,
    files_a_worker=1,
    simulated_workers=(1, 8),
    simulated_instances=(1,),
    seconds=0.5,
    minute=5.0,
)


def test_every_part_is_measured_and_the_report_needs_nothing_beside_it(tmp_path):
    outcome = study(scale=TINY, progress=lambda _: None)
    assert not outcome.remarks
    assert {each.workload for each in outcome.timings} == {"b", "c"}
    assert all(each.points[-1][0] == TINY.timing_jets[each.workload] for each in outcome.timings)
    assert {(each.simulated, each.workers) for each in outcome.scaled} == {(False, 1), (True, 1), (True, 8)}
    assert all(each.inferences_per_second > 0 for each in outcome.scaled)
    mixtures = {each.title: each for each in outcome.mixtures}
    assert list(mixtures) == [ALONE, TOGETHER, LEAST_REQUEST, AFFINITY, UNSPILT, APART]
    assert mixtures[ALONE].requests_per_second > 2 * mixtures[TOGETHER].requests_per_second
    assert all(each.queue > 0 for each in outcome.mixtures)
    # a model's requests are mixed up, or meet: Envoy does what its settings say
    assert mixtures[LEAST_REQUEST].met < 0.6
    assert mixtures[UNSPILT].met > 0.9
    assert (mixtures[APART].met, mixtures[APART].used) == (1, 4)
    assert [workers for workers, _, _ in outcome.predicted.points] == [1, 8]
    report, numbers = save(outcome, tmp_path)
    page = report.read_text()
    assert re.search(r"<h1>One simulated Triton carries .* workers like these", page)
    for expected in ("Timing: our ParticleNet", "What was simulated", "Several models", "Prediction and measurement"):
        assert expected in page
    assert json.loads(numbers.read_text())["findings"]


def test_without_an_envoy_the_load_chooses_instances_itself_and_that_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "envoy", None)  # as if it were not installed
    outcome = study(scale=TINY, parts=["models"], progress=lambda _: None)
    assert [each.title for each in outcome.mixtures] == [ALONE, TOGETHER, LEAST_BUSY, APART]
    assert outcome.mixtures[-1].requests_per_second > 2 * outcome.mixtures[-2].requests_per_second
    (remark,) = outcome.remarks
    assert "not through Envoy" in remark
    assert "Envoy is not installed" in remark


def test_the_door_lets_nobody_in_without_the_studys_token(triton):
    address = triton.grpc.removeprefix("grpc://")
    crowd = Crowd(PIPELINED, 1, ("particlenet",), 4, 0.0, 0.0)
    with door([triton], {}, progress=lambda _: None) as entrance:
        assert entrance.token not in repr(entrance)
        forged = replace(entrance, token=entrance.token[:-8])
        with pytest.raises(ServerUnavailable, match="UNAUTHENTICATED"):
            run([address], crowd, 0.1, lambda: counted([address], crowd.models), forged)


def test_requests_meet_as_far_as_they_go_where_most_for_their_model_do():
    before = Served(Counter({("a", "one"): 5}))
    after = Served(Counter({("a", "one"): 11, ("a", "two"): 2, ("b", "two"): 2}))
    assert after.since(before).requests == 10
    assert after.since(before).met == pytest.approx(0.8)
    assert after.since(before).servers == 2
    assert Served().met == 0


def test_a_reply_with_other_scores_ends_the_measurement(tmp_path):
    accelerator = Simulated(request=1e-3, cell=0.0, batch=4)
    accelerator.write(tmp_path)
    program = tmp_path / accelerator.name / "1" / "model.py"
    program.write_text(program.read_text().replace("values[:, 0, :1]", "values[:, 1, :1]"))
    with TritonServer.start([tmp_path]) as server:
        address = server.grpc.removeprefix("grpc://")
        crowd = Crowd(PIPELINED, 2, (accelerator.name,), accelerator.batch, 0.0, accelerator.seconds(4))
        with pytest.raises(BadReply, match="not those of its request"):
            run([address], crowd, 0.5, lambda: counted([address], crowd.models))


def test_without_coffea_its_curves_alone_are_missing_and_that_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "coffea", None)  # as if it were not installed
    outcome = study(scale=replace(TINY, timing_jets={"b": 64}), parts=["timing"], progress=lambda _: None)
    assert {each.client.partition(",")[0] for each in outcome.timings} == {PIPELINED, "local ONNX Runtime"}
    [remark] = outcome.remarks
    assert remark == (
        "coffea triton_wrapper: the package coffea is not installed: pip install 'eaf-inference[bench]'"
    )


def test_a_part_whose_package_is_missing_is_said_and_does_not_end_the_study(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    outcome = study(scale=TINY, parts=["timing"], progress=lambda _: None)
    assert outcome.timings == []
    assert outcome.remarks == ["timing: the package onnx is not installed: pip install 'eaf-inference[bench]'"]


def test_what_there_is_not_is_said():
    with pytest.raises(ConfigurationError, match="no part weather"):
        study(parts=["weather"], progress=lambda _: None)
    with pytest.raises(ConfigurationError, match="--url"):
        study(site=Site(prometheus="http://127.0.0.1:9"), progress=lambda _: None)
