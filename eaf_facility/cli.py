"""The operator's commands of `eaf-inference`: `up`, `demo`, `envoy`, `usage` and `study`.

The program finds them by the entry point ``eaf_inference.commands``. Each imports what it needs when it runs, so that
its help is there without the extra that it needs.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from eaf_facility._terminal import make_console, progress_line, signals_as_interrupts
from eaf_facility.study import command as study
from eaf_inference._commands import add_command
from eaf_inference._text import printable_lines
from eaf_inference.errors import ConfigurationError, ServerUnavailable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from eaf_facility.local.multi_user import SharedFacility
    from eaf_facility.local.single_user import RunningFacility
    from eaf_inference._commands import Commands
    from eaf_inference.metrics.usage import Usage
    from eaf_inference.metrics.usage_by_owner import OwnedUsage

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add the operator's commands to the program."""
    _add_up(commands)
    _add_demo(commands)
    _add_envoy(commands)
    _add_usage(commands)
    _add_study(commands)
    _add_to_doctor(commands)


def _add_up(commands: Commands) -> None:
    parser = add_command(
        commands,
        "up",
        _up,
        extra="facility",
        summary="start a facility on this machine, and stop it with Ctrl-C",
        description=(
            "Start Triton and a Dask Gateway on this machine, wait until they are ready, and serve until Ctrl-C. "
            "Everything but Slurm listens on the loopback interface. Your notebooks find the facility by themselves. "
            "With --users, start what a facility for several users has: JupyterHub, its token service, Envoy, two "
            "Tritons, a Dask Gateway and Prometheus. A server that dies is started again."
        ),
        examples=[
            "up",
            "up --models ./models --triton 2",
            "up --store ~/my-models",
            "up --store s3",
            "up --users alice,bob",
            "up --batch slurm",
        ],
    )
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
        help="the number of Triton replicas (default: 1; 2 with --users)",
    )
    parser.add_argument("--users", metavar="NAMES", help="start a facility for these users, separated by commas")
    parser.add_argument(
        "--batch",
        choices=("slurm",),
        help=(
            "run Dask's schedulers and workers as jobs of a Slurm, which is started on this machine too (needs "
            "Debian's slurm-wlm, munge and, for jobs of several users, root and sudo). As root, each user's clusters "
            "are that user's jobs. Slurm's two ports are open on all interfaces; they answer only holders of its key"
        ),
    )
    parser.add_argument(
        "--grpc-port",
        metavar="PORT",
        type=int,
        help="gRPC port of the first replica; the others get the following ports (default: free ports)",
    )
    parser.add_argument(
        "--triton-server",
        metavar="PATH",
        help=(
            "an installed tritonserver, such as /opt/tritonserver/bin/tritonserver. It uses the backends of its own "
            "installation; its Python models run in the python3 beside it, or else in the first one on your PATH "
            "(default: the server of the nvidia-pytriton wheel, installed into your cache directory on first use)"
        ),
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help=(
            "the directory into which `triton.deploy` puts models, and from which they are served; it is made if "
            "need be, and kept. s3 stands for a bucket of the S3 stand-in (moto), which keeps them in memory "
            "(default: a new directory, which is removed when the facility ends)"
        ),
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="once the facility is ready, print its addresses as one JSON object; all other output goes to stderr",
    )


def _add_demo(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        _demo,
        extra="demo",
        summary="run the quickstart notebook on a facility of its own, and print its measurements",
        description="Start a facility on this machine, run the quickstart notebook on it, print its measurements, "
        "and stop everything. Needs a clone of the project.",
        examples=["demo", "demo --output /tmp/demo"],
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("build/demo"),
        help="directory for the executed notebook and its HTML (default: %(default)s)",
    )


