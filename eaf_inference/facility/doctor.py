"""What is installed, reachable and ready on this machine, and what to do about the rest."""

from __future__ import annotations

import contextlib
import enum
import importlib.metadata
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference import local
from eaf_inference.connection import connect
from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.facility.calls import ask_triton
from eaf_inference.facility.environment import (
    check_machine,
    environment_path,
    find_interpreter,
    is_complete,
)
from eaf_inference.facility.envoy import envoy_program
from eaf_inference.facility.gateway import PACKAGES, missing_packages
from eaf_inference.facility.gateway_proxy import proxy_program
from eaf_inference.facility.prometheus import prometheus_program
from eaf_inference.facility.triton import SHARED_MEMORY
from eaf_inference.inference import protocol
from eaf_inference.inference.pipeline import Question
from eaf_inference.tables import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eaf_inference.local import LocalFacility, Replica

__all__ = ["Finding", "State", "as_text", "findings", "leftovers"]

_EXTRAS = ("notebook", "dask", "hub", "facility", "demo")  # those a user installs, as opposed to a developer


class State(enum.Enum):
    """How bad a finding is."""

    FINE = "ok"
    NOTE = "note"  # something is absent that not everybody needs
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the doctor's table."""

    subject: str
    state: State
    what: str
    remedy: str = ""


def findings() -> Iterator[Finding]:
    """Look at one thing after the other."""
    for subject, check in _CHECKS.items():
        try:
            yield from check()
        except ModuleNotFoundError as error:
            yield Finding(subject, State.NOTE, f"lacks the package {error.name}", _install("facility"))


def as_text(found: Iterable[Finding], *, width: int | None) -> str:
    """The findings as a table of so many columns of a terminal, each with what to do about it below."""
    rows = []
    for each in found:
        rows.append((each.state.value, each.subject, each.what))
        if each.remedy:
            rows.append(("", "", f"→ {each.remedy}"))
    return aligned(("state", "", "what is there → what to do"), rows, width=width)


def _python() -> Iterator[Finding]:
    yield Finding("Python", State.FINE, f"{platform.python_version()} ({sys.executable})")


def _machine() -> Iterator[Finding]:
    try:
        check_machine()
    except ConfigurationError as error:
        yield Finding("machine", State.PROBLEM, "cannot run Triton from its wheel", str(error))
    else:
        yield Finding("machine", State.FINE, f"{platform.machine()}, {' '.join(platform.libc_ver())}")


def _environment() -> Iterator[Finding]:
    try:
        path = environment_path(find_interpreter())
    except ConfigurationError as error:
        yield Finding("Triton", State.PROBLEM, "no Python to make its environment with", str(error))
        return
    if is_complete(path):
        yield Finding("Triton", State.FINE, f"installed in {path}")
    else:
        yield Finding("Triton", State.NOTE, "not installed yet", "`eaf-inference up` installs it on first use")


def _gateway() -> Iterator[Finding]:
    if missing := missing_packages():
        yield Finding("Dask Gateway", State.NOTE, f"lacks {', '.join(missing)}", _install("facility"))
        return
    proxy = proxy_program()
    if not os.access(proxy, os.X_OK):
        remedy = f"{sys.executable} -m pip install --force-reinstall --no-deps dask-gateway-server"
        yield Finding("Dask Gateway", State.PROBLEM, f"its proxy, {proxy}, cannot be executed", remedy)
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    yield Finding("Dask Gateway", State.FINE, versions)


def _for_several_users() -> Iterator[Finding]:
    """What `up --users` has beside Triton and Dask Gateway; JupyterHub's packages are in the extras."""
    for subject, program in {"Envoy": envoy_program, "Prometheus": prometheus_program}.items():
        try:
            yield Finding(subject, State.FINE, str(program()))
        except ConfigurationError as error:
            yield Finding(subject, State.NOTE, "missing; `up --users` needs it", str(error))


def _extras() -> Iterator[Finding]:
    for extra in _EXTRAS:
        missing = sorted(name for name in _requirements(extra) if not _installed(name))
        if missing:
            yield Finding(f"extra '{extra}'", State.NOTE, f"lacks {', '.join(missing)}", _install(extra))
        else:
            yield Finding(f"extra '{extra}'", State.FINE, "installed")


