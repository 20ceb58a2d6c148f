"""Dask Gateway's proxy, which comes with its server and runs apart from it.

Apart, because whoever restarts the gateway must not cut clients off from their schedulers.
"""

from __future__ import annotations

import importlib.util
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.facility.ports import LOOPBACK
from eaf_inference.facility.processes import Child, Server, ignore, log_file, plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GatewayProxy", "proxy_program"]

TAKEN = "address already in use"


def proxy_program() -> Path:
    """Where the proxy should be, which is written in Go and comes with the package dask-gateway-server."""
    spec = importlib.util.find_spec("dask_gateway_server")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("dask_gateway_server is not installed", name="dask_gateway_server")
    return Path(spec.origin).parent / "proxy" / "dask-gateway-proxy"


class GatewayProxy(Server):
    """One proxy on loopback: HTTP, and the schedulers' TLS on the same port.

    Parameters
    ----------
    port, private_port : int
        Where it listens, and where the gateway will.

    Attributes
    ----------
    token : str
        Random; who asks the gateway for its routes shows it.
    """

    name = "dask-gateway-proxy"

    def __init__(self, port: int, private_port: int) -> None:
        super().__init__()
        self.token = secrets.token_hex(32)
        self._port, self._private_port = port, private_port

    def launch(self) -> None:
        """Start the program; it asks for its routes until the gateway is there."""
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        program, address = proxy_program(), f"{LOOPBACK}:{self._port}"
        routes = f"http://{LOOPBACK}:{self._private_port}/api/v1/routes"
        self._child = Child(
            [program, "-address", address, "-tcp-address", address, "-api-url", routes, "-log-level", "WARN"],
            environment=plain_environment(first_on_path=program.parent) | {"DASK_GATEWAY_PROXY_TOKEN": self.token},
            log=self.log,
        )

    def wait_until_ready(self, *, timeout: float = 30.0, progress: Callable[[str], None] = ignore) -> None:
        """Return when it listens; raise when that is not to be."""
        progress(f"waiting for {self.name} (log: {self.log})")
        deadline = time.monotonic() + timeout
        while not self._listens():
            if self.child.wait(0.05) is not None:
                raise ConfigurationError(f"{self.name} did not start. Its log says why: {self.log}")
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"{self.name} was not ready within {timeout:.0f} s; what it does is in {self.log}"
                )

    @property
    def port_is_taken(self) -> bool:
        """Whether it ended because somebody else listens there."""
        return self.child.wait(0) is not None and TAKEN in self.log.read_text(errors="replace")

    def _listens(self) -> bool:
        if self.child.wait(0) is not None:
            return False  # whoever listens there is not it
        with suppress(OSError), socket.create_connection((LOOPBACK, self._port), timeout=1):
            return True
        return False
