"""What every command of `eaf-inference` shares: its help, its exit codes and the width of its tables."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

__all__ = ["FAILED", "INTERRUPTED", "add_command", "help_text", "terminal_width"]

FAILED = 1
INTERRUPTED = 130

_EXIT_CODES = "exit codes:\n  0 success, 1 failure or a problem found, 2 wrong usage, 130 interrupted"


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str,
    examples: Sequence[str],
    extra: str = "",
) -> argparse.ArgumentParser:
    """Add a command to the program.

    Parameters
    ----------
    commands
        The program's subparsers.
    run
        Runs the command and returns its exit code.
    summary
        One line for the program's own help.
    examples
        Command lines, without the program's name.
    extra
        The extra of this package that the command needs; empty when the plain client is enough.
    """
    parser = commands.add_parser(name, help=summary.replace("%", "%%"), **help_text(description, examples))
    parser.set_defaults(run=run, extra=extra)
    return parser


def help_text(description: str, examples: Sequence[str], *notes: str) -> dict[str, Any]:
    """Return the arguments of a parser whose help ends with examples, notes and the exit codes."""
    shown = "\n".join(["examples:", *(f"  eaf-inference {example}" for example in examples)])
    return {
        "description": textwrap.fill(description, max(40, shutil.get_terminal_size().columns - 2)),
        "epilog": "\n\n".join([shown, *notes, _EXIT_CODES]),
        "formatter_class": argparse.RawDescriptionHelpFormatter,  # a folded command could not be copied
    }


def terminal_width() -> int | None:
    """Return the columns of the terminal, or None when the output goes elsewhere and must not be folded."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
