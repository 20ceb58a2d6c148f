"""The program without the extras: it names the missing one, and the client's commands work."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from eaf_facility.local.doctor import leftovers

COMMANDS = ("connect", "models", "check", "up", "demo", "doctor", "envoy", "usage", "study")

REINSTALL = "run: SKIP_JUPYTER_BUILDER=1 .venv/bin/pip install --no-deps -e ."
OWN = ("HOME", "JUPYTER_CONFIG_DIR", "XDG_RUNTIME_DIR")  # so that a facility on this machine is not found
PROGRAM = Path(__file__).with_name("without_extras.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Map each command line to its exit code, output and errors."""
    settings = tmp_path_factory.mktemp("jupyter")
    settings.chmod(0o700)
    (settings / "eaf_inference_config.py").write_text(
        'c.Envoy.upstreams = ["grpc://127.0.0.1:1"]\nc.Envoy.behind_tls = True\n'
        'c.TokenPolicy.jwks_url = "http://127.0.0.1:1"\n'
    )
    lines = [
        *([each] for each in COMMANDS if each != "check"),
        ["check", "."],
        *([each, "--help"] for each in COMMANDS),
        ["--help"],
    ]
    lines.append(["up", "--users", "alice"])
    done = subprocess.run(
        [sys.executable, PROGRAM, json.dumps(lines)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**dict.fromkeys(OWN, str(settings)), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_installed_package_declares_the_commands():
    for group in ("eaf_inference.commands", "eaf_inference.checks"):
        assert entry_points(group=group).names == {"facility"}, REINSTALL


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        *((each, "facility") for each in ("up", "up --users alice", "envoy")),
        ("check .", "deploy"),
        ("demo", "demo"),
        ("study", "study"),
    ],
)
def test_a_command_without_its_extra_says_how_to_install_it(results, command, extra):
    code, out, err = results[command]
    assert (code, out) == (1, "")
    name = command.split()[0]
    assert f"`eaf-inference {name}` needs the {extra} extra: pip install 'eaf-inference[{extra}]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["--help", *(f"{each} --help" for each in COMMANDS)])
def test_help_works_without_any_extra(results, command):
    code, out, err = results[command]
    assert (code, err) == (0, "")
    assert out.startswith("usage: eaf-inference")


def test_the_doctor_works_without_extras_and_says_what_to_install(results):
    code, out, err = results["doctor"]
    earlier = bool(leftovers())  # of a session that was killed on this machine
    assert (code, err) == (earlier, "")
    assert "-m pip install 'eaf-inference[facility]'" in out
    for extra in ("notebook", "dask", "hub", "facility", "demo"):
        (row,) = (line for line in out.splitlines() if f"extra '{extra}'" in line)
        assert row.startswith("note ")
        assert "lacks" in row


@pytest.mark.parametrize("command", ["connect", "models"])
def test_the_clients_commands_need_no_extra(results, command):
    code, out, err = results[command]
    assert (code, out) == (1, "")
    assert err.startswith("eaf-inference: Nothing names a Triton inference server.")
