"""A JupyterHub on this machine, with its proxy: real log-ins, and a server for each user, all on loopback.

It is the real Hub, with one difference from a facility's: all users' servers run under the account that started it.
The Hub's own checks apply, but any user can read the files of all from a notebook.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.process.http import OK, ask
from eaf_facility.process.ports import LOOPBACK, HeldPort, listens
from eaf_facility.process.restarting_server import RestartingServer
from eaf_facility.process.server import ignore, log_file, plain_environment
from eaf_facility.servers.jupyterhub_proxy import JupyterHubProxy, proxy_program
from eaf_inference._files import write_private
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["GROUP", "JupyterHubServer", "Services"]

GROUP = "triton-users"  # its members may use inference
OPERATOR = "facility-operator"

_CONFIGURATION = """\
import os
from functools import partialmethod

from eaf_facility.hub.jupyterhub import configure
from tornado.httpserver import HTTPServer

# because a `ports.HeldPort` is bound to the port
HTTPServer.listen = partialmethod(HTTPServer.listen, reuse_port=True)

c = get_config()
c.JupyterHub.bind_url = {url!r}
c.JupyterHub.hub_ip = {loopback!r}
c.JupyterHub.hub_port = {port!r}
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = {password!r}
c.Authenticator.allowed_users = set({users!r})
c.JupyterHub.load_groups = {groups!r}

# the proxy is another process, and a Hub that ends leaves users' servers to its successor
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = {proxy_api!r}
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.JupyterHub.last_activity_interval = 5  # seconds until a restarted proxy has its routes again
c.JupyterHub.cleanup_servers = False

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = os.path.join({homes!r}, "{{username}}")
c.Spawner.args = {arguments!r}
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.Spawner.env_keep = ["PATH", "LANG", "LC_ALL"]


def at_home(name):
    return lambda spawner: os.path.join({homes!r}, spawner.user.name, name)


def make_home(spawner):
    for name in ("", "run"):
        os.makedirs(at_home(name)(spawner), mode=0o700, exist_ok=True)


c.Spawner.pre_spawn_hook = make_home
# users get their own directories instead of those of the account that they share
c.Spawner.environment = {{
    "XDG_RUNTIME_DIR": at_home("run"),
    "JUPYTER_CONFIG_DIR": at_home(".jupyter"),
    "JUPYTER_DATA_DIR": at_home(".local/share/jupyter"),
    "JUPYTER_RUNTIME_DIR": at_home(".local/share/jupyter/runtime"),
    "IPYTHONDIR": at_home(".ipython"),
}}

c.JupyterHub.services = [{{"name": {operator!r}, "api_token": {operator_token!r}, "display": False}}]
c.JupyterHub.load_roles = [
    {{
        "name": {operator!r},
        "scopes": ["admin:users", "admin:groups", "admin:servers", "tokens", "read:services", "access:servers"],
        "services": [{operator!r}],
    }}
]
configure(c, **{services!r})
"""


@dataclass(frozen=True, slots=True)
class Services:
    """The services that users' servers know; see `eaf_facility.hub.jupyterhub.configure`."""

    token_service_url: str
    gateway_url: str | None = None


class JupyterHubServer(RestartingServer):
    """One JupyterHub and its proxy.

    Its ports are chosen by the constructor, so that its services can be configured before it is launched; set
    `services` before `launch`. A Hub that dies is restarted on the same ports and with its database: users stay
    logged in, and their servers keep running.

    Parameters
    ----------
    users : mapping
        The groups of each user; members of `GROUP` may use inference.

    Attributes
    ----------
    services : Services
    proxy : JupyterHubProxy
        Launched and stopped with the Hub.
    """

    name = "jupyterhub"

    def __init__(self, users: Mapping[str, Sequence[str]], *, progress: Callable[[str], None] = ignore) -> None:
        super().__init__()
        self.services: Services
        self._users = users
        self._port = HeldPort()
        self.proxy = JupyterHubProxy(self._port.number, proxy_program(progress=progress))

    @property
    def url(self) -> str:
        """The URL at which users log in."""
        return self.proxy.url

    @property
    def api_url(self) -> str:
        """The URL of its REST API, for services."""
        return f"http://{LOOPBACK}:{self._port.number}/hub/api"

    @property
    def password_file(self) -> Path:
        """The file with the common password of all users."""
        return self.directory / "password"

    @property
    def operator_token_file(self) -> Path:
        """The file with a token that has an administrator's rights on users, tokens, servers and groups."""
        return self.directory / "operator-token"

    @property
    def homes(self) -> Path:
        """The directory with a home for each user who has logged in."""
        return self.directory / "home"

    def launch(self) -> None:
        """Start the proxy and the Hub, without waiting until the Hub is ready."""
        self._check_packages()
        if not self.proxy.launched:
            self.proxy.launch()
            self.proxy.wait_until_ready()
        self.log = log_file(self.name)
        self.directory = Path(tempfile.mkdtemp(prefix="eaf-inference-hub-"))  # 0700
        self.homes.mkdir(mode=0o700)
        self._operator_token, password = secrets.token_hex(32), secrets.token_urlsafe(24)
        write_private(self.password_file, password)
        write_private(self.operator_token_file, self._operator_token)
        configuration = self.directory / "jupyterhub_config.py"
        write_private(configuration, self._configuration(password))
        environment = plain_environment(first_on_path=Path(sys.executable).parent)
        self.launch_with_restarter(
            [sys.executable, "-m", "jupyterhub", "--config", str(configuration)], environment=environment
        )

    def _configuration(self, password: str) -> str:
        groups: dict[str, dict[str, list[str]]] = {GROUP: {"users": []}}
        for user, names in self._users.items():
            for name in names:
                groups.setdefault(name, {"users": []})["users"].append(user)
        services = {
            "service_url": self.services.token_service_url,
            "groups": [GROUP],
            "managed": False,
            "gateway_url": self.services.gateway_url,
        }
        return _CONFIGURATION.format(
            url=self.url,
            loopback=LOOPBACK,
            port=self._port.number,
            password=password,
            users=sorted(self._users),
            groups=groups,
            proxy_api=self.proxy.api_url,
            proxy_token=self.proxy.token,
            homes=str(self.homes),
            arguments=["--allow-root"] if os.geteuid() == 0 else [],
            operator=OPERATOR,
            operator_token=self._operator_token,
            services=services,
        )

    @staticmethod
    def _check_packages() -> None:
        from importlib.util import find_spec

        missing = [name for name in ("jupyterhub", "jupyterlab") if find_spec(name) is None]
        if missing:
            raise ConfigurationError(
                f"a JupyterHub needs {', '.join(missing)}: "
                f"{sys.executable} -m pip install 'eaf-inference[facility,notebook]'"
            )

    def ask_to_stop(self) -> None:
        """Begin to stop the Hub and its proxy, without waiting."""
        super().ask_to_stop()
        self.proxy.ask_to_stop()

    def stop(self) -> None:
        """Stop the Hub, its proxy and all users' servers."""
        super().stop()
        self.proxy.stop()

    def is_ready(self) -> bool:
        """Return whether it answers through its proxy; the operator's token is sent to its own proxy only."""
        if not (self.proxy.launched and listens(self.proxy.pid, self.proxy.port)):
            return False
        headers = {"Authorization": f"token {self._operator_token}"}
        status, body = ask(self.proxy.port, "/hub/api/user", headers=headers)
        return status == OK and json.loads(body).get("name") == OPERATOR
