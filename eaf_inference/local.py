"""The note a facility on this machine leaves for this user's clients.

`eaf-inference up` writes it, discovery reads it. The writer holds a lock on the file for as long as it
lives, so a file left behind by a killed facility is told from a live one without trusting its pid.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LocalFacility", "LocalGateway", "Replica", "announced", "running", "runtime_dir"]

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
    """This user's runtime directory, made 0700; refused when somebody else owns it."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(named) / "eaf-inference" if named else Path(tempfile.gettempdir()) / f"eaf-inference-{os.geteuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a directory of this user")
    path.chmod(0o700)
    return path


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
    """The facilities alive on this machine, newest first."""
    found = [facility for path in runtime_dir().glob("facility-*.json") if (facility := _read(path))]
    return sorted(found, key=lambda facility: facility.started, reverse=True)


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
    except (ValueError, KeyError, TypeError) as error:  # of another version of this package
        log.warning("The note of a local facility, %s, cannot be read: %s", path, error)
        return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
