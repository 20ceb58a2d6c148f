"""The announcement of a local facility is private, and valid only while its writer lives."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from eaf_inference._files import runtime_directory
from eaf_inference.discovery.local_facility import LocalFacility, LocalGateway, Replica, announced, running
from eaf_inference.errors import ConfigurationError

WRITER = """
import sys
import tempfile
from eaf_inference.discovery import local_facility
facility = local_facility.LocalFacility(pid=int(sys.argv[1]), started=1.0, replicas=(), models=())
with local_facility.announced(facility):
    print("announced", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "eaf-inference"


def facility(pid: int = 1, started: float = 5.0) -> LocalFacility:
    replica = Replica(
        grpc="grpc://localhost:1", http="http://localhost:2", metrics="http://localhost:3", pid=9, log="/l"
    )
    gateway = LocalGateway(
        address="http://localhost:4",
        pid=10,
        log="/g",
        password_file="/p",  # noqa: S106 - its path
        cluster_logs="/c",
    )
    return LocalFacility(pid=pid, started=started, replicas=(replica,), models=("a", "b"), gateway=gateway)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_facility_is_announced_until_its_block_ends():
    made = facility()
    with announced(made) as path:
        assert running() == [made]
        assert running()[0].urls == ("grpc://localhost:1",)
    assert not path.exists()
    assert running() == []


def test_an_announcement_is_removed_if_its_block_fails(runtime):
    with pytest.raises(ZeroDivisionError), announced(facility()):
        raise ZeroDivisionError
    assert list(runtime.iterdir()) == []


def test_an_announcement_is_readable_by_its_user_alone(runtime):
    runtime.mkdir(mode=0o755)
    old = os.umask(0)
    try:
        with announced(facility()) as path:
            assert (mode(runtime), mode(path)) == (0o700, 0o600)
    finally:
        os.umask(old)


def test_the_newest_facility_comes_first():
    with ExitStack() as stack:
        for pid, started in ((1, 5.0), (2, 7.0), (3, 6.0)):
            stack.enter_context(announced(facility(pid, started)))
        assert [found.pid for found in running()] == [2, 3, 1]


def test_the_announcement_of_a_dead_process_is_removed(runtime):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, "77"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "announced\n"
        assert [found.pid for found in running()] == [77]
        process.kill()
        process.wait(10)
        assert (runtime / "facility-77.json").exists()
        assert running() == []
        assert not (runtime / "facility-77.json").exists()


@pytest.mark.parametrize("gateway", [{}, {"gateway": None}])
def test_an_announcement_without_a_gateway_is_read(gateway):
    with announced(facility()) as path:
        note = json.loads(path.read_text())
        del note["gateway"]
        path.write_text(json.dumps(note | gateway))
        assert running() == [dataclasses.replace(facility(), gateway=None)]


NOTE = {"pid": 1, "started": 1, "replicas": [], "models": []}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        *map(json.dumps, (NOTE | {"replicas": [{}]}, NOTE | {"gateway": {"url": "http://localhost:4"}})),
    ],
)
def test_an_announcement_of_another_version_is_skipped_and_logged(content, caplog):
    with announced(facility(1)) as path, announced(facility(2)):
        path.write_text(content)
        assert [found.pid for found in running()] == [2]
        assert f"{path}, cannot be read" in caplog.text
        assert path.exists()


def refused(why: str):
    return pytest.raises(ConfigurationError, match=f"eaf-inference cannot be used: {why}.*set XDG_RUNTIME_DIR")


def test_a_runtime_directory_that_is_a_link_is_rejected(runtime, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    runtime.symlink_to(tmp_path / "elsewhere")
    with refused("it is a symbolic link"):
        running()
    assert mode(tmp_path / "elsewhere") == 0o755


@pytest.mark.parametrize("dangling", [False, True])
def test_a_runtime_directory_must_be_a_directory(runtime, tmp_path, dangling):
    runtime.symlink_to(tmp_path / "nowhere") if dangling else runtime.write_text("")
    with refused("it is a symbolic link" if dangling else "File exists"), announced(facility()):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_runtime_directory_of_another_user_is_rejected(runtime):
    runtime.mkdir(mode=0o755)
    os.chown(runtime, 65534, -1)
    with refused("it belongs to the user nobody"):
        running()
    assert mode(runtime) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_runtime_directory_of_root_is_rejected_for_other_users():
    """A user who is not root can neither read nor change it, but gets no PermissionError."""
    code = "import os; from eaf_inference.discovery import local_facility; os.setuid(65534)"
    code += "; print(local_facility.serving(['grpc://a:1']))"
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        (Path(directory) / "eaf-inference").mkdir(mode=0o700)
        environment = {**os.environ, "XDG_RUNTIME_DIR": directory}
        command = [sys.executable, "-c", f"{code}; local_facility.running()"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "None\n"
    assert "ConfigurationError: The directory" in done.stderr


def test_an_announcement_of_nested_brackets_is_skipped(caplog):
    with announced(facility(1)) as path, announced(facility(2)):
        path.write_text("[" * 100_000)
        assert [found.pid for found in running()] == [2]
        assert f"{path}, cannot be read" in caplog.text


def test_the_runtime_directory_defaults_to_a_private_one_in_tmp(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert runtime_directory() == tmp_path / f"eaf-inference-{os.geteuid()}"
    assert mode(runtime_directory()) == 0o700
