"""A facility on one machine: what it serves, what it leaves behind, and its error messages."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from plain_client import call
from tiny_models import infer, save_affine

from eaf_facility.local import single_user
from eaf_facility.servers import triton_environment
from eaf_facility.servers.triton import SHARED_MEMORY, TritonServer
from eaf_inference._files import runtime_directory
from eaf_inference.discovery import local_facility
from eaf_inference.errors import ConfigurationError

SHM = Path("/dev/shm")  # noqa: S108 - where shared memory is
X = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_an_onnx_model_without_a_configuration_is_served(tiny_triton):
    answer = infer(tiny_triton, "affine", X, outputs=("y", "total"))
    np.testing.assert_array_equal(answer["y"], 2 * X + 1)
    np.testing.assert_array_equal(answer["total"], X.sum(axis=1, keepdims=True))


def test_a_model_in_plain_python_is_served(tiny_triton):
    np.testing.assert_array_equal(infer(tiny_triton, "mirror", X)["y"], X[:, ::-1])


def test_only_the_outputs_asked_for_come_back(tiny_triton):
    assert list(infer(tiny_triton, "affine", X, outputs=("total",))) == ["total"]


def test_a_configuration_is_completed_as_triton_does(tmp_path):
    save_affine(tmp_path / "batched", config="max_batch_size: 32")
    save_affine(tmp_path / "free")
    save_affine(tmp_path / "fixed", rows=3, config='platform: "onnxruntime_onnx"')
    with TritonServer.start([tmp_path]) as server:
        configs = {name: config_of(server, name) for name in ("batched", "free", "fixed")}
        np.testing.assert_array_equal(infer(server, "fixed", X)["y"], 2 * X + 1)
        server.kill()
    assert {name: config.max_batch_size for name, config in configs.items()} == {
        "batched": 32,
        "free": 4,
        "fixed": 0,
    }
    assert list(configs["batched"].input[0].dims) == [2]
    assert list(configs["fixed"].input[0].dims) == [3, 2]
    assert configs["batched"].HasField("dynamic_batching")


def test_requests_that_arrive_together_each_get_their_own_answer(tiny_triton):
    def ask(number: int) -> bool:
        x = np.full((1 + number % 4, 2), number, dtype=np.float32)
        return np.array_equal(infer(tiny_triton, "affine", x)["y"], 2 * x + 1)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(64)))


def test_an_error_of_onnx_runtime_fails_only_its_own_request(tmp_path):
    config = """backend: "onnxruntime"
    input [{ name: "x", data_type: TYPE_FP32, dims: [-1, -1] }]
    output [{ name: "y", data_type: TYPE_FP32, dims: [-1, -1] }]"""
    save_affine(tmp_path / "affine", config=config)
    with TritonServer.start([tmp_path]) as server:
        with pytest.raises(grpc.RpcError, match="invalid dimensions for input: x"):
            infer(server, "affine", np.zeros((3, 5), dtype=np.float32))
        np.testing.assert_array_equal(infer(server, "affine", X)["y"], 2 * X + 1)
        server.kill()


def test_each_model_that_cannot_be_served_is_named_with_the_reason(tmp_path):
    expected = {
        "absent_output": (
            'output [{ name: "z", data_type: TYPE_FP32, dims: [2] }]',
            "config.pbtxt lists the output 'z', but the ONNX model has ['total', 'y']",
        ),
        "other_type": (
            'output [{ name: "y", data_type: TYPE_INT64, dims: [2] }]',
            "as TYPE_INT64, but the ONNX model has TYPE_FP32",
        ),
        "needs_gpu": ("instance_group [{ kind: KIND_GPU }]", "no GPUs are available"),
        "not_text": ('backend "onnx', "failed to read text proto"),
        "other_backend": ('backend: "tensorrt"', "unable to find backend library for backend 'tensorrt'"),
    }
    for name, (config, _) in expected.items():
        save_affine(tmp_path / name, config=config)
    with pytest.raises(ConfigurationError) as caught, TritonServer.start([tmp_path]):
        pass
    message = str(caught.value)
    assert "can load none of its models" in message
    for name, (_, reason) in expected.items():
        (line,) = (line for line in message.splitlines() if f"model '{name}'" in line)
        assert reason in line
    assert "leave instance_group out of its config.pbtxt" in message  # the hint
    assert Path(message.rpartition("Its log: ")[2]).exists()


def test_a_model_whose_code_fails_is_reported_with_its_own_error(tmp_path):
    (tmp_path / "jets" / "1").mkdir(parents=True)
    (tmp_path / "jets" / "config.pbtxt").write_text('backend: "python"')
    (tmp_path / "jets" / "1" / "model.py").write_text("import torch_cluster")
    with pytest.raises(ConfigurationError, match="No module named 'torch_cluster'"), single_user.up([tmp_path]):
        pass
    assert not local_facility.running()


def test_a_killed_triton_leaves_nothing_and_restarts_on_its_port(tiny_models):
    with TritonServer.start([tiny_models]) as server:
        url, family = server.grpc, [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert {process.name() for process in family} == {"tritonserver", "triton_python_backend_stub"}
        regions = own_regions(server)
        assert regions
        server.kill()
        assert not any(process.is_running() for process in family)
        assert not any(region.exists() for region in regions)
        server.restart()
        assert server.grpc == url
        np.testing.assert_array_equal(infer(server, "affine", X)["y"], 2 * X + 1)
        server.kill()


def test_two_replicas_are_announced_to_this_user_alone(tiny_models):
    with single_user.up([tiny_models], replicas=2) as facility:
        assert local_facility.running() == [facility.description]
        assert len(set(facility.description.urls)) == 2
        for server in facility.servers:
            np.testing.assert_array_equal(infer(server, "mirror", X)["y"], X[:, ::-1])
        note = runtime_directory() / f"facility-{os.getpid()}.json"
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        assert {
            stat.S_IMODE(Path(replica.log).parent.stat().st_mode) for replica in facility.description.replicas
        } == {0o700}
        for server in facility.servers:
            server.kill()
    assert not local_facility.running()
    assert not note.exists()


def test_a_triton_inherits_no_secrets_of_its_owner(tiny_models, monkeypatch):
    monkeypatch.setenv("BEARER_TOKEN", "a-secret")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "a-secret")
    with TritonServer.start([tiny_models]) as server:
        family = [
            psutil.Process(server.pid).parent(),
            *psutil.Process(server.pid).children(),
            psutil.Process(server.pid),
        ]
        seen = [process.environ() for process in family]
        server.kill()
    assert all("a-secret" not in environment.values() for environment in seen)
    assert all("BEARER_TOKEN" not in environment for environment in seen)


def test_serving_an_onnx_model_sends_no_telemetry(tiny_models, monkeypatch, tmp_path):
    """ONNX Runtime collects telemetry in the user's cache directory before it sends it."""
    installation = triton_environment.make_installation(progress=print)
    monkeypatch.setenv("HOME", str(tmp_path))
    with TritonServer.start([tiny_models], installation=installation) as server:
        infer(server, "affine", X)
        server.kill()
    assert not list(tmp_path.rglob("*.db"))


