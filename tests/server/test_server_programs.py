"""The programs that users start: they list the extension, load it whatever is broken, and keep to the description."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
import websocket
import yaml
from recorded.replay import documented, serve

from eaf_inference.facility.ports import free_ports
from eaf_inference.metrics.snapshot import Busy, Gpu, Host, Instance, ModelLoad, Snapshot, Source

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "jupyter-config" / "server-config" / "eaf_inference.json"
OPENAPI = ROOT / "eaf_inference" / "server" / "openapi.yaml"
TOKEN = "of-this-test"  # noqa: S105
PREFIX = "/user/alice/"


@pytest.fixture
def environment(tmp_path):
    """A user of her own, whose Jupyter has the configuration file that the wheel installs."""
    directory = tmp_path / "config" / "jupyter_server_config.d"
    directory.mkdir(parents=True)
    shutil.copy(CONFIGURATION, directory)
    directories = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    return os.environ | directories | {"JUPYTER_PREFER_ENV_PATH": "0"}


@contextmanager
def jupyter(program, environment, *arguments):
    """The running program; a function that asks it."""
    (port,) = free_ports(1)
    log = Path(environment["JUPYTER_CONFIG_DIR"]) / "log"
    command = [
        *(sys.executable, "-m", program, "--allow-root", "--no-browser"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={PREFIX}"),
        *(f"--IdentityProvider.token={TOKEN}", *arguments),
    ]
    url = f"http://127.0.0.1:{port}{PREFIX}"

    def ask(name, token=TOKEN):
        request = urllib.request.Request(f"{url}{name}", headers={"Authorization": f"token {token}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310
            return json.load(reply)

    with log.open("wb") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process:
        try:
            ends = time.monotonic() + 40
            while True:
                try:
                    ask("api/status")
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < ends, log.read_text()
                    time.sleep(0.1)
            yield ask, url, log
        finally:
            process.terminate()
            assert process.wait(20) is not None


@pytest.fixture
def site():
    """Where a GPU's recorded metrics are."""
    with serve() as site:
        site.pages["/metrics"] = documented("triton_gpu")
        yield site


def listen(url, frames):
    """What a panel does that is open for a moment."""
    address = f"{url}eaf-inference/api/stream".replace("http", "ws", 1)
    with contextlib.closing(websocket.create_connection(address, 20, header=[f"Authorization: token {TOKEN}"])) as it:
        for _ in range(frames):
            it.recv()


def test_the_extension_is_listed_and_ok(environment):
    command = [sys.executable, "-m", "jupyter", "server", "extension", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    said = (done.stdout + done.stderr).partition("eaf_inference.server")[2]
    assert "enabled" in said.splitlines()[0]
    assert "OK" in said


@pytest.mark.parametrize(
    ("program", "broken", "text", "problem"),
    [
        ("jupyter_server", "eaf_inference_config.py", "import sys; sys.exit(1)", "SystemExit"),
        ("jupyterlab", "grpc.py", "raise ImportError('of another Python')", "of another Python"),
    ],
)
def test_it_loads_by_its_configuration_file_whatever_is_broken(environment, program, broken, text, problem):
    directory = environment["JUPYTER_CONFIG_DIR"]
    (Path(directory) / broken).write_text(text)
    environment |= {"PYTHONPATH": directory, "EAF_TRITON_URL": "grpc://127.0.0.1:1"}
    with jupyter(program, environment) as (ask, _, log):
        told = ask("eaf-inference/api/facility")
        assert told["state"] == "misconfigured"
        assert problem in told["problem"]
        assert ask("api/status")
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            ask("eaf-inference/api/facility", token="guessed")  # noqa: S106
        refused.value.close()
    assert "Traceback" not in log.read_text().partition("is running at")[0]


def test_it_loads_when_the_command_line_says_so(environment, tmp_path):
    environment |= {"JUPYTER_CONFIG_DIR": str(tmp_path)}
    with jupyter("jupyter_server", environment, '--ServerApp.jpserver_extensions={"eaf_inference.server": True}') as (
        ask,
        *_,
    ):
        assert ask("eaf-inference/api/facility")["state"] == "no-facility"


@pytest.mark.parametrize("kind", [Snapshot, Busy, Gpu, ModelLoad, Instance, Host, Source])
def test_the_description_knows_every_field(kind):
    schema = yaml.safe_load(OPENAPI.read_text())["components"]["schemas"][kind.__name__]
    assert set(schema["required"]) == set(schema["properties"]) == {field.name for field in fields(kind)}
    may_be_null = {field.name for field in fields(kind) if str(field.type).endswith("None")}
    assert {name for name, each in schema["properties"].items() if each.get("nullable")} == may_be_null


def test_the_description_holds(environment, tiny_triton, site):
    settings = {"urls": [tiny_triton.grpc], "metrics_urls": [f"{site.url}/metrics", tiny_triton.metrics]}
    configuration = Path(environment["JUPYTER_CONFIG_DIR"]) / "eaf_inference_config.json"
    configuration.write_text(json.dumps({"Facility": settings}))
    with jupyter("jupyter_server", environment) as (ask, url, _):
        listen(url, frames=4)
        history = ask("eaf-inference/api/history")
        assert all(history["snapshots"][-1][rows] for rows in ("gpus", "models", "instances", "hosts", "sources"))
        command = [
            *(Path(sys.executable).with_name("schemathesis"), "run", OPENAPI),
            *("--url", f"{url}eaf-inference/api", "--header", f"Authorization: token {TOKEN}"),
            # it insists on 401; Jupyter Server answers 403, which test_server_access sees to
            *("--exclude-checks", "missing_required_header"),
            *("--max-examples", "15", "--no-color", "--suppress-health-check", "all"),
            *("--generation-database", "none"),
        ]
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            cwd=environment["JUPYTER_CONFIG_DIR"],
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
