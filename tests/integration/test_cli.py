"""The program as a user runs it: its output, its exit code, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pytest
from management import successes
from tiny_models import save_affine
from tokens import make_token
from waiting import until

from eaf_facility.local.doctor import leftovers
from eaf_facility.servers.triton import SHARED_MEMORY
from eaf_inference import connect
from eaf_inference.discovery import local_facility
from eaf_inference.discovery.local_facility import Replica

SHM = Path("/dev/shm")  # noqa: S108 - where shared memory is
COMMAND = [sys.executable, "-m", "eaf_inference.cli"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)])
def test_up_leaves_nothing_behind_however_it_ends(tiny_models, number, code):
    with started("up", "--json", "--triton", "2", "--models", tiny_models) as process:
        facility = json.loads(process.stdout.readline())
        assert facility["models"] == ["affine", "mirror"]
        assert facility["pid"] == local_facility.running()[0].pid == process.pid
        family = psutil.Process(process.pid).children(recursive=True)
        assert {"tritonserver", "triton_python_backend_stub"} < {each.name() for each in family}
        regions = [path for each in family for path in regions_of(each)]
        assert regions
        gateway = facility["gateway"]
        assert {"dask_gateway_server", gateway["pid"]} <= {
            part for each in family for part in (*each.cmdline(), each.pid)
        }
        assert Path(gateway["password_file"]).read_text() not in json.dumps(facility)
        process.send_signal(number)
        assert process.wait(60) == code
        _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert not any(region.exists() for region in regions)
    assert not Path(gateway["password_file"]).parent.exists()
    assert not local_facility.running()


def test_up_prints_the_addresses_of_everything(tiny_models):
    with started("up", "--models", tiny_models) as process:
        output = read_until(process, "In a notebook")
        facility = local_facility.running()[0]
        gateway = facility.gateway
        for expected in (facility.urls[0], facility.replicas[0].log, "affine", "ready", "%triton_connect"):
            assert expected in output
        for expected in (gateway.address, str(gateway.pid), gateway.log, gateway.cluster_logs):
            assert expected in output
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


def test_up_ends_when_triton_keeps_crashing_and_prints_its_log(tiny_models):
    with started("up", "--json", "--models", tiny_models) as process:
        process.stdout.readline()
        output, logs = "", []
        for death in (1, 2, 3):
            (replica,) = local_facility.running()[0].replicas
            logs.append(replica.log)
            os.kill(replica.pid, signal.SIGKILL)
            output += read_until(process, "triton-0 was killed by SIGKILL", stream=process.stderr)
            if death < 3:
                output += read_until(process, "triton-0 is running again", stream=process.stderr)
                until(lambda pid=replica.pid: local_facility.running()[0].replicas[0].pid != pid)
        assert process.wait(60) == 1
        output += process.stderr.read()
    assert all(f"Its log is {log}; it ends with:\n  " in output for log in logs)
    assert f"triton-0 keeps crashing; shutting down. Its log: {logs[-1]}" in output
    assert "Traceback" not in output
    assert not local_facility.running()


@pytest.mark.slow
def test_a_triton_killed_during_a_run_loses_no_score_and_is_restarted(tiny_models):
    rows = 60_000
    x = np.random.default_rng(12).integers(-1000, 1000, (rows, 2)).astype(np.float32)  # so that sums are exact
    with started("up", "--json", "--triton", "2", "--models", tiny_models) as process:
        before = json.loads(process.stdout.readline())
        first, second = (Replica(**each) for each in before["replicas"])

        def chunks():
            for number, chunk in enumerate(np.split(x, 60)):
                if number == 20:
                    os.kill(first.pid, signal.SIGKILL)
                yield chunk

        with connect([first.grpc, second.grpc]) as connection:
            scores = list(connection.model("affine").map(chunks()))
            np.testing.assert_array_equal(np.concatenate([each["y"] for each in scores]), 2 * x + 1)
            np.testing.assert_array_equal(
                np.concatenate([each["total"] for each in scores]), x.sum(axis=1, keepdims=True)
            )
            output = read_until(process, "triton-0 is running again", stream=process.stderr)
            until(lambda: local_facility.running()[0].replicas[0].pid != first.pid)
            again = local_facility.running()[0]
            assert (again.replicas[0].grpc, again.replicas[1]) == (first.grpc, second)
            assert again.gateway.pid == before["gateway"]["pid"]
            assert successes(again.replicas[0]) == successes(second) == []
            os.kill(second.pid, signal.SIGKILL)  # so that the first one answers
            scores = connection.model("affine")(x[:1000])
            np.testing.assert_array_equal(scores["y"], 2 * x[:1000] + 1)
    assert "triton-0 was killed by SIGKILL" in output


def test_a_gateway_that_dies_is_restarted_and_so_is_its_proxy(tiny_models):
    with started("up", "--json", "--models", tiny_models) as process:
        gateway = json.loads(process.stdout.readline())["gateway"]
        family = psutil.Process(process.pid).children(recursive=True)
        (proxy,) = (each for each in family if each.name() == "dask-gateway-proxy")
        dead = psutil.Process(gateway["pid"])
        dead.kill()
        psutil.wait_procs([dead], timeout=10)
        until(lambda: is_healthy(gateway["address"]))
        assert "dask-gateway was killed by SIGKILL" in read_until(process, "is running again", stream=process.stderr)
        until(lambda: local_facility.running()[0].gateway.pid != gateway["pid"])
        proxy.kill()
        output = read_until(process, "dask-gateway-proxy is running again", stream=process.stderr)
        until(lambda: is_healthy(gateway["address"]))
    assert "dask-gateway-proxy was killed by SIGKILL" in output


def is_healthy(gateway):
    try:
        with urllib.request.urlopen(f"{gateway}/api/health", timeout=5) as reply:  # noqa: S310
            return reply.status == 200
    except OSError:
        return False


def test_up_interrupted_before_it_is_ready_leaves_nothing(tiny_models):
    with started("up", "--json", "--models", tiny_models) as process:
        read_until(process, "waiting for triton-0", stream=process.stderr)
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(signal.SIGINT)
        # CPython ends by the signal if it came while a string was executed, as in the making of a dataclass
        assert process.wait(60) in (130, -signal.SIGINT)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive
        assert process.stdout.read() == ""
        assert "Traceback" not in process.stderr.read()


def test_up_with_a_broken_model_prints_tritons_reason_and_its_log(tmp_path):
    save_affine(tmp_path / "jets")
    (tmp_path / "jets" / "1" / "model.onnx").write_bytes(b"not ONNX")
    answer = run("up", "--models", tmp_path)
    assert answer.returncode == 1
    assert "model 'jets'" in answer.stderr
    assert "Protobuf parsing failed" in answer.stderr
    assert Path(answer.stderr.rpartition("Its log: ")[2].strip()).exists()
    assert "Traceback" not in answer.stderr
    assert not local_facility.running()


def test_up_reports_a_broken_model_and_serves_the_rest_in_any_locale(tmp_path, monkeypatch):
    save_affine(tmp_path / "größe")
    save_affine(tmp_path / "größer", config='backend: "größenwahn"')
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    with started("up", "--models", tmp_path) as process:
        output = read_until(process, "In a notebook")
        with connect() as connection:
            np.testing.assert_array_equal(connection.model("größe")(np.ones((3, 2), np.float32))["y"], 3)
    (row,) = (line for line in output.splitlines() if "left out" in line)
    assert "gr\\xf6\\xdfer" in row
    assert "unable to find backend library" in row


def test_up_on_a_port_in_use_names_the_port(tiny_models):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = run("up", "--models", tiny_models, "--grpc-port", port)
    assert answer.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--triton-server", "/absent/tritonserver"], "/absent/tritonserver is not a program"),
        (["--triton-server", "/bin/sh"], "has no backends"),
        (["--triton", "0"], "at least one Triton"),
        (["--grpc-port", "65536"], "65536 is not a valid first port"),
        (["--models", "/absent"], "no model repository at /absent"),
    ],
)
def test_an_invalid_option_is_reported_in_one_message(tiny_models, arguments, reason):
    answer = run("up", "--models", tiny_models, *arguments)
    assert answer.returncode == 1
    assert reason in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_doctor_finds_a_facility_and_leftovers_of_a_dead_one(tiny_models):
    with started("up", "--json", "--models", tiny_models) as process:
        facility = json.loads(process.stdout.readline())
        earlier = bool(leftovers())  # of a session that was killed on this machine
        answer = run("doctor")
        assert answer.returncode == earlier, answer.stdout
        assert f"dask-gateway-server {version('dask-gateway-server')}" in answer.stdout
        assert re.search(r"(?m)^ok +Envoy ", answer.stdout)
        assert f"{facility['replicas'][0]['grpc']} is ready with affine, mirror" in answer.stdout
        region = SHM / f"{SHARED_MEMORY}00000000dead-0000"
        region.touch()
        try:
            answer = run("doctor")
        finally:
            region.unlink()
    assert answer.returncode == 1
    assert f"rm {region}" in answer.stdout


def test_connect_and_models_print_what_the_magics_show(tiny_triton, tmp_path, monkeypatch):
    monkeypatch.setenv("EAF_TRITON_URL", tiny_triton.grpc)
    token = tmp_path / "token"
    token.write_text(make_token("alice", lives=600))
    answer = run("connect", "--token-file", token)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"{tiny_triton.grpc} (EAF_TRITON_URL), alice, renewed automatically, 10 min left" in answer.stdout
    assert re.search(r"(?m)^mirror +1 +x: FP32 \[2\] +y: FP32 \[2\] +ready +not measured yet$", answer.stdout)
    answer = run("models", tiny_triton.grpc, "--explain")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "explicit URL" in answer.stdout
    assert re.search(r"(?m)^affine +1 .* ready +no requests$", answer.stdout)


@pytest.mark.parametrize("command", ["connect", "models"])
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["grpc://127.0.0.1:1"], "connection refused"),
        (["--token-file", "/absent"], "token file /absent does not exist"),
        (["grpcs://127.0.0.1:1", "--ca", "/absent"], "certificate authorities cannot be read: /absent"),
    ],
)
def test_connect_and_models_report_a_failure_in_one_message(command, arguments, reason):
    answer = run(command, *arguments)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert reason in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_failed_handshake_is_one_message_without_lines_of_grpc(tiny_triton):
    answer = run("connect", tiny_triton.grpc.replace("grpc://", "grpcs://"))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert len(answer.stderr.splitlines()) == 1
    assert ": the TLS handshake failed, as it does at an unencrypted port (grpc://). Check" in answer.stderr


@contextmanager
def started(*arguments):
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def run(*arguments):
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def read_until(process, text, *, stream=None):
    lines = []
    for line in stream or process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"expected {text!r} in the output: {''.join(lines)} {process.stderr.read()}")


def regions_of(process):
    named = [part.partition("name=")[2] for part in process.cmdline() if part.startswith("--backend-config=python")]
    return [path for prefix in named for path in SHM.glob(f"{prefix}*")]
