"""One Dask Gateway on this machine: its server, its proxy and the clusters that it starts, all on loopback.

It is the real one, with two differences from a facility's: schedulers and workers run as this user's own
processes, without any isolation from one another (`UnsafeLocalBackend`), and, without a JupyterHub, who knows a
random password is let in; dashboards need no password, as everywhere with Dask Gateway. Configuration and password
lie in a directory that only this user can read. The clusters work in it too, and it goes with the gateway, however
that ends.
"""

from __future__ import annotations

import http.client
import importlib.util
import secrets
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.facility.ports import LOOPBACK, free_ports
from eaf_inference.facility.processes import Child, Server, log_file, plain_environment, write_private
from eaf_inference.facility.triton import ignore
from eaf_inference.local import LocalGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PACKAGES", "GatewayServer", "missing_packages", "proxy_program"]

# What a gateway, its schedulers and its workers import, by distribution.
PACKAGES = {
    "dask": "dask",
    "distributed": "distributed",
    "dask-gateway": "dask_gateway",
    "dask-gateway-server": "dask_gateway_server",
    "sqlalchemy": "sqlalchemy",
}
_ATTEMPTS = 3  # when somebody took the ports that were free a moment ago
_GRACE_SECONDS = 10

# Worth knowing of what is left at its default: workers and clusters that take more than 60 s to start are given up.
_CONFIGURATION = """\
import os

from dask_gateway_server.backends.local import UnsafeLocalBackend


class Backend(UnsafeLocalBackend):
    def get_logs_directory(self, workdir):  # the default is in workdir, which is gone when one wants to know why
        return os.path.join({logs!r}, os.path.basename(workdir))


c.DaskGateway.address = {private!r}
c.DaskGateway.backend_class = Backend
{authentication}
c.Proxy.address = {public!r}  # HTTP, and the schedulers' TLS on the same port

# by default it calls dask-scheduler and dask-worker, which distributed 2026.6 has no longer
c.ClusterConfig.scheduler_cmd = [{python!r}, "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = [{python!r}, "-m", "dask", "worker", "--host", {loopback!r}]
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "2 G"
c.ClusterConfig.adaptive_period = 1
c.ClusterConfig.idle_timeout = 600

c.UnsafeLocalBackend.clusters_directory = {clusters!r}
c.UnsafeLocalBackend.inherited_environment = {inherited!r}
# a worker in the midst of a task would take 10 s to end by itself; killed, it leaves nothing either
c.UnsafeLocalBackend.sigint_timeout = 1
c.UnsafeLocalBackend.sigterm_timeout = 0
"""

_WITHOUT_HUB = """\
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = {password!r}
"""
# The Hub is asked with each user's own token, so that the gateway has none.
_WITH_HUB = """\
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.JupyterHubAuthenticator"
c.JupyterHubAuthenticator.jupyterhub_api_url = {hub_api_url!r}
c.JupyterHubAuthenticator.jupyterhub_service_name = {service!r}
"""
_HUB_SERVICE = "dask-gateway"


def missing_packages() -> list[str]:
    """Which packages a gateway needs and this Python does not have."""
    return [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]


def proxy_program() -> Path:
    """Where the proxy should be, which is written in Go and comes with the package dask-gateway-server."""
    spec = importlib.util.find_spec("dask_gateway_server")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("dask_gateway_server is not installed", name="dask_gateway_server")
    return Path(spec.origin).parent / "proxy" / "dask-gateway-proxy"


