"""Dask Gateway's proxy, which comes with its server and runs apart from it.

Apart, because whoever restarts the gateway must not cut clients off from their schedulers.
"""

from __future__ import annotations

import importlib.util
import secrets
import time
from pathlib import Path

from eaf_inference.facility.ports import LOOPBACK, listens
from eaf_inference.facility.processes import Child, Server, log_file, plain_environment

__all__ = ["GatewayProxy", "proxy_program"]


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

    def is_ready(self) -> bool:
        """Whether it listens, and not somebody else."""
        return self.launched and listens(self.pid, self._port)
