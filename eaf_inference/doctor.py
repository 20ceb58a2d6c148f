"""The checks of `eaf-inference doctor`: packages, discovery, and the facility on this machine.

A package adds checks with an entry point in the group ``eaf_inference.checks``: a mapping like `CHECKS`.
"""

from __future__ import annotations

import enum
import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference._redact import redact
from eaf_inference._text import aligned
from eaf_inference.connecting import connect
from eaf_inference.discovery import local_facility
from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.inference import protocol
from eaf_inference.inference.direct import ask_triton
from eaf_inference.inference.pipeline import Question

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eaf_inference.discovery.local_facility import LocalFacility, Replica

__all__ = ["CHECKS", "Check", "Finding", "State", "as_text", "findings", "found_by", "install_command"]

_EXTRAS = ("notebook", "dask", "hub", "facility", "demo")  # those for users, as opposed to developers


class State(enum.Enum):
    """How bad a finding is."""

    FINE = "ok"
    NOTE = "note"  # something is missing that not everybody needs
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the doctor's table."""

    subject: str
    state: State
    what: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"state": self.state.value, "subject": self.subject, "finding": self.what, "remedy": self.remedy}


Check = Callable[[], Iterator[Finding]]


def findings() -> Iterator[Finding]:
    """Run the client's checks, then those of installed packages."""
    added: list[Mapping[str, Check]] = [
        entry.load() for entry in importlib.metadata.entry_points(group="eaf_inference.checks")
    ]
    for checks in (CHECKS, *added):
        for subject, check in checks.items():
            yield from found_by(subject, check)


def found_by(subject: str, check: Check) -> Iterator[Finding]:
    """Yield what a check finds. If it fails, the last finding says why, and the other checks still run."""
    try:
        yield from check()
    except ModuleNotFoundError as error:
        yield Finding(subject, State.NOTE, f"lacks the package {error.name}", install_command("facility"))
    except Exception as error:  # noqa: BLE001  (a check that fails must hide no other)
        what, remedy = redact(str(error)), "correct what it names"
        # the last: a host's name that cannot exist
        if not isinstance(error, InferenceError | OSError | UnicodeError):
            what = f"this check failed: {type(error).__name__}: {what}"
            remedy = "this is a mistake in eaf-inference: report it"
        yield Finding(subject, State.PROBLEM, what, remedy)


def as_text(found: Iterable[Finding], *, width: int | None) -> str:
    """Return the findings as a table at most `width` columns wide, each with its remedy below."""
    rows = []
    for each in found:
        rows.append((each.state.value, each.subject, each.what))
        if each.remedy:
            rows.append(("", "", f"→ {each.remedy}"))
    return aligned(("state", "", "finding → remedy"), rows, width=width)


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this package into this Python."""
    return f"{sys.executable} -m pip install 'eaf-inference[{extra}]'"


def _python() -> Iterator[Finding]:
    yield Finding("Python", State.FINE, f"{platform.python_version()} ({sys.executable})")


def _extras() -> Iterator[Finding]:
    for extra in _EXTRAS:
        missing = sorted(name for name in _requirements(extra) if not _installed(name))
        if missing:
            yield Finding(f"extra '{extra}'", State.NOTE, f"lacks {', '.join(missing)}", install_command(extra))
        else:
            yield Finding(f"extra '{extra}'", State.FINE, "installed")


def _requirements(extra: str) -> Iterator[str]:
    """Yield the names of the packages in an extra of this package."""
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


def _local_facilities() -> Iterator[Finding]:
    try:
        facilities = local_facility.running()
    except ConfigurationError as error:
        yield Finding("local facility", State.PROBLEM, str(error))
        return
    if not facilities:
        yield Finding("local facility", State.NOTE, "none is running", "`eaf-inference up` starts one")
    for facility in facilities:
        yield from _replicas(facility)


def _replicas(facility: LocalFacility) -> Iterator[Finding]:
    for number, replica in enumerate(facility.replicas):
        subject = f"local facility {facility.pid}, replica {number}"
        unready = _unready_models(replica, facility.models)
        if unready is None:
            yield Finding(subject, State.PROBLEM, f"{replica.grpc} does not answer", f"see its log: {replica.log}")
        elif unready:
            what = f"{replica.grpc} has models that are not ready: {', '.join(unready)}"
            yield Finding(subject, State.PROBLEM, what, f"see its log: {replica.log}")
        else:
            yield Finding(subject, State.FINE, f"{replica.grpc} is ready with {', '.join(facility.models)}")


def _unready_models(replica: Replica, models: tuple[str, ...]) -> list[str] | None:
    """Return the models that the replica does not serve now; None if it does not answer."""
    questions = [Question("ModelReady", protocol.ModelReadyRequest(name=name)) for name in models]
    try:
        answers = ask_triton(replica.grpc, *questions, timeout=3.0)
    except InferenceError:
        return None
    return [name for name, answer in zip(models, answers, strict=True) if not answer.ready]


def _discovery() -> Iterator[Finding]:
    """Report what `%triton_connect` would find."""
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


CHECKS: Mapping[str, Check] = {
    "Python": _python,
    "extras": _extras,
    "local facility": _local_facilities,
    "%triton_connect": _discovery,
}