def test_a_triton_listens_on_loopback_only(tiny_triton):
    listening = [
        each for each in psutil.Process(tiny_triton.pid).net_connections() if each.status == psutil.CONN_LISTEN
    ]
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}


def test_a_port_in_use_is_named(tiny_models):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match=f"port {port} .* taken"),
            single_user.up([tiny_models], grpc_port=port),
        ):
            pass


def test_a_port_taken_at_the_last_moment_is_replaced(tiny_models):
    installation = triton_environment.make_installation(progress=print)
    server = TritonServer([tiny_models], installation=installation)
    first_choice = server.metrics.removesuffix("/metrics")
    with socket.create_server(("127.0.0.1", int(first_choice.rpartition(":")[2]))):
        try:
            server.launch()
            server.wait_until_ready()
            assert server.metrics != f"{first_choice}/metrics"
            np.testing.assert_array_equal(infer(server, "affine", X)["y"], 2 * X + 1)
            server.kill()
        finally:
            server.stop()


def test_an_installed_tritonserver_is_used_as_it_is(tiny_models):
    installed = triton_environment.make_installation(progress=print)
    with single_user.up([tiny_models], triton_server=installed.server) as facility:
        assert psutil.Process(facility.servers[0].pid).exe() == str(installed.server)
        np.testing.assert_array_equal(infer(facility.servers[0], "mirror", X)["y"], X[:, ::-1])
        facility.servers[0].kill()


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (lambda path: path / "absent", "the directory does not exist"),
        (lambda path: path, "no models in"),
        (lambda path: save_affine(path / "jets", config="max_batch_size: 4"), "is a model, not a model repository"),
    ],
    ids=["absent", "empty", "a model"],
)
def test_a_directory_that_is_not_a_repository_is_refused(tmp_path, arrange, reason):
    with pytest.raises(ConfigurationError, match=reason), single_user.up([arrange(tmp_path)]):
        pass


@pytest.mark.slow
def test_two_commands_make_one_environment_and_replace_an_incomplete_one(tmp_path):
    """The installer is replaced by an empty one: the test counts which process runs it, and how often."""
    cache, packages = tmp_path / "cache", tmp_path / "requirements.txt"
    packages.write_text("")
    script = f"""
from pathlib import Path
from eaf_facility.servers import triton_environment
triton_environment.REQUIREMENTS = Path({str(packages)!r})
triton_environment._fit_stub = lambda packages, interpreter: None
triton_environment._put = lambda content, target: None
triton_environment.make_installation(progress=print)
"""
    command = [sys.executable, "-c", script]
    settings = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    both = [subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("making Triton's environment in" in each for each in outputs) == 1
    (made,) = (cache / "eaf-inference").glob("triton-*/complete")
    made.unlink()
    again = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120, check=True)
    assert "making Triton's environment" in again.stdout
    assert made.exists()


def config_of(server, model):
    return call(server.grpc, "ModelConfig", name=model).config


def own_regions(server):
    prefix = next(part for part in psutil.Process(server.pid).cmdline() if SHARED_MEMORY in part).partition("name=")[
        2
    ]
    return list(SHM.glob(f"{prefix}*"))
