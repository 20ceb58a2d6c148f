"""`eaf-inference connect` and `models`: what the magics show, on a terminal; they need the plain client only."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

from eaf_inference.connection import Connection, connect
from eaf_inference.credentials import TokenFile

if TYPE_CHECKING:
    import argparse

__all__ = ["add_to", "terminal_width"]

_MOST_MODELS = 10  # that `connect` shows, as %triton_connect does
_MEASURED = 1.0  # seconds


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both to the program's commands."""
    parser = commands.add_parser(
        "connect",
        help="say where Triton is, as whom you reach it and what it serves, as %%triton_connect does",
        description="Find the facility's Triton as %%triton_connect does, and print where it is, as whom you reach "
        "it and its busiest models. The exit code is 1 where there is none.",
    )
    parser.set_defaults(run=_connect, extra="")
    _add_arguments(parser)
    parser = commands.add_parser(
        "models",
        help="print the models of the facility's Triton, as triton.models() does",
        description="Print all models of the facility's Triton: their inputs and outputs, whether they are ready, "
        "and how long requests wait in the queue, which is measured for one second.",
    )
    parser.set_defaults(run=_models, extra="")
    _add_arguments(parser)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """What both can be asked, as %triton_connect can."""
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="grpc://host:port or grpcs://host:port; found by itself when left out"
    )
    parser.add_argument("--token-file", metavar="F", help="file that holds your bearer token and is renewed in place")
    parser.add_argument("--ca", metavar="F", help="PEM file of the certificate authorities to trust")
    parser.add_argument(
        "--allow-insecure-token",
        action="store_true",
        help="send the token over an unencrypted channel to another machine",
    )
    parser.add_argument("--explain", action="store_true", help="show what every source of discovery said")


def _connect(options: argparse.Namespace) -> int:
    """Print where Triton is, as whom it is reached, and its busiest models."""
    with _connected(options) as connection:
        print(connection)
        models = connection.models().busiest()
        print(models.text(_MOST_MODELS, width=terminal_width(), shown_by="`eaf-inference models`"))
    return 0


def _models(options: argparse.Namespace) -> int:
    """Print all models, with what a second tells of their queues."""
    with _connected(options) as connection:
        connection.measure()
        time.sleep(_MEASURED)
        models = connection.models()
        print(models.text(len(models), width=terminal_width()))
    return 0


def _connected(options: argparse.Namespace) -> Connection:
    connection = connect(
        options.url,
        token=TokenFile(options.token_file) if options.token_file else None,
        ca=options.ca,
        allow_insecure_token=options.allow_insecure_token or None,
        explain=options.explain,
    )
    if options.explain:
        print(connection.attempts, end="\n\n")
    return connection


def terminal_width() -> int | None:
    """How many columns there are; None where the output is no terminal, so that nothing is folded there."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
