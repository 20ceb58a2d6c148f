"""The file in which a facility on this machine announces itself to this user's clients.

`eaf-inference up` writes it, discovery reads it. The writer holds a lock on the file for as long as it lives, so a
reader recognises the file of a killed facility without trusting its process id. The lock is taken with `fcntl`:
readers probe it with a shared lock, so that two of them do not take each other for the writer, and filelock's are
all exclusive.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from eaf_inference._files import runtime_directory
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = ["GATEWAY_AUTH", "LocalFacility", "LocalGateway", "Replica", "announced", "running", "serving"]

log = logging.getLogger(__name__)

GATEWAY_AUTH = "eaf_inference.dask.auth.LocalGatewayAuth"  # dask_gateway imports it by name
_OPTIONAL = ("model_store", "model_store_endpoint", "model_store_keys", "slurm_conf")


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
    """A facility on this machine, as `eaf-inference up --json` prints it.

    Attributes
    ----------
    model_store : str
        URL of the model repository that users may write to; empty if there is none.
    model_store_endpoint : str
        URL of the S3 service, if the store is in S3.
    model_store_keys : str
        Path of a private JSON file with the ``key`` and ``secret`` for it.
    slurm_conf : str
        Path of slurm.conf, if it has a Slurm; ``sbatch`` and the other commands read it from ``SLURM_CONF``.
    """

    pid: int
    started: float  # seconds since the epoch
    replicas: tuple[Replica, ...]
    models: tuple[str, ...]
    gateway: LocalGateway | None = None
    model_store: str = ""
    model_store_endpoint: str = ""
    model_store_keys: str = ""
    slurm_conf: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(replica.grpc for replica in self.replicas)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@contextmanager
def announced(facility: LocalFacility) -> Iterator[Path]:
    """Write the file (0600) and keep it locked until the block ends; then remove it."""
    path = runtime_directory() / f"facility-{facility.pid}.json"
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
    """Return the running facilities of this user on this machine, newest first.

    Raises
    ------
    ConfigurationError
        The runtime directory does not belong to this user.
    """
    found = [facility for path in runtime_directory().glob("facility-*.json") if (facility := _read(path))]
    return sorted(found, key=lambda facility: facility.started, reverse=True)


def serving(urls: Collection[str]) -> LocalFacility | None:
    """Return the facility on this machine that has one of these addresses."""
    try:
        return next((facility for facility in running() if not set(urls).isdisjoint(facility.urls)), None)
    except ConfigurationError as error:  # discovery and `doctor` report it
        log.debug("Cannot look for local facilities: %s", error)
        return None


def _read(path: Path) -> LocalFacility | None:
    try:
        with path.open(encoding="utf-8") as file:
            if not _locked(file.fileno()):
                path.unlink(missing_ok=True)  # its writer was killed
                return None
            data = json.load(file)
            return LocalFacility(
                pid=data["pid"],
                started=float(data["started"]),
                replicas=tuple(Replica(**replica) for replica in data["replicas"]),
                models=tuple(data["models"]),
                gateway=LocalGateway(**data["gateway"]) if data.get("gateway") else None,
                **{name: data.get(name, "") for name in _OPTIONAL},
            )
    except FileNotFoundError:  # ended since the directory was listed
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # of another version of this package
        log.warning("The announcement of a local facility, %s, cannot be read: %s", path, error)
        return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
