"""Real servers for the tests, each started once a session and only when a test asks for it."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest
from tiny_models import save_affine, save_mirror

from eaf_facility.servers.dask_gateway import DaskGatewayServer
from eaf_facility.servers.triton import TritonServer

HERE = Path(__file__).parent


_MARKERS = {"integration": "server", "server": "server", "ui": "browser"}


def pytest_collection_modifyitems(items):
    """Mark each test with what it starts, by its directory."""
    for item in items:
        if marker := _MARKERS.get(item.path.relative_to(HERE).parts[0]):
            item.add_marker(marker)


@pytest.fixture(scope="session", autouse=True)
def own_directories(tmp_path_factory):
    """Keep state files and logs apart from the user's; Triton's environment is the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        runtime = tmp_path_factory.mktemp("runtime")
        runtime.chmod(0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("DASK_CONFIG", str(tmp_path_factory.mktemp("dask")))
        yield


@pytest.fixture
def pythons_handler():
    """Install Python's handler of Ctrl-C: a shell's background job lacks it, and libraries may replace it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def triton():
    """A Triton with the models of this package."""
    with TritonServer.start() as server:
        yield server


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """A repository with `affine`, in ONNX and without a configuration, and `mirror`, in plain Python."""
    repository = tmp_path_factory.mktemp("tiny")
    save_affine(repository / "affine")
    save_mirror(repository / "mirror")
    return repository


@pytest.fixture(scope="session")
def tiny_triton(tiny_models):
    """A Triton with two models that take no time."""
    with TritonServer.start([tiny_models]) as server:
        yield server


@pytest.fixture(scope="session")
def gateway_server():
    """A Dask Gateway that nobody announces."""
    from dask_gateway import Gateway

    close_when_collected = Gateway.__del__

    def close_if_open(gateway):
        # dask-gateway 2026.3: what is closed closes itself again when it is collected, and fails; the traceback of
        # that, in the midst of another ast.parse, breaks Python 3.11's compiler
        with contextlib.suppress(RuntimeError):
            close_when_collected(gateway)

    Gateway.__del__ = close_if_open  # for good: the last ones are collected after the last test
    with DaskGatewayServer.start() as server:
        yield server