class GatewayServer(Server):
    """One Dask Gateway with its proxy, on loopback ports.

    Most callers want `GatewayServer.start`, which gives one that is ready and stops it in the end, with its
    clusters. The gateway's own log is `log`; what schedulers and workers write is in `cluster_logs`, a
    directory for each cluster, until the gateway stops.

    Parameters
    ----------
    hub_api_url : str, optional
        Users are those of this JupyterHub, whose tokens must have the scope of the service ``dask-gateway``; without,
        whoever knows the password.
    """

    name = "dask-gateway"

    def __init__(self, *, hub_api_url: str | None = None) -> None:
        super().__init__()
        self._hub_api_url = hub_api_url
        self._directory: Path
        self._ports: list[int] = []  # of users and of its proxy; kept when it is launched again
        self._password: str

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        hub_api_url: str | None = None,
        timeout: float = 60.0,
        progress: Callable[[str], None] = ignore,
    ) -> Iterator[GatewayServer]:
        """Run one gateway for the length of a `with` block; it is ready when the block begins."""
        server = cls(hub_api_url=hub_api_url)
        try:
            server.launch()
            server.wait_until_ready(timeout=timeout, progress=progress)
            yield server
        finally:
            server.stop()

    @property
    def address(self) -> str:
        """The URL that clients connect to."""
        return f"http://{LOOPBACK}:{self._ports[0]}"

    @property
    def password_file(self) -> Path:
        return self._directory / "password"

    @property
    def cluster_logs(self) -> Path:
        return self._directory / "logs"

    @property
    def description(self) -> LocalGateway:
        return LocalGateway(
            address=self.address,
            pid=self.pid,
            log=str(self.log),
            password_file=str(self.password_file),
            cluster_logs=str(self.cluster_logs),
        )

    def launch(self) -> None:
        """Start the program; it then takes a second until it is ready."""
        if missing := missing_packages():
            raise ConfigurationError(
                f"a Dask Gateway needs {', '.join(missing)}: "
                f"{sys.executable} -m pip install 'eaf-inference[facility]'"
            )
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        self._directory = Path(tempfile.mkdtemp(prefix="eaf-inference-gateway-"))  # 0700
        self._ports = self._ports or free_ports(2)
        self._password = secrets.token_urlsafe(32)
        scratch = self._directory / "scratch"
        scratch.mkdir()
        environment = plain_environment(first_on_path=Path(sys.executable).parent)
        environment |= {"TMPDIR": str(scratch), "NO_COLOR": "1"}
        if self._hub_api_url is None:
            write_private(self.password_file, self._password)
            authentication = _WITHOUT_HUB.format(password=self._password)
        else:
            authentication = _WITH_HUB.format(hub_api_url=self._hub_api_url, service=_HUB_SERVICE)
        configuration = self._directory / "dask_gateway_config.py"
        write_private(
            configuration,
            _CONFIGURATION.format(
                logs=str(self.cluster_logs),
                private=f"{LOOPBACK}:{self._ports[1]}",
                public=f"{LOOPBACK}:{self._ports[0]}",
                loopback=LOOPBACK,
                authentication=authentication,
                python=sys.executable,
                clusters=str(self._directory / "clusters"),
                inherited=list(environment),
            ),
        )
        self._child = Child(
            [sys.executable, "-m", "dask_gateway_server", "--config", str(configuration)],
            environment=environment,
            log=self.log,
            directory=self._directory,
            grace=_GRACE_SECONDS,
        )

    def wait_until_ready(self, *, timeout: float = 60.0, progress: Callable[[str], None] = ignore) -> None:
        """Return when it takes requests; raise when that is not to be."""
        progress(f"waiting for {self.name} (log: {self.log})")
        deadline = time.monotonic() + timeout
        attempt = 1
        while True:
            # The server ends when its port is taken; the proxy alone, and the server starts it again for ever.
            if "address already in use" in self.log.read_text(errors="replace") and attempt < _ATTEMPTS:
                attempt += 1
                self.stop()
                self._ports = []
                self.launch()
            elif self._answers():
                return
            elif self.child.wait(0.05) is not None:
                raise ConfigurationError(f"{self.name} did not start. Its log says why: {self.log}")
            elif time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"{self.name} was not ready within {timeout:.0f} s; what it does is in {self.log}"
                )

    def restart(self, *, timeout: float = 60.0) -> None:
        """Start it again on the same ports, without the clusters that it had."""
        self.stop()
        self.launch()
        self.wait_until_ready(timeout=timeout)

    def _answers(self) -> bool:
        """Whether this gateway answers at its address; where there is a password, no other one knows it."""
        # not urllib: its answer would depend on http_proxy
        connection = http.client.HTTPConnection(LOOPBACK, self._ports[0], timeout=1)
        credentials = b64encode(f"{self.name}:{self._password}".encode()).decode()
        try:
            if self._hub_api_url is None:
                connection.request("GET", "/api/v1/clusters/", headers={"Authorization": f"Basic {credentials}"})
            else:  # the Hub need not be there yet
                connection.request("GET", "/api/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
