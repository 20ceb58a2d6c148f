"""The program `eaf-inference`: version, help, exit codes and shell completion."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys

import pytest

from eaf_facility.inspection import checks
from eaf_inference import __version__, client_commands, doctor
from eaf_inference.cli import main, make_parser
from eaf_inference.doctor import Finding, State

COMMANDS = ("connect", "models", "run", "check", "doctor", "up", "demo", "envoy", "usage", "study")


def run(*arguments):
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


def test_the_version_is_that_of_the_package(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"eaf-inference {__version__}\n"


def test_the_programs_help_names_every_command_and_the_extra_to_install(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in shown
    assert "pip install 'eaf-inference[facility]'" in shown
    assert "register-python-argcomplete eaf-inference" in shown


def test_the_commands_beside_the_extra_need_no_other():
    parser = make_parser()
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    extras = {name: each.get_default("extra") for name, each in commands.choices.items()}
    (named,) = re.findall(r"operator's commands \(([\w, ]+);", parser.format_help())
    assert {extras[name] for name in named.split(", ")} == {"facility"}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_ends_with_examples_and_exit_codes(capsys, command):
    assert run(*filter(None, [command]), "--help") == 0
    _, _, end = capsys.readouterr().out.partition("\nexamples:\n")
    assert end.startswith(f"  eaf-inference {command}".rstrip())
    assert end.endswith("\nexit codes:\n  0 success, 1 failure or a problem found, 2 wrong usage, 130 interrupted\n")


def test_the_examples_in_the_help_are_valid_command_lines(capsys):
    parsed = []
    for command in COMMANDS:
        run(command, "--help")
        examples = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  eaf-inf")]
        assert examples
        parsed += [line.partition(" > ")[0].split()[1:] for line in examples]
    for arguments in parsed:
        assert make_parser().parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize(("state", "code"), [(State.FINE, 0), (State.NOTE, 0), (State.PROBLEM, 1)])
def test_the_doctors_exit_code_is_1_only_if_there_is_a_problem(monkeypatch, capsys, state, code):
    monkeypatch.setattr(doctor, "findings", lambda: iter([Finding("Triton", state, "installed")]))
    assert run("doctor") == code
    assert capsys.readouterr().out.splitlines()[-1].split() == [state.value, "Triton", "installed"]


def test_the_operators_doctor_prints_its_own_findings(monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # older versions of jupyter_core warn without it
    found, path = Finding("edge proxy", State.PROBLEM, "expired", "renew it"), "/run/user/1000/bt_u1000"
    monkeypatch.setattr(checks, "findings", lambda setup: [found] if setup.token_file == path else [])
    assert run("doctor", "--operator", "--token-file", path, "--json") == 1
    assert json.loads(capsys.readouterr().out) == [found.as_dict()]
    assert list(found.as_dict().values()) == ["problem", "edge proxy", "expired", "renew it"]


def test_the_exit_code_of_a_failed_command_is_1(monkeypatch, capsys):
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # older versions of jupyter_core warn without it
    assert run("connect", "--token-file", "/absent") == 1
    assert capsys.readouterr().err.startswith("eaf-inference: ")


@pytest.mark.parametrize("arguments", [[], ["absent"], ["up", "--absent"], ["up", "--triton", "two"]])
def test_the_exit_code_of_wrong_usage_is_2(capsys, arguments):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: eaf-inference ")


def test_a_package_that_is_too_old_is_answered_with_what_names_it(monkeypatch, capsys):
    def too_old():
        raise ImportError("cannot import name 'GetMessageClass'", name="google.protobuf.message_factory")

    monkeypatch.setattr(doctor, "findings", too_old)
    assert run("doctor") == 1
    assert re.search("cannot import name .*another version than .* -m pip check` names it", capsys.readouterr().err)


def test_the_exit_code_of_an_interrupted_command_is_130(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(client_commands, "connected", interrupted)
    assert run("models") == 130
    assert capsys.readouterr().err == "eaf-inference: interrupted\n"


@pytest.mark.parametrize(
    ("line", "expected"), [("eaf-inference con", ["connect"]), ("eaf-inference up --us", ["--users"])]
)
def test_argcomplete_completes_commands_and_options(tmp_path, line, expected):
    pytest.importorskip("argcomplete", reason="the oldest environment has no [notebook]")
    output = tmp_path / "completions"
    completion = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(output),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run(
        [sys.executable, "-m", "eaf_inference.cli"],
        env=os.environ | completion,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert [each.strip() for each in output.read_text().split("\n")] == expected
