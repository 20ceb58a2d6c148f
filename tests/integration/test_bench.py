"""The benchmark as a user runs it: what it prints and writes, and that a wrong score ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from plain_client import call, channel_to
from rich.console import Console

from eaf_inference.bench import plan, programs
from eaf_inference.bench.contenders import Entry
from eaf_inference.bench.contestant import Job
from eaf_inference.bench.measuring import Contestant
from eaf_inference.bench.network import simulated_network
from eaf_inference.bench.report import save, show
from eaf_inference.bench.run import bench
from eaf_inference.bench.workloads import WORKLOADS, prepare
from eaf_inference.errors import BadReply, ConfigurationError
from eaf_inference.facility.triton import MODELS

COFFEA = Entry("coffea triton_wrapper", batch=64)
TOO_LARGE = Entry("tritonclient", batch=1000)  # rows than the model takes
JETS = 128


@pytest.fixture(scope="module")
def tritonclient():
    """The directory of the contenders' tritonclient."""
    return programs.contender_packages(progress=print)


def test_a_run_gives_a_table_a_json_file_and_a_picture(monkeypatch, tmp_path):
    monkeypatch.setitem(plan.ENTRIES, "a", (plan.OURS, COFFEA, TOO_LARGE))
    outcome = bench(workloads=["a"], alone=["import", "packing"], rounds=2, share=0.02, progress=lambda _: None)
    console = Console(record=True, width=200)
    show(outcome, console)
    shown = console.export_text()
    for expected in ("(a) zero-cost model", "coffea triton_wrapper, batch 64", "client CPU per jet, ours / coffea"):
        assert expected in shown
    assert "a, tritonclient, batch 1000:" in shown  # why it was not measured
    paths = save(outcome, tmp_path)
    assert [path.name for path in paths] == ["bench.json", "bench.png"]
    told = json.loads(paths[0].read_text())
    ours = next(each for each in told["results"] if each["contender"] == "eaf-inference")
    assert len(ours["jets/s"]) == 2
    assert ours["bytes/jet"] == [16 * 100 * 4] * 2
    assert ours["largest difference"] == [0.0, 0.0]
    assert len(told["figures"]["packing jets/s"]) == 2
    verdict = {each["what"]: each for each in told["targets"]}
    assert verdict["(a) client CPU per jet, ours / coffea"]["spread"]["median"] > 0
    assert verdict["(d) the same at 10 ms"]["met"] is None


@pytest.mark.parametrize("entry", [plan.OURS, COFFEA, Entry("tritonclient async_infer", batch=64, in_flight=2)])
def test_the_scores_of_real_jets_are_right_and_a_wrong_one_ends_it(triton, tritonclient, tmp_path, entry):
    file = MODELS / "particlenet" / "1" / "model.onnx"
    prepare(WORKLOADS["b"], JETS, file, tmp_path)
    job = Job("b", JETS, entry, triton.grpc, str(file), str(tmp_path))
    with Contestant(job) as contestant:
        contestant.wait_until_ready()
        seen = contestant.round()
    assert seen.jets == JETS
    assert seen.difference < 1e-6
    right = np.load(tmp_path / "b.npy")
    right[JETS // 2] += 1e-3
    np.save(tmp_path / "b.npy", right)
    with pytest.raises(BadReply, match="wrong by 0.001"), Contestant(job) as contestant:
        contestant.wait_until_ready()


def test_coffea_can_be_imported_beside_this_client_without_its_extra_for_triton():
    code = "import sys; sys.modules['gevent'] = None; import eaf_inference.connection, coffea.ml_tools"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_this_client_and_tritonclient_live_in_one_process(triton, tritonclient):
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


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    command = [sys.executable, "-m", "eaf_inference.cli", "bench", "--only", "import", "--rounds", "100000"]
    with subprocess.Popen(
        [*command, "--output", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            next(line for line in process.stdout if "round 3 of" in line)
            process.send_signal(signal.SIGINT)
            said, complained = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Interrupted" in said
    assert "Traceback" not in complained
    told = json.loads((tmp_path / "bench.json").read_text())
    assert told["interrupted"]
    assert len(told["figures"]["import s"]) >= 2


def test_the_simulated_network_holds_each_request_back(triton):
    delay = 0.1
    with (
        simulated_network(triton.grpc.removeprefix("grpc://"), delay, progress=lambda _: None) as url,
        channel_to(url) as channel,
    ):
        assert call(channel, "ServerReady").ready
        began = time.monotonic()
        assert call(channel, "ModelReady", name="particlenet").ready
        assert time.monotonic() - began >= 0.9 * delay  # Envoy's clock has milliseconds


def test_a_tritonclient_that_cannot_be_fetched_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="tritonclient is not in .*`eaf-inference bench` fetches it"):
        Contestant(Job("a", 1, COFFEA, "grpc://127.0.0.1:1", None, str(tmp_path)))
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("tritonclient @ file:///nowhere")
    monkeypatch.setattr(programs, "REQUIREMENTS", wanted)
    with pytest.raises(ConfigurationError, match=r"tritonclient cannot be fetched: .* failed: ERROR"):
        programs.contender_packages(progress=print)
    assert [path.suffix for path in (tmp_path / "eaf-inference").iterdir()] == [".lock"]


def test_what_there_is_not_is_said():
    with pytest.raises(ConfigurationError, match=r"no z\. Expected some of a, b, c"):
        bench(workloads=["z"], progress=lambda _: None)
