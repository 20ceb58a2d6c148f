"""Dask Gateway's proxy, which comes with its server.

It is a process of its own, so that restarting the gateway does not cut clients off from their schedulers.
"""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path

from eaf_facility.process.ports import LOOPBACK, listens
from eaf_facility.process.server import Child, Server, log_file, plain_environment

__all__ = ["DaskGatewayProxy", "proxy_program"]


def proxy_program() -> Path:
    """Return the path of the proxy, a Go program in the package dask-gateway-server."""
    spec = importlib.util.find_spec("dask_gateway_server")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("dask_gateway_server is not installed", name="dask_gateway_server")
    return Path(spec.origin).parent / "proxy" / "dask-gateway-proxy"


class DaskGatewayProxy(Server):
    """One proxy on loopback: HTTP, and the schedulers' TLS on the same port.

    Parameters
    ----------
    port, private_port : int
        The ports of the proxy and of the gateway.

    Attributes
    ----------
    token : str
        A random token, with which the proxy asks the gateway for its routes.
    """

    name = "dask-gateway-proxy"

    def __init__(self, port: int, private_port: int) -> None:
        super().__init__()
        self.token = secrets.token_hex(32)
        self._port, self._private_port = port, private_port

    def launch(self) -> None:
        """Start the program, which asks for its routes until the gateway answers."""
        self.log = log_file(self.name)
        program, address = proxy_program(), f"{LOOPBACK}:{self._port}"
        routes = f"http://{LOOPBACK}:{self._private_port}/api/v1/routes"
        self._child = Child(
            [program, "-address", address, "-tcp-address", address, "-api-url", routes, "-log-level", "WARN"],
            environment=plain_environment(first_on_path=program.parent) | {"DASK_GATEWAY_PROXY_TOKEN": self.token},
            log=self.log,
        )

    def is_ready(self) -> bool:
        """Return whether this process, and not another one, listens on its port."""
        return self.launched and listens(self.pid, self._port)
