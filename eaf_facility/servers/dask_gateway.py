"""A Dask Gateway on this machine: its server, its proxy and the clusters that it starts, all on loopback.

It is the real server, with two differences from a facility's. Schedulers and workers run as this user's own
processes, without isolation from one another (`UnsafeLocalBackend`), or as jobs of a Slurm on this machine. Without
a JupyterHub, a random password gives access; dashboards need no password, as always with Dask Gateway. Configuration
and password are in a directory that only this user can read. The clusters work in the same directory, or in Slurm's,
which is removed when the gateway ends, for whatever reason.
"""

from __future__ import annotations

import importlib.util
import secrets
import shlex
import sys
import tempfile
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.process.http import OK, ask
from eaf_facility.process.ports import LOOPBACK, HeldPort, free_ports
from eaf_facility.process.restarting_server import RestartingServer
from eaf_facility.process.server import ignore, log_file, plain_environment
from eaf_facility.servers.dask_gateway_proxy import DaskGatewayProxy, proxy_program
from eaf_facility.servers.slurm import check_python
from eaf_inference._files import write_private
from eaf_inference.discovery.local_facility import LocalGateway
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eaf_facility.servers.slurm import Slurm

__all__ = ["PACKAGES", "DaskGatewayServer", "missing_packages"]

# The modules that a gateway, its schedulers and its workers import, by distribution.
PACKAGES = {
    "dask": "dask",
    "distributed": "distributed",
    "dask-gateway": "dask_gateway",
    "dask-gateway-server": "dask_gateway_server",
    "sqlalchemy": "sqlalchemy",
}

# A default worth knowing: the gateway gives up on workers and clusters that take more than 60 s to start.
_CONFIGURATION = """\
from functools import partial

from aiohttp import web

web.TCPSite = partial(web.TCPSite, reuse_port=True)  # because a `ports.HeldPort` is bound to the port
c.DaskGateway.address = {private!r}
{authentication}
c.Proxy.address = {public!r}  # HTTP, and the schedulers' TLS on the same port
c.Proxy.externally_managed = True
c.Proxy.api_token = {proxy_token!r}

# the defaults are dask-scheduler and dask-worker, which distributed 2026.6 has removed
c.ClusterConfig.scheduler_cmd = [{python!r}, "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = [{python!r}, "-m", "dask", "worker", "--host", {loopback!r}]
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "2 G"
c.ClusterConfig.adaptive_period = 1
c.ClusterConfig.idle_timeout = 600

c.DBBackendBase.db_url = "sqlite:///" + {database!r}
c.DBBackendBase.db_encrypt_keys = [{database_key!r}]
c.DBBackendBase.stop_clusters_on_shutdown = False  # they end with the directory's owner
{backend}
"""

_LOCAL_PROCESSES = """\
import os

from dask_gateway_server.backends.local import UnsafeLocalBackend


class Backend(UnsafeLocalBackend):
    def get_logs_directory(self, workdir):  # the default is in workdir, which is removed with the cluster
        return os.path.join({logs!r}, os.path.basename(workdir))


c.DaskGateway.backend_class = Backend
c.UnsafeLocalBackend.clusters_directory = {clusters!r}
c.UnsafeLocalBackend.inherited_environment = {inherited!r}
# a worker that runs a task takes 10 s to stop by itself; a killed one leaves nothing behind either
c.UnsafeLocalBackend.sigint_timeout = 1
c.UnsafeLocalBackend.sigterm_timeout = 0
"""
_SLURM_JOBS = """\
from eaf_facility.servers.slurm_backend import SlurmJobs

c.DaskGateway.backend_class = SlurmJobs
c.SlurmJobs.slurm_conf = {slurm_conf!r}
c.SlurmJobs.dask_gateway_jobqueue_launcher = {launcher!r}
c.SlurmClusterConfig.staging_directory = {jobs!r}
c.ClusterConfig.worker_cmd += ["--local-directory", "."]  # the staging directory, which is removed with the cluster
# a job that was cancelled is noticed, and replaced, within seconds
c.DBBackendBase.cluster_status_period = 2
c.DBBackendBase.worker_status_period = 2
c.DBBackendBase.cluster_heartbeat_period = 3
c.DBBackendBase.cluster_heartbeat_timeout = 60
"""
_LAUNCHER = """\
#!/bin/sh
umask 077  # of staging directory and jobs
exec {python} -I -S {script}
"""

_WITHOUT_HUB = """\
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = {password!r}
"""
# The gateway asks the Hub with each user's own token, so it needs none of its own.
_WITH_HUB = """\
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.JupyterHubAuthenticator"
c.JupyterHubAuthenticator.jupyterhub_api_url = {hub_api_url!r}
c.JupyterHubAuthenticator.jupyterhub_service_name = {service!r}
"""
_HUB_SERVICE = "dask-gateway"


def missing_packages() -> list[str]:
    """Return the packages that a gateway needs and this Python does not have."""
    return [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]


