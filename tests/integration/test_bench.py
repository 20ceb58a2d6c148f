"""The benchmark as a user runs it: its output, wrong scores, interrupts and missing programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from plain_client import call, channel_to
from rich.console import Console

from benchmarks import plan
from benchmarks.clients import TRITONCLIENT, TRITONCLIENT_ASYNC
from benchmarks.network import simulated_network
from benchmarks.perf_analyzer import perf_analyzer
from benchmarks.report import save, show
from benchmarks.run import bench
from benchmarks.workloads import WORKLOADS
from eaf_facility.servers.triton import MODELS
from eaf_facility.study import client_packages
from eaf_facility.study.client_process import ClientProcess
from eaf_facility.study.clients import COFFEA as COFFEA_WRAPPER
from eaf_facility.study.clients import EAF_INFERENCE, Job
from eaf_facility.study.workloads import prepare
from eaf_inference.errors import BadReply, ConfigurationError

pytestmark = pytest.mark.extended

COFFEA = COFFEA_WRAPPER.using(batch=64)
TOO_LARGE = TRITONCLIENT.using(batch=1000)  # more rows than the model accepts
JETS = 128
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tritonclient():
    """The directory of tritonclient."""
    return client_packages.client_packages(progress=print)


@pytest.mark.slow
def test_a_run_writes_a_table_a_json_file_and_a_plot(monkeypatch, tmp_path):
    monkeypatch.setitem(plan.ENTRIES, "a", (EAF_INFERENCE, COFFEA, TOO_LARGE))
    outcome = bench(workloads=["a"], figures=["import", "packing"], rounds=2, share=0.02, progress=lambda _: None)
    console = Console(record=True, width=200)
    show(outcome, console)
    shown = console.export_text()
    for expected in ("(a) zero-cost model", "coffea triton_wrapper, batch 64", "client CPU per jet, ours / coffea"):
        assert expected in shown
    assert "a, tritonclient, batch 1000:" in shown  # the reason why it was not measured
    paths = save(outcome, tmp_path)
    assert [path.name for path in paths] == ["bench.json", "bench.png"]
    report = json.loads(paths[0].read_text())
    ours = next(each for each in report["results"] if each["client"] == "eaf-inference")
    assert len(ours["jets/s"]) == 2
    assert ours["bytes/jet"] == [16 * 100 * 4] * 2
    assert ours["largest difference"] == [0.0, 0.0]
    assert len(report["figures"]["packing jets/s"]) == 2
    verdict = {each["what"]: each for each in report["targets"]}
    assert verdict["(a) client CPU per jet, ours / coffea"]["spread"]["median"] > 0
    assert verdict["(d) ours / the simulated server's limit, 10 ms"]["met"] is None


@pytest.mark.parametrize("entry", [EAF_INFERENCE, COFFEA, TRITONCLIENT_ASYNC.using(batch=64, in_flight=2)])
def test_scores_of_real_jets_are_correct_and_a_wrong_one_is_an_error(triton, tritonclient, tmp_path, entry):
    file = MODELS / "particlenet" / "1" / "model.onnx"
    workload = WORKLOADS["b"]
    prepare(workload, JETS, file, tmp_path)
    job = Job(workload, JETS, entry, triton.grpc, str(file), str(tmp_path))
    with ClientProcess(job) as process:
        process.wait_until_ready()
        result = process.round()
    assert result.jets == JETS
    assert result.difference < 1e-6
    expected = np.load(tmp_path / "b.npy")
    expected[JETS // 2] += 1e-3
    np.save(tmp_path / "b.npy", expected)
    with pytest.raises(BadReply, match="wrong by 0.001"), ClientProcess(job) as process:
        process.wait_until_ready()


def test_coffea_imports_beside_this_client_without_gevent():
    code = "import sys; sys.modules['gevent'] = None; import eaf_inference.connection, coffea.ml_tools"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_this_client_and_tritonclient_work_in_one_process(triton, tritonclient):
    """Each has its own copy of the protocol's messages."""
    code = f"""
import sys
from tritonclient.grpc import InferenceServerClient, service_pb2
import eaf_inference
from eaf_inference.inference import protocol
with eaf_inference.connect({triton.grpc!r}) as connection, InferenceServerClient({triton.grpc[7:]!r}) as client:
    assert connection.names() == sorted(model.name for model in client.get_model_repository_index().models)
assert protocol.ModelInferRequest is not service_pb2.ModelInferRequest
"""
    packages = {**os.environ, "PYTHONPATH": str(tritonclient)}
    subprocess.run([sys.executable, "-c", code], env=packages, check=True, timeout=120)


def test_ctrl_c_keeps_the_results_until_then(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--only", "import", "--rounds", "100000"]
    with subprocess.Popen(
        [*command, "--output", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            next(line for line in process.stdout if "round 3 of" in line)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Interrupted" in output
    assert "Traceback" not in errors
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["interrupted"]
    assert len(report["figures"]["import s"]) >= 2


def test_the_simulated_network_delays_each_request(triton):
    delay = 0.1
    with (
        simulated_network(triton.grpc.removeprefix("grpc://"), delay, progress=lambda _: None) as url,
        channel_to(url) as channel,
    ):
        assert call(channel, "ServerReady").ready
        began = time.monotonic()
        assert call(channel, "ModelReady", name="particlenet").ready
        assert time.monotonic() - began >= 0.9 * delay  # Envoy's clock counts milliseconds


def test_a_failed_download_of_tritonclient_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="tritonclient is not in .*`eaf-inference study` fetches it"):
        ClientProcess(Job(WORKLOADS["a"], 1, COFFEA, "grpc://127.0.0.1:1", None, str(tmp_path)))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("tritonclient @ file:///nowhere")
    monkeypatch.setattr(client_packages, "REQUIREMENTS", requirements)
    with pytest.raises(ConfigurationError, match=r"tritonclient cannot be fetched: .* failed: ERROR"):
        client_packages.client_packages(progress=print)
    assert [path.suffix for path in (tmp_path / "eaf-inference").iterdir()] == [".lock"]


def test_perf_analyzer_is_fetched_by_the_command_only(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="perf_analyzer is not in .*`python -m benchmarks` fetches it"):
        perf_analyzer()


def test_an_unknown_name_is_rejected():
    with pytest.raises(ConfigurationError, match=r"no z\. Expected some of a, b, c"):
        bench(workloads=["z"], progress=lambda _: None)
    with pytest.raises(ConfigurationError, match="Cannot run 0 rounds"):
        bench(workloads=["a"], rounds=0, progress=lambda _: None)