def _add_envoy(commands: Commands) -> None:
    parser = add_command(
        commands,
        "envoy",
        _envoy,
        extra="facility",
        summary="print the configuration of the Envoy in front of a facility's Tritons",
        description="Generate Envoy's configuration from the sections Envoy and TokenPolicy of "
        "eaf_inference_config.py, and print it. Envoy reads where its certificate is from a second, small file, "
        "Envoy.tls_secret, so that it notices when the certificate is renewed.",
        examples=[
            "envoy --validate",
            "envoy --output /etc/envoy/envoy.yaml",
            "envoy --tls-secret > /etc/envoy/tls-secret.yaml",
        ],
    )
    parser.add_argument("--validate", action="store_true", help="have Envoy check the configuration first")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write it to a file that only you can read, and the file named by Envoy.tls_secret beside it",
    )
    parser.add_argument(
        "--tls-secret", action="store_true", help="print the content of the file Envoy.tls_secret instead"
    )


def _add_usage(commands: Commands) -> None:
    parser = add_command(
        commands,
        "usage",
        _usage,
        extra="facility",
        summary="print how much each user used each model, as recorded by Prometheus",
        description="Print the requests, inferences, bytes and failures of each user and model, as counted by the "
        "Envoy in front of the Tritons and recorded by Prometheus.",
        examples=["usage", "usage --since 1w --user alice", "usage --by owner", "usage --json"],
    )
    parser.add_argument("--since", metavar="TIME", default="1d", help="30m, 12h, 1d, 2w (default: %(default)s)")
    parser.add_argument("--user", metavar="NAME", help="this user only")
    parser.add_argument(
        "--by",
        choices=("model", "owner"),
        default="model",
        help="model: each user and model; owner: the users together, for all models that one user deployed (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--prometheus",
        metavar="URL",
        help="the Prometheus to query (default: Facility.usage_prometheus_url, else Facility.prometheus_url)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per user and model")


def _add_study(commands: Commands) -> None:
    parser = add_command(
        commands,
        "study",
        _study,
        extra="study",
        summary="measure a facility's capacity, as arXiv:2312.06838 did, and write a report",
        description="Measure timing against local inference, scaling with workers and Tritons, several models on one "
        "server, and the capacity that one minute of metrics predicts: on this machine, with simulated accelerators "
        "if it has too few, or on a facility. Ctrl-C keeps the results so far.",
        examples=["study --quick", "study --parts timing,workers --output /tmp/study"],
    )
    study.add_arguments(parser)


def _add_to_doctor(commands: Commands) -> None:
    parser = commands.choices["doctor"]
    parser.add_argument(
        "--operator",
        action="store_true",
        help="check a live facility from inside instead, by the operator's eaf_inference_config.py",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        default="",
        help="with --operator: a token for the edge proxy (default: the token service is asked for one, with the "
        "Hub token in JUPYTERHUB_API_TOKEN)",
    )
    parser.set_defaults(run=partial(_doctor, otherwise=parser.get_default("run")), extra="facility")


def _up(options: argparse.Namespace) -> int:
    if options.users is not None:
        return _up_for_users(options)
    console = make_console(stderr=options.json)
    from eaf_facility.local import report, single_user

    with signals_as_interrupts(), ExitStack() as stack:
        with progress_line(console) as progress:
            facility = stack.enter_context(
                single_user.up(
                    options.models,
                    replicas=1 if options.triton is None else options.triton,
                    triton_server=options.triton_server,
                    store=options.store,
                    grpc_port=options.grpc_port,
                    batch=options.batch,
                    progress=progress,
                )
            )
        try:
            if options.json:
                print(json.dumps(facility.description.as_dict()), flush=True)
            else:
                report.show(facility, console)
            _serve(facility, console)
        except KeyboardInterrupt:
            console.print("stopping")
            return 0


