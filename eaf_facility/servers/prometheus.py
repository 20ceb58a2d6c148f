"""A Prometheus on this machine, on a loopback port, with the recording rules of this project.

The program is not on PyPI: install Debian's package `prometheus` or download it from the project. Configuration and
data are in a directory that only this user can read.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_facility.process.http import OK, ask
from eaf_facility.process.ports import LOOPBACK, free_ports, listens
from eaf_facility.process.server import (
    Child,
    Server,
    ignore,
    log_file,
    owned_directory,
    plain_environment,
)
from eaf_inference._files import private_directory, write_private
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["RULES", "NotInstalled", "PrometheusServer", "prometheus_program"]

RULES = Path(__file__).with_name("prometheus_rules.yaml")
_RETENTION = ("15d", "512MB")  # whichever is reached first


class NotInstalled(ConfigurationError):
    """The program is not installed; a facility works without it."""


def prometheus_program() -> Path:
    """Return the path of the program `prometheus` on the PATH.

    Raises
    ------
    NotInstalled
        It is not on the PATH.
    """
    found = shutil.which("prometheus")
    if found is None:
        raise NotInstalled(
            "the program prometheus is not on your PATH. Install it: `apt-get install prometheus`, or "
            "https://prometheus.io/download"
        )
    return Path(found)


def _scrape_configuration(targets: Mapping[str, Sequence[str]], *, interval: int) -> dict[str, Any]:
    """Return Prometheus' configuration as plain values."""
    return {
        "global": {
            "scrape_interval": f"{interval}s",
            "scrape_timeout": f"{interval}s",
            "evaluation_interval": f"{interval}s",
        },
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [_target(url) for url in urls]} for job, urls in targets.items()
        ],
    }


def _target(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"targets": [parts.netloc], "labels": {"__scheme__": parts.scheme, "__metrics_path__": parts.path}}


class PrometheusServer(Server):
    """One Prometheus on a loopback port.

    Most callers want `PrometheusServer.start`, which yields a Prometheus that is ready and stops it in the end.

    Parameters
    ----------
    targets
        The URLs of the metrics of each job, such as ``{"triton": ["http://127.0.0.1:8002/metrics"]}``.
    interval
        Seconds between two scrapes; the rules need two scrapes within 30 s.
    directory : Path
        The directory for configuration and data, which are kept for a restart. The caller removes it.
    """

    name = "prometheus"
    essential = False

    def __init__(self, targets: Mapping[str, Sequence[str]], directory: Path, *, interval: int = 5) -> None:
        super().__init__()
        self._targets = targets
        self._interval = interval
        self._directory = directory
        (self._port,) = free_ports(1)

    @classmethod
    @contextmanager
    def start(
        cls,
        targets: Mapping[str, Sequence[str]],
        *,
        interval: int = 5,
        timeout: float = 60.0,
        progress: Callable[[str], None] = ignore,
    ) -> Iterator[PrometheusServer]:
        """Run a Prometheus for the duration of a `with` block, which begins when it is ready."""
        with owned_directory("eaf-inference-prometheus-") as directory:
            server = cls(targets, directory, interval=interval)
            with server.running(timeout=timeout, progress=progress):
                yield server

    @property
    def url(self) -> str:
        """Its base URL, without ``/api/v1/query``."""
        return f"http://{LOOPBACK}:{self._port}"

    def launch(self) -> None:
        """Start the program, without waiting until it is ready."""
        program = prometheus_program()
        self.log = log_file(self.name)
        directory = private_directory(self._directory)
        configuration = directory / "prometheus.yml"  # JSON is valid YAML
        configuration.unlink(missing_ok=True)
        write_private(
            configuration, json.dumps(_scrape_configuration(self._targets, interval=self._interval), indent=1)
        )
        age, size = _RETENTION
        self._child = Child(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--storage.tsdb.retention.time={age}",
                f"--storage.tsdb.retention.size={size}",
                f"--web.listen-address={LOOPBACK}:{self._port}",
                "--log.level=warn",
            ],
            environment=plain_environment(first_on_path=program.parent),
            log=self.log,
        )

    def move(self) -> bool:
        if self._was_ready:  # the token service knows its address
            return False
        (self._port,) = free_ports(1)
        return True

    def is_ready(self) -> bool:
        """Return whether it answers queries."""
        return listens(self.pid, self._port) and ask(self._port, "/-/ready")[0] == OK