class DaskGatewayServer(RestartingServer):
    """One Dask Gateway with its proxy, on loopback ports.

    Most callers want `DaskGatewayServer.start`, which yields a gateway that is ready and stops it, with its clusters,
    in the end. The gateway's own log is `log`. The logs of schedulers and workers are in `cluster_logs`, with a
    directory per cluster, until the gateway stops. A gateway that dies is restarted, and its clusters keep running.

    Parameters
    ----------
    hub_api_url : str, optional
        The JupyterHub whose users may use the gateway; their tokens need the scope of the service ``dask-gateway``.
        By default, the password gives access.
    slurm : Slurm, optional
        Runs schedulers and workers as jobs. Started by root, each is the job of the user who made the cluster;
        otherwise all are this user's. By default they are processes of this user.
    """

    name = "dask-gateway"

    def __init__(self, *, hub_api_url: str | None = None, slurm: Slurm | None = None) -> None:
        super().__init__()
        self._hub_api_url = hub_api_url
        self._slurm = slurm
        self._password: str
        self._private_port = HeldPort()
        self._choose_ports()

    def _choose_ports(self) -> None:
        (self._port,) = free_ports(1)
        self.proxy = DaskGatewayProxy(self._port, self._private_port.number)

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        timeout: float = 60.0,
        progress: Callable[[str], None] = ignore,
    ) -> Iterator[DaskGatewayServer]:
        """Run a gateway for the duration of a `with` block, which begins when it is ready."""
        server = cls()
        with server.running(timeout=timeout, progress=progress):
            yield server

    @property
    def address(self) -> str:
        """The URL that clients connect to."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def password_file(self) -> Path:
        return self.directory / "password"

    @property
    def cluster_logs(self) -> Path:
        return self._slurm.jobs_directory if self._slurm else self.directory / "logs"

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
        """Start the gateway and its proxy, without waiting until they are ready."""
        if missing := missing_packages():
            raise ConfigurationError(
                f"a Dask Gateway needs {', '.join(missing)}: "
                f"{sys.executable} -m pip install 'eaf-inference[facility]'"
            )
        if self._slurm:
            check_python("dask", "dask_gateway_server", "eaf_inference")
        self.log = log_file(self.name)
        self.directory = Path(tempfile.mkdtemp(prefix="eaf-inference-gateway-"))  # 0700
        self.proxy.launch()
        self._password = secrets.token_urlsafe(32)
        scratch = self.directory / "scratch"
        scratch.mkdir()
        environment = plain_environment(first_on_path=Path(sys.executable).parent)
        environment |= {"TMPDIR": str(scratch), "NO_COLOR": "1"}
        if self._hub_api_url is None:
            write_private(self.password_file, self._password)
            authentication = _WITHOUT_HUB.format(password=self._password)
        else:
            authentication = _WITH_HUB.format(hub_api_url=self._hub_api_url, service=_HUB_SERVICE)
        configuration = self.directory / "dask_gateway_config.py"
        write_private(
            configuration,
            _CONFIGURATION.format(
                private=f"{LOOPBACK}:{self._private_port.number}",
                public=f"{LOOPBACK}:{self._port}",
                loopback=LOOPBACK,
                authentication=authentication,
                python=sys.executable,
                proxy_token=self.proxy.token,
                database=str(self.directory / "gateway.sqlite"),
                database_key=b64encode(secrets.token_bytes(32)).decode(),
                backend=self._backend(inherited=list(environment)),
            ),
        )
        self.launch_with_restarter(
            [sys.executable, "-m", "dask_gateway_server", "--config", str(configuration)], environment=environment
        )

    def _backend(self, *, inherited: list[str]) -> str:
        if self._slurm:
            launcher = self._slurm.directory / "dask-gateway-jobqueue-launcher"  # which sudo can run as each user
            script = proxy_program().parents[1] / "backends" / "jobqueue" / "launcher.py"
            command = _LAUNCHER.format(python=shlex.quote(sys.executable), script=shlex.quote(str(script)))
            launcher.write_text(command, encoding="utf-8")
            launcher.chmod(0o755)
            return _SLURM_JOBS.format(
                slurm_conf=str(self._slurm.configuration),
                launcher=str(launcher),
                jobs=str(self._slurm.jobs_directory),
            )
        return _LOCAL_PROCESSES.format(
            logs=str(self.cluster_logs), clusters=str(self.directory / "clusters"), inherited=inherited
        )

    def has_failed(self) -> bool:
        """Return whether the gateway or its proxy has ended."""
        return super().has_failed() or self.proxy.child.wait(0) is not None

    def port_is_taken(self) -> bool:
        return self.proxy.port_is_taken() or super().port_is_taken()

    def move(self) -> bool:
        if self._was_ready:  # clients know its address
            return False
        self.stop()  # with the proxy, which is replaced
        self._choose_ports()
        return True

    def is_ready(self) -> bool:
        """Return whether it takes requests at its address; the password is sent to its own proxy only."""
        if not self.proxy.is_ready():
            return False
        if self._hub_api_url is not None:  # the Hub may not run yet
            return ask(self._port, "/api/health")[0] == OK
        credentials = b64encode(f"{self.name}:{self._password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        return ask(self._port, "/api/v1/clusters/", headers=headers)[0] == OK

    def ask_to_stop(self) -> None:
        """Begin to stop the gateway and its proxy, without waiting."""
        super().ask_to_stop()
        self.proxy.ask_to_stop()

    def stop(self) -> None:
        """Stop the gateway, its proxy and all clusters."""
        super().stop()
        self.proxy.stop()
