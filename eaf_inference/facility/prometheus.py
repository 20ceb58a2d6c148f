"""One Prometheus on this machine: on a free loopback port, scraping what it is told to, with the study's queries.

The program is not on PyPI: it is Debian's package `prometheus`, or the project's own download. Configuration and data
lie in a directory that only this user can read.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.loopback_http import OK, ask
from eaf_inference.facility.ports import LOOPBACK, free_ports, listens
from eaf_inference.facility.processes import (
    Child,
    Server,
    ignore,
    log_file,
    owned_directory,
    plain_environment,
    private_directory,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["RULES", "NotInstalled", "PrometheusServer", "prometheus_program", "scrape_configuration"]

RULES = Path(__file__).with_name("prometheus_rules.yaml")
_RETENTION = ("15d", "512MB")  # whichever is reached first


class NotInstalled(ConfigurationError):
    """The program is not on this machine; a facility does without."""


def prometheus_program() -> Path:
    """Prometheus, as PATH has it.

    Raises
    ------
    NotInstalled
        There is none.
    """
    found = shutil.which("prometheus")
    if found is None:
        raise NotInstalled(
            "the program prometheus is not on your PATH: `apt-get install prometheus`, or https://prometheus.io/download"
        )
    return Path(found)


def scrape_configuration(
    targets: Mapping[str, Sequence[str]], *, interval: int, rules: Path = RULES
) -> dict[str, Any]:
    """Prometheus' configuration, as plain values.

    Parameters
    ----------
    targets
        Job → URLs of metrics, such as ``{"triton": ["http://127.0.0.1:8002/metrics"]}``.
    interval
        Seconds between two readings; the rules need two within 30 s.
    rules
        File of recording rules.
    """
    return {
        "global": {
            "scrape_interval": f"{interval}s",
            "scrape_timeout": f"{interval}s",
            "evaluation_interval": f"{interval}s",
        },
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [_target(url) for url in urls]} for job, urls in targets.items()
        ],
    }


def _target(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"targets": [parts.netloc], "labels": {"__scheme__": parts.scheme, "__metrics_path__": parts.path}}


class PrometheusServer(Server):
    """One Prometheus, on a loopback port.

    Most callers want `PrometheusServer.start`, which gives one that is ready and stops it in the end.

    Parameters
    ----------
    targets, interval
        See `scrape_configuration`.
    directory : Path
        Configuration and data are kept in it, for a restart; it is the caller's to remove.
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
        """Run one for the length of a `with` block; it is ready when the block begins."""
        with owned_directory("eaf-inference-prometheus-") as directory:
            server = cls(targets, directory, interval=interval)
            with server.running(timeout=timeout, progress=progress):
                yield server

    @property
    def url(self) -> str:
        """What stands before ``/api/v1/query``."""
        return f"http://{LOOPBACK}:{self._port}"

    def launch(self) -> None:
        """Start the program; it then takes a second until it is ready."""
        program = prometheus_program()
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        directory = private_directory(self._directory)
        configuration = directory / "prometheus.yml"  # of which JSON is a part
        configuration.unlink(missing_ok=True)
        write_private(
            configuration, json.dumps(scrape_configuration(self._targets, interval=self._interval), indent=1)
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
        if self._was_ready:  # users' token service asks it
            return False
        (self._port,) = free_ports(1)
        return True

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        return listens(self.pid, self._port) and ask(self._port, "/-/ready")[0] == OK