def _install(extra: str) -> str:
    return f"{sys.executable} -m pip install 'eaf-inference[{extra}]'"


def _requirements(extra: str) -> Iterator[str]:
    """Names of the packages that an extra of this one asks for."""
    for line in importlib.metadata.requires("eaf-inference") or ():
        requirement, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", requirement)
        if name and re.search(rf"extra == ['\"]{extra}['\"]", marker) and name[0] != "eaf-inference":
            yield name[0]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _discovery() -> Iterator[Finding]:
    """What `%triton_connect` would find."""
    try:
        with connect(explain=True) as connection:
            attempts, found = connection.attempts, connection.where
    except InferenceError as error:
        remedy = (
            "start one with `eaf-inference up`, or give an address: `eaf-inference connect grpcs://host:port`; "
            "`eaf-inference connect --explain` shows what was tried"
        )
        yield Finding("%triton_connect", State.NOTE, error.reason or str(error).splitlines()[0], remedy)
        return
    for attempt in attempts:
        if attempt.value:
            yield Finding(attempt.source, State.FINE if attempt.chosen else State.NOTE, attempt.outcome)
    yield Finding("%triton_connect", State.FINE, f"connects to {found}")


def _facilities() -> Iterator[Finding]:
    try:
        facilities = local.running()
    except ConfigurationError as error:
        yield Finding("local facility", State.PROBLEM, str(error))
        return
    if not facilities:
        yield Finding("local facility", State.NOTE, "none is running", "`eaf-inference up` starts one")
    for facility in facilities:
        yield from _facility(facility)


def _facility(facility: LocalFacility) -> Iterator[Finding]:
    for number, replica in enumerate(facility.replicas):
        subject = f"local facility {facility.pid}, replica {number}"
        unready = _unready(replica, facility.models)
        if unready is None:
            yield Finding(
                subject, State.PROBLEM, f"{replica.grpc} does not answer", f"its log says why: {replica.log}"
            )
        elif unready:
            what = f"{replica.grpc} has models that are not ready: {', '.join(unready)}"
            yield Finding(subject, State.PROBLEM, what, f"its log says why: {replica.log}")
        else:
            yield Finding(subject, State.FINE, f"{replica.grpc} is ready with {', '.join(facility.models)}")


def _unready(replica: Replica, models: tuple[str, ...]) -> list[str] | None:
    """Which of the models the replica does not serve now; None when it does not answer."""
    questions = [Question("ModelReady", protocol.ModelReadyRequest(name=name)) for name in models]
    try:
        answers = ask_triton(replica.grpc, *questions, timeout=3.0)
    except InferenceError:
        return None
    return [name for name, answer in zip(models, answers, strict=True) if not answer.ready]


def _leftovers() -> Iterator[Finding]:
    if dead := leftovers():
        remedy = "rm " + " ".join(map(str, dead))
        yield Finding("shared memory", State.PROBLEM, f"{len(dead)} regions of dead Tritons", remedy)
    else:
        yield Finding("shared memory", State.FINE, "nothing left behind by dead Tritons")


_CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Python": _python,
    "machine": _machine,
    "Triton": _environment,
    "Dask Gateway": _gateway,
    "up --users": _for_several_users,
    "extras": _extras,
    "local facility": _facilities,
    "%triton_connect": _discovery,
    "shared memory": _leftovers,
}


def leftovers() -> list[Path]:
    """Shared memory of our Tritons whose guardian was killed too."""
    present = Path("/dev/shm").glob(f"{SHARED_MEMORY}*")  # noqa: S108 - where shared memory is
    regions = [path for path in present if _is_ours(path)]
    commands = _command_lines()
    prefix = len(SHARED_MEMORY) + 12  # each server's own, see TritonServer.launch
    return [path for path in regions if not any(path.name[:prefix].encode() in line for line in commands)]


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except FileNotFoundError:  # its Triton has ended meanwhile
        return False


def _command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            lines.append(path.read_bytes())
    return lines