def _up_for_users(options: argparse.Namespace) -> int:
    console = make_console(stderr=options.json)
    from eaf_facility.local import multi_user, report

    if options.grpc_port is not None:
        raise ConfigurationError(
            "--grpc-port cannot be combined with --users: users reach Triton through Envoy only. Leave it out."
        )
    if options.batch is not None:
        raise ConfigurationError("--batch cannot be combined with --users. Leave one of them out.")
    with signals_as_interrupts(), ExitStack() as stack:
        with progress_line(console) as progress:
            facility = stack.enter_context(
                multi_user.up_for(
                    options.users.split(","),
                    options.models,
                    replicas=2 if options.triton is None else options.triton,
                    triton_server=options.triton_server,
                    store=options.store,
                    progress=progress,
                )
            )
        try:
            if options.json:
                print(json.dumps(facility.as_dict()), flush=True)
            else:
                report.show_shared(facility, console)
            _serve(facility, console)
        except KeyboardInterrupt:
            console.print("stopping")
            return 0


def _serve(facility: RunningFacility | SharedFacility, console: Console) -> NoReturn:
    """Keep the facility running and print what happens, until Ctrl-C or until a server keeps crashing."""
    crashed = facility.watch(
        progress=lambda message: console.print(printable_lines(message), markup=False, soft_wrap=True)
    )
    raise ServerUnavailable(f"{crashed.name} keeps crashing; shutting down. Its log: {crashed.log}")


def _demo(options: argparse.Namespace) -> int:
    console = make_console()
    from eaf_facility.local import report
    from eaf_facility.local.demo import demo

    with signals_as_interrupts(), progress_line(console) as progress:
        executed = demo(options.output, progress=progress)
    report.show_demo(executed, console)
    return 0


def _study(options: argparse.Namespace) -> int:
    console = make_console()
    with signals_as_interrupts(), progress_line(console) as progress:
        return study.run(options, console, progress)


def _envoy(options: argparse.Namespace) -> int:
    from eaf_facility.envoy.configuration import as_yaml, configuration
    from eaf_facility.envoy.settings import Envoy
    from eaf_facility.envoy.tls import tls_secret, with_fixed_certificate
    from eaf_facility.token_policy import TokenPolicy
    from eaf_inference._files import write_private
    from eaf_inference.config import configured

    settings = configured(Envoy)
    made = configuration(settings, configured(TokenPolicy))
    if settings.behind_tls and options.tls_secret:
        raise ConfigurationError("Envoy.behind_tls is set, so Envoy needs no certificate. Leave out --tls-secret.")
    secret = as_yaml(tls_secret(settings.certificate, settings.key))
    if options.validate:
        from eaf_facility.servers.envoy import validate

        validate(with_fixed_certificate(made, settings))
    if options.output:
        write_private(options.output, as_yaml(made))
        if not settings.behind_tls:
            beside = options.output.absolute().with_name(Path(settings.tls_secret).name)
            write_private(beside, secret)
            if beside != Path(settings.tls_secret):
                print(f"Envoy will look for {beside} at {settings.tls_secret} (Envoy.tls_secret).", file=sys.stderr)
    else:
        print(secret if options.tls_secret else as_yaml(made), end="")
    return 0


def _doctor(options: argparse.Namespace, *, otherwise: Callable[[argparse.Namespace], int]) -> int:
    if not options.operator:
        return otherwise(options)
    options.command = "doctor --operator"  # which alone needs the extra
    from eaf_facility.inspection.checks import findings
    from eaf_facility.inspection.setup import Setup
    from eaf_inference.client_commands import show_findings

    return show_findings(findings(Setup.read(options.token_file)), as_json=options.json)


def _usage(options: argparse.Namespace) -> int:
    from eaf_inference.config import load_facility
    from eaf_inference.metrics.usage import ask_usage, seconds_of
    from eaf_inference.metrics.usage_by_owner import by_owner

    facility = load_facility()
    facility.usage_prometheus_url = options.prometheus or facility.usage_prometheus_url
    rows = ask_usage(facility, options.user, since=seconds_of(options.since))
    shown: Sequence[Usage | OwnedUsage] = by_owner(rows) if options.by == "owner" else rows
    if options.json:
        print(json.dumps([row.as_dict() for row in shown]))
        return 0
    console = make_console()
    from eaf_facility.local import report

    if shown:
        report.show_usage(shown, console)
    else:
        console.print(f"No usage in the last {options.since}.")
    return 0
