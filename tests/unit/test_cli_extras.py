"""The command in a Python that lacks an extra: it says which, and the client's own commands need none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("connect", "models", "up", "demo", "doctor", "envoy", "usage", "bench", "study")

PROGRAM = Path(__file__).with_name("without_extras.py")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By command line: exit code, output and errors."""
    settings = tmp_path_factory.mktemp("jupyter")
    (settings / "eaf_inference_config.py").write_text(
        'c.Envoy.upstreams = ["grpc://127.0.0.1:1"]\nc.Envoy.behind_tls = True\n'
        'c.TokenPolicy.jwks_url = "http://127.0.0.1:1"\n'
    )
    asked = [*([each] for each in COMMANDS), *([each, "--help"] for each in COMMANDS), ["--help"]]
    asked.append(["up", "--users", "alice"])
    done = subprocess.run(
        [sys.executable, PROGRAM, json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(settings), "JUPYTER_CONFIG_DIR": str(settings)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        *((each, "facility") for each in ("up", "up --users alice", "envoy")),
        ("demo", "demo"),
        ("bench", "bench"),
        ("study", "bench"),
    ],
)
def test_a_command_without_its_extra_says_how_to_get_it(told, command, extra):
    code, out, err = told[command]
    assert (code, out) == (1, "")
    name = command.split()[0]
    assert f"`eaf-inference {name}` needs the {extra} extra: pip install 'eaf-inference[{extra}]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["--help", *(f"{each} --help" for each in COMMANDS)])
def test_help_is_there_without_any_extra(told, command):
    code, out, err = told[command]
    assert (code, err) == (0, "")
    assert out.startswith("usage: eaf-inference")


def test_the_doctor_works_without_any_extra_and_says_what_to_install(told):
    code, out, err = told["doctor"]
    assert (code, err) == (0, "")
    assert "-m pip install 'eaf-inference[facility]'" in out
    for extra in ("notebook", "dask", "hub", "facility", "demo"):
        (row,) = (line for line in out.splitlines() if f"extra '{extra}'" in line)
        assert row.startswith("note ")
        assert "lacks" in row


@pytest.mark.parametrize("command", ["connect", "models"])
def test_the_clients_commands_need_no_extra(told, command):
    code, out, err = told[command]
    assert (code, out) == (1, "")
    assert err.startswith("eaf-inference: Nothing names a Triton inference server.")
