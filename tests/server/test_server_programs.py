"""Jupyter programs list the extension, load it despite broken parts, and match openapi.yaml."""

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
from browser import CLUSTERS
from jsonschema import Draft4Validator
from recorded.replay import documented, serve

import eaf_inference
from eaf_facility.process.ports import free_ports
from eaf_inference.metrics.advice import Advice, Kind
from eaf_inference.metrics.snapshot import Busy, Gpu, Host, ModelLoad, ReplicaLoad, Snapshot, Source
from eaf_inference.notebook.monitor import Monitor, _point
from eaf_inference.notebook.work import work_of

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "jupyter-config" / "server-config" / "eaf_inference.json"
OPENAPI = ROOT / "eaf_inference" / "server" / "openapi.yaml"
TOKEN = "of-this-test"  # noqa: S105
PREFIX = "/user/alice/"


@pytest.fixture
def environment(tmp_path):
    """The environment of a new user, with the configuration file that the wheel installs."""
    directory = tmp_path / "config" / "jupyter_server_config.d"
    directory.mkdir(parents=True)
    shutil.copy(CONFIGURATION, directory)
    directories = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    return os.environ | directories | {"JUPYTER_PREFER_ENV_PATH": "0"}


@contextmanager
def jupyter(program, environment, *arguments):
    """Run a Jupyter program; yields a function that sends requests, its URL and its log."""
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
    """A site with the recorded metrics of a GPU."""
    with serve() as site:
        site.pages["/metrics"] = documented("triton_gpu")
        yield site


def listen(url):
    """Return the first frames that a panel receives, with several snapshots and each kind of frame."""
    address = f"{url}eaf-inference/api/stream".replace("http", "ws", 1)
    with contextlib.closing(websocket.create_connection(address, 20, header=[f"Authorization: token {TOKEN}"])) as it:
        it.send(CLUSTERS)
        kinds = []
        frames = []
        while kinds.count("snapshot") < 3 or not {"facility", "clusters"} <= set(kinds):
            frames.append(json.loads(it.recv()))
            kinds.append(frames[-1]["type"])
        return frames


def as_json_schema(node):
    """Convert `nullable` of OpenAPI 3.0 to JSON Schema."""
    if isinstance(node, list):
        return [as_json_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    rest = {key: as_json_schema(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [{"type": "null"}, rest]} if node.get("nullable") else rest


def problems(content, schema):
    """Return the differences between the content and the schema of this name."""
    document = as_json_schema(yaml.safe_load(OPENAPI.read_text()))
    validator = Draft4Validator({**document, "$ref": f"#/components/schemas/{schema}"})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]


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
def test_it_loads_by_its_configuration_file_despite_broken_parts(environment, program, broken, text, problem):
    directory = environment["JUPYTER_CONFIG_DIR"]
    (Path(directory) / broken).write_text(text)
    environment |= {"PYTHONPATH": directory, "EAF_TRITON_URL": "grpc://127.0.0.1:1"}
    with jupyter(program, environment) as (ask, _, log):
        reply = ask("eaf-inference/api/facility")
        assert reply["state"] == "misconfigured"
        assert problem in reply["problem"]
        assert ask("api/status")
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            ask("eaf-inference/api/facility", token="guessed")  # noqa: S106
        refused.value.close()
    assert "Traceback" not in log.read_text().partition("is running at")[0]


def test_it_loads_by_a_command_line_option(environment, tmp_path):
    environment |= {"JUPYTER_CONFIG_DIR": str(tmp_path)}
    with jupyter("jupyter_server", environment, '--ServerApp.jpserver_extensions={"eaf_inference.server": True}') as (
        ask,
        *_,
    ):
        assert ask("eaf-inference/api/facility")["state"] == "no-facility"


@pytest.mark.parametrize("kind", [Snapshot, Busy, Gpu, ModelLoad, ReplicaLoad, Host, Source])
def test_openapi_describes_every_field(kind):
    schema = yaml.safe_load(OPENAPI.read_text())["components"]["schemas"][kind.__name__]
    assert set(schema["required"]) == set(schema["properties"]) == {field.name for field in fields(kind)}
    may_be_null = {field.name for field in fields(kind) if str(field.type).endswith("None")}
    assert {name for name, each in schema["properties"].items() if each.get("nullable")} == may_be_null


def test_openapi_lists_every_kind_of_advice():
    schema = yaml.safe_load(OPENAPI.read_text())["components"]["schemas"]["Advice"]
    assert schema["properties"]["kind"]["enum"] == [kind.value for kind in Kind]
    assert problems(Advice(Kind.STUCK, "Title.", "Text.").as_dict(), "Advice") == []


def test_a_session_matches_openapi(tiny_triton):
    with eaf_inference.connect(tiny_triton.grpc) as triton:
        session = work_of(triton).look()
    assert problems({"session": session}, "SessionMessage") == []
    assert problems(work_of(triton).last(), "Session") == []


def test_the_widgets_traits_match_openapi():
    schema = yaml.safe_load(OPENAPI.read_text())["components"]["schemas"]["WidgetTraits"]
    own = {name for name in Monitor.class_traits(sync=True) if name in vars(Monitor)}
    assert set(schema["required"]) == set(schema["properties"]) == own - {"_esm"}
    snapshot = Snapshot(1.0, busy=Busy(0.5, "GPU", estimated=False))
    assert problems(_point(snapshot, 3.0), "WidgetPoint") == []
    assert problems(_point(Snapshot(1.0)), "WidgetPoint") == []


def test_responses_and_frames_match_openapi(environment, tiny_triton, site):
    settings = {"urls": [tiny_triton.grpc], "metrics_urls": [f"{site.url}/metrics", tiny_triton.metrics]}
    configuration = Path(environment["JUPYTER_CONFIG_DIR"]) / "eaf_inference_config.json"
    configuration.write_text(json.dumps({"Facility": settings}))
    with jupyter("jupyter_server", environment) as (ask, url, _):
        frames = listen(url)
        assert [found for frame in frames if (found := problems(frame, f"{frame['type'].title()}Frame"))] == []
        history = ask("eaf-inference/api/history")
        assert all(history["snapshots"][-1][rows] for rows in ("gpus", "models", "instances", "hosts", "sources"))
        command = [
            *(Path(sys.executable).with_name("schemathesis"), "run", OPENAPI),
            *("--url", f"{url}eaf-inference/api", "--header", f"Authorization: token {TOKEN}"),
            # it expects 401, but Jupyter Server answers 403, as test_server_access checks
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
