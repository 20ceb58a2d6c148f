# PYTHON_ARGCOMPLETE_OK
"""The program `eaf-inference`: the client's commands, and those that other packages add by an entry point.

A package adds commands with an entry point in the group ``eaf_inference.commands``: a function that gets the
program's subparsers (see `eaf_inference._commands.add_command`).
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from io import TextIOWrapper
from typing import TYPE_CHECKING

from eaf_inference import __version__, check_command, client_commands, run_command
from eaf_inference._commands import FAILED, INTERRUPTED, help_text
from eaf_inference._text import printable_lines
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "make_parser"]

_OPERATORS = """\
extra for the operator's commands (up, envoy, usage; demo and study name their own):
  pip install 'eaf-inference[facility]'"""
_COMPLETION = """\
shell completion, after `pip install argcomplete`:
  eval "$(register-python-argcomplete eaf-inference)\""""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with these arguments, by default the process's own, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack a character
    parser = make_parser()
    with suppress(ModuleNotFoundError):  # argcomplete is optional
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    try:
        result: int = options.run(options)
    except (InferenceError, OSError) as error:
        print(printable_lines(f"eaf-inference: {error}"), file=sys.stderr)
        return FAILED
    except ModuleNotFoundError as error:
        if not options.extra or (error.name or "").startswith("eaf_"):
            raise
        print(
            f"eaf-inference: `eaf-inference {options.command}` needs the {options.extra} extra: "
            f"pip install 'eaf-inference[{options.extra}]' (the package {error.name} is not installed)",
            file=sys.stderr,
        )
        return FAILED
    except ImportError as error:
        if (error.name or "").startswith("eaf_"):
            raise
        print(
            f"eaf-inference: {error}. Probably a package has another version than eaf-inference needs: "
            f"`{sys.executable} -m pip check` names it.",
            file=sys.stderr,
        )
        return FAILED
    except KeyboardInterrupt:
        print("eaf-inference: interrupted", file=sys.stderr)
        return INTERRUPTED
    return result


def make_parser() -> argparse.ArgumentParser:
    """Return the program's parser with every installed command."""
    parser = argparse.ArgumentParser(
        prog="eaf-inference",
        **help_text(
            "Run graph neural networks on jets through a shared NVIDIA Triton Inference Server, or run a facility "
            "of real servers on this machine.",
            ["connect", "connect grpcs://triton.example.org:443 --token-file token", "up --help"],
            _OPERATORS,
            _COMPLETION,
        ),
    )
    parser.add_argument("--version", action="version", version=f"eaf-inference {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    client_commands.add_commands(commands)
    run_command.add_commands(commands)
    check_command.add_commands(commands)
    for entry in entry_points(group="eaf_inference.commands"):
        entry.load()(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
