"""The note a facility on this machine leaves for this user's clients.

`eaf-inference up` writes it, discovery reads it. The writer holds a lock on the file for as long as it
lives, so a file left behind by a killed facility is told from a live one without trusting its pid.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._files import private_directory
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["LocalFacility", "LocalGateway", "Replica", "announced", "running", "runtime_dir", "serving"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replica:
    """One Triton: its addresses (URLs), process and log."""

    grpc: str
    http: str
    metrics: str
    pid: int
    log: str


@dataclass(frozen=True, slots=True)
class LocalGateway:
    """The Dask Gateway: its address (URL), process, log, and where its password and its clusters' logs are."""

    address: str
    pid: int
    log: str
    password_file: str
    cluster_logs: str


@dataclass(frozen=True, slots=True)
class LocalFacility:
    """What runs on this machine, as `eaf-inference up --json` prints it."""

    pid: int
    started: float  # seconds since the epoch
    replicas: tuple[Replica, ...]
    models: tuple[str, ...]
    gateway: LocalGateway | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(replica.grpc for replica in self.replicas)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def runtime_dir() -> Path:
    """This user's runtime directory, made 0700.

    Raises
    ------
    ConfigurationError
        It is somebody else's, a link, or cannot be made.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(named) / "eaf-inference" if named else Path(tempfile.gettempdir()) / f"eaf-inference-{os.geteuid()}"
    return private_directory(
        path, remedy="Remove it, or set XDG_RUNTIME_DIR to a directory that belongs to you, and try again."
    )


@contextmanager
def announced(facility: LocalFacility) -> Iterator[Path]:
    """Write the note (0600) and keep it locked until the block ends; then remove it."""
    path = runtime_dir() / f"facility-{facility.pid}.json"
    draft = path.with_suffix(".draft")
    descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(facility.as_dict(), file)
        file.flush()
        draft.rename(path)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def running() -> list[LocalFacility]:
    """The facilities alive on this machine, newest first.

    Raises
    ------
    ConfigurationError
        The runtime directory is not this user's.
    """
    found = [facility for path in runtime_dir().glob("facility-*.json") if (facility := _read(path))]
    return sorted(found, key=lambda facility: facility.started, reverse=True)


def serving(urls: Collection[str]) -> LocalFacility | None:
    """The facility on this machine that has one of these addresses."""
    try:
        return next((facility for facility in running() if not set(urls).isdisjoint(facility.urls)), None)
    except ConfigurationError as error:  # discovery and `doctor` say so
        log.debug("No local facility can be looked for: %s", error)
        return None


def _read(path: Path) -> LocalFacility | None:
    try:
        with path.open(encoding="utf-8") as file:
            if not _locked(file.fileno()):
                path.unlink(missing_ok=True)  # its writer is dead
                return None
            data = json.load(file)
            return LocalFacility(
                pid=data["pid"],
                started=float(data["started"]),
                replicas=tuple(Replica(**replica) for replica in data["replicas"]),
                models=tuple(data["models"]),
                gateway=LocalGateway(**data["gateway"]) if data.get("gateway") else None,
            )
    except FileNotFoundError:  # ended since the directory was listed
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # of another version of this package
        log.warning("The note of a local facility, %s, cannot be read: %s", path, error)
        return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
