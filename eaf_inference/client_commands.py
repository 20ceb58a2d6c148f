"""`eaf-inference connect`, `models` and `doctor`: the physicist's commands, which need only the plain client."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from eaf_inference._commands import FAILED, add_command, terminal_width
from eaf_inference._connection_options import URL, add_connection_options, connected

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from eaf_inference._commands import Commands
    from eaf_inference.doctor import Finding

__all__ = ["add_commands", "show_findings"]

_MOST_MODELS = 10  # that `connect` shows, as %triton_connect does
_MEASURED = 1.0  # seconds


def add_commands(commands: Commands) -> None:
    """Add the client's commands to the program."""
    parser = add_command(
        commands,
        "connect",
        _connect,
        summary="show where Triton is, your user name there and its models, as %triton_connect does",
        description="Find the facility's Triton as %triton_connect does, and print its address, your user name there "
        "and its busiest models. The exit code is 1 if there is none.",
        examples=["connect", "connect --explain", "connect grpcs://triton.example.org:443 --token-file token"],
    )
    parser.add_argument("url", metavar="URL", nargs="?", help=URL)
    add_connection_options(parser)
    parser = add_command(
        commands,
        "models",
        _models,
        summary="print the models of the facility's Triton, as triton.models() does",
        description="Print all models of the facility's Triton: their inputs and outputs, whether they are ready, "
        "and how long requests wait in the queue, measured for one second.",
        examples=["models", "models grpc://127.0.0.1:8001"],
    )
    parser.add_argument("url", metavar="URL", nargs="?", help=URL)
    add_connection_options(parser)
    parser = add_command(
        commands,
        "doctor",
        _doctor,
        summary="check what is installed, reachable and ready, and say how to fix the rest",
        description="Print what is installed, reachable and ready, and how to fix the rest. The exit code is 1 if "
        "there is a problem.",
        examples=["doctor", "doctor --json", "doctor > doctor.txt"],
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per finding")


def _connect(options: argparse.Namespace) -> int:
    """Print Triton's address, the user's name there and the busiest models."""
    with connected(options) as connection:
        print(connection)
        models = connection.models().busiest()
        print(models.text(_MOST_MODELS, width=terminal_width(), shown_by="`eaf-inference models`"))
    return 0


def _models(options: argparse.Namespace) -> int:
    """Print all models, with their queue times of one second."""
    with connected(options) as connection:
        connection.measure()
        time.sleep(_MEASURED)
        models = connection.models()
        print(models.text(len(models), width=terminal_width()))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """Print the doctor's findings."""
    from eaf_inference.doctor import findings

    return show_findings(list(findings()), as_json=options.json)


def show_findings(found: Sequence[Finding], *, as_json: bool) -> int:
    """Print findings as JSON or as a table, in colour where rich is installed, and return the exit code."""
    from eaf_inference.doctor import State, as_text

    text = json.dumps([each.as_dict() for each in found]) if as_json else as_text(found, width=terminal_width())
    if as_json or find_spec("rich") is None:
        print(text)
    else:
        from rich.console import Console
        from rich.text import Text

        coloured = Text(text)
        for state, style in {State.FINE: "green", State.NOTE: "yellow", State.PROBLEM: "bold red"}.items():
            coloured.highlight_regex(rf"(?m)^{state.value}\b", style)
        Console(highlight=False).print(coloured, soft_wrap=True)
    return FAILED if any(row.state is State.PROBLEM for row in found) else 0
