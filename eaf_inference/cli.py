"""The command `eaf-inference`: what it can be asked, and how it says what happened."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from eaf_inference import client_commands
from eaf_inference._text import printable, printable_lines
from eaf_inference.client_commands import terminal_width
from eaf_inference.errors import ConfigurationError, InferenceError, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from rich.console import Console

    from eaf_inference.facility.machine import RunningFacility
    from eaf_inference.facility.shared import SharedFacility

__all__ = ["main"]

_FAILED = 1
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the process's own, and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks ends nothing
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        result: int = options.run(options)
    except (InferenceError, OSError) as error:
        print(printable_lines(f"eaf-inference: {error}"), file=sys.stderr)
        return _FAILED
    except ModuleNotFoundError as error:
        if not options.extra or (error.name or "").partition(".")[0] == __package__:
            raise
        print(
            f"eaf-inference: `eaf-inference {options.command}` needs the {options.extra} extra: "
            f"pip install 'eaf-inference[{options.extra}]' (the package {error.name} is not installed)",
            file=sys.stderr,
        )
        return _FAILED
    except KeyboardInterrupt:
        print("eaf-inference: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eaf-inference",
        description="GNN inference on jets through NVIDIA Triton: the client, and a facility of real servers on one "
        "machine.",
    )
    parser.set_defaults(extra="facility")  # what a command needs beside the plain client
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    client_commands.add_to(commands)
    _add_up(commands)
    _add_demo(commands)
    _add_doctor(commands)
    _add_envoy(commands)
    _add_usage(commands)
    _add_bench(commands)
    _add_study(commands)
    return parser


def _add_up(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "up",
        help="start a facility on this machine, and stop it with Ctrl-C",
        description=(
            "Start Triton and a Dask Gateway on this machine, wait until all is ready, and serve until Ctrl-C. "
            "Everything listens on the loopback interface. Notebooks of the same user find it by themselves. "
            "With --users: what a facility of many users has, JupyterHub, its token service, Envoy, two Tritons, "
            "Dask Gateway and Prometheus; what dies is started again."
        ),
    )
    parser.set_defaults(run=_up)
    parser.add_argument(
        "--models",
        metavar="DIR",
        action="append",
        default=[],
        help="a Triton model repository to serve instead of the package's own models (may be repeated)",
    )
    parser.add_argument(
        "--triton",
        metavar="N",
        type=int,
        help="how many replicas of Triton to start (default: 1; with --users 2)",
    )
    parser.add_argument("--users", metavar="NAMES", help="a facility for these users, separated by commas")
    parser.add_argument(
        "--grpc-port",
        metavar="PORT",
        type=int,
        help="gRPC port of the first replica, the next ones following it (default: free ports)",
    )
    parser.add_argument(
        "--triton-server",
        metavar="PATH",
        help=(
            "a tritonserver that is already there, such as /opt/tritonserver/bin/tritonserver; it uses the "
            "backends of its own installation, and its Python models the python3 beside it or else the first "
            "of your PATH. "
            "(default: the server of the nvidia-pytriton wheel, in an environment of its own that is made in "
            "your cache directory on first use)"
        ),
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="once all is ready, print what runs where as one JSON object; everything else goes to stderr",
    )


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="run the quickstart notebook on a facility of its own, and print what it measured",
        description="Start a facility on this machine, run the quickstart notebook on it, print what it measured, "
        "and stop everything. Runs from a clone of the project.",
    )
    parser.set_defaults(run=_demo, extra="demo")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("build/demo"),
        help="where the executed notebook and its HTML go (default: %(default)s)",
    )


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what is installed, reachable and ready, and what to do about the rest",
        description="Print what is installed, reachable and ready, and what to do about the rest. "
        "The exit code is 1 when there is a problem.",
    )
    parser.set_defaults(run=_doctor, extra="")


def _add_envoy(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "envoy",
        help="print the configuration of the Envoy in front of a facility's Tritons",
        description="Make Envoy's configuration of the sections Envoy and TokenPolicy of eaf_inference_config.py, "
        "and print it.",
    )
    parser.set_defaults(run=_envoy)
    parser.add_argument("--validate", action="store_true", help="let Envoy itself judge it first")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="put it into a file that only you can read",
    )


def _add_usage(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "usage",
        help="say what each user had of each model, as Prometheus has recorded it",
        description="Print inference requests, inferences, bytes and failures by user and model, as the Envoy in "
        "front of the Tritons counts them and Prometheus has recorded them.",
    )
    parser.set_defaults(run=_usage)
    parser.add_argument("--since", metavar="TIME", default="1d", help="30m, 12h, 1d, 2w (default: %(default)s)")
    parser.add_argument("--user", metavar="NAME", help="of this user only")
    parser.add_argument(
        "--prometheus", metavar="URL", help="which Prometheus to ask (default: Facility.prometheus_url)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object a user and model")


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from eaf_inference.bench import command

    parser = commands.add_parser(
        "bench",
        help="measure this client beside what users would pick instead, on one server",
        description="Measure this client beside coffea's triton_wrapper, tritonclient, perf_analyzer and local ONNX "
        "Runtime on the same server and jets, in turns, and print the ratios. A wrong score ends it. Ctrl-C keeps "
        "what was measured.",
    )
    parser.set_defaults(run=_bench, extra="bench")
    command.add_arguments(parser)


def _add_study(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from eaf_inference.study import command

    parser = commands.add_parser(
        "study",
        help="measure what a facility carries, as arXiv:2312.06838 did, and write a report",
        description="Timing against local inference, more workers against more Tritons, several models on one, and "
        "what a minute tells of the capacity: on this machine, with simulated accelerators where it has too few, or "
        "on a facility. Ctrl-C keeps what was measured.",
    )
    parser.set_defaults(run=_study, extra="bench")
    command.add_arguments(parser)


def _up(options: argparse.Namespace) -> int:
    if options.users is not None:
        return _up_for_users(options)
    console = _console(stderr=options.json)
    from eaf_inference.facility import machine, tables

    with _signals_as_interrupts(), ExitStack() as stack:
        with _progress_line(console) as progress:
            facility = stack.enter_context(
                machine.up(
                    options.models,
                    replicas=1 if options.triton is None else options.triton,
                    triton_server=options.triton_server,
                    grpc_port=options.grpc_port,
                    progress=progress,
                )
            )
        try:
            if options.json:
                print(json.dumps(facility.description.as_dict()), flush=True)
            else:
                tables.show(facility, console)
            _serve(facility, console)
        except KeyboardInterrupt:
            console.print("stopping")
            return 0


def _up_for_users(options: argparse.Namespace) -> int:
    console = _console(stderr=options.json)
    from eaf_inference.facility import shared, tables

    if options.grpc_port is not None:
        raise ConfigurationError("With --users nobody reaches Triton itself: --grpc-port has no use there.")
    with _signals_as_interrupts(), ExitStack() as stack:
        with _progress_line(console) as progress:
            facility = stack.enter_context(
                shared.up_for(
                    options.users.split(","),
                    options.models,
                    replicas=2 if options.triton is None else options.triton,
                    triton_server=options.triton_server,
                    progress=progress,
                )
            )
        try:
            if options.json:
                print(json.dumps(facility.as_dict()), flush=True)
            else:
                tables.show_shared(facility, console)
            _serve(facility, console)
        except KeyboardInterrupt:
            console.print("stopping")
            return 0


def _serve(facility: RunningFacility | SharedFacility, console: Console) -> NoReturn:
    """Keep the facility running and print what happens, until Ctrl-C or until that does not help."""
    ended = facility.watch(
        progress=lambda message: console.print(printable_lines(message), markup=False, soft_wrap=True)
    )
    raise ServerUnavailable(f"{ended.name} keeps crashing; shutting down. Its log: {ended.log}")


def _demo(options: argparse.Namespace) -> int:
    console = _console()
    from eaf_inference.facility import tables
    from eaf_inference.facility.demo import demo

    with _signals_as_interrupts(), _progress_line(console) as progress:
        executed = demo(options.output, progress=progress)
    tables.show_demo(executed, console)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from eaf_inference.bench import command

    console = _console()
    with _signals_as_interrupts(), _progress_line(console) as progress:
        return command.run(options, console, progress)


def _study(options: argparse.Namespace) -> int:
    from eaf_inference.study import command

    console = _console()
    with _signals_as_interrupts(), _progress_line(console) as progress:
        return command.run(options, console, progress)


def _doctor(options: argparse.Namespace) -> int:  # noqa: ARG001 - it has none
    from eaf_inference.facility.doctor import State, as_text, findings

    found = list(findings())
    text = as_text(found, width=terminal_width())
    if find_spec("rich") is None:  # it is of an extra that may be what is missing
        print(text)
    else:
        from rich.text import Text

        coloured = Text(text)
        for state, style in {State.FINE: "green", State.NOTE: "yellow", State.PROBLEM: "bold red"}.items():
            coloured.highlight_regex(rf"(?m)^{state.value}\b", style)
        _console().print(coloured, soft_wrap=True)
    return _FAILED if any(row.state is State.PROBLEM for row in found) else 0


def _envoy(options: argparse.Namespace) -> int:
    from eaf_inference.config import configured
    from eaf_inference.envoy.configuration import as_yaml, configuration, write
    from eaf_inference.envoy.settings import Envoy
    from eaf_inference.policy import TokenPolicy

    made = configuration(configured(Envoy), configured(TokenPolicy))
    text = as_yaml(made)
    if options.validate:
        from eaf_inference.facility.envoy import validate

        validate(made)
    if options.output:
        write(options.output, text)
    else:
        print(text, end="")
    return 0


def _usage(options: argparse.Namespace) -> int:
    from eaf_inference.config import load_facility
    from eaf_inference.metrics.usage import ask_usage, seconds_of

    facility = load_facility()
    facility.usage_prometheus_url = options.prometheus or facility.usage_prometheus_url
    rows = ask_usage(facility, options.user, since=seconds_of(options.since))
    if options.json:
        print(json.dumps([row.as_dict() for row in rows]))
        return 0
    console = _console()
    from eaf_inference.facility import tables

    if rows:
        tables.show_usage(rows, console)
    else:
        console.print(f"No use in the last {options.since}.")
    return 0


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has none, and a wrapped path cannot be copied
    return console


@contextmanager
def _progress_line(console: Console) -> Iterator[Callable[[str], None]]:
    """One line that changes on a terminal; elsewhere, a line for each message."""
    from rich.text import Text

    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda message: status.update(Text(printable(message)))
    else:
        yield lambda message: console.print(printable_lines(message), markup=False)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end a command the way Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the signal module has it
        raise KeyboardInterrupt

    # SIGINT too: a shell starts its background jobs with it ignored
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
