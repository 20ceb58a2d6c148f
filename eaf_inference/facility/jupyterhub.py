"""One JupyterHub on this machine, with its proxy: real log-ins, a server for each user, all on loopback.

It is the real one, with a difference from a facility's: all users' servers run under the one account that started
it. What the Hub refuses it refuses; but whoever can run code in a notebook can read the files of all.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.http_proxy import HttpProxy, proxy_program
from eaf_inference.facility.kept import KeptServer
from eaf_inference.facility.loopback_http import OK, ask
from eaf_inference.facility.ports import LOOPBACK, HeldPort, listens
from eaf_inference.facility.processes import ignore, log_file, plain_environment, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["GROUP", "HubServer", "Services"]

GROUP = "triton-users"  # its members may use inference
OPERATOR = "facility-operator"

_CONFIGURATION = """\
import os
from functools import partialmethod

from eaf_inference.hub.jupyterhub import configure
from tornado.httpserver import HTTPServer

# beside the socket that holds the port, see `ports.HeldPort`
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

# the proxy is another process, and a Hub that ends leaves users' servers to the one that comes
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = {proxy_api!r}
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.JupyterHub.last_activity_interval = 5  # seconds after which a proxy that was restarted has its routes again
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
# nothing of the account that all share reaches a user
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
    """What users' servers are told of; see `eaf_inference.hub.jupyterhub.configure`."""

    token_service_url: str
    gateway_url: str | None = None


class HubServer(KeptServer):
    """One JupyterHub and its proxy.

    Its ports are chosen when it is made, so that what it works with can be told of them before it is launched; set
    `services` before `launch`. A Hub that dies is started again by its parent, on the same ports and with its
    database: users stay logged in and their servers run.

    Parameters
    ----------
    users : mapping
        User -> her groups; `GROUP` is that of those who may use inference.

    Attributes
    ----------
    services : Services
    proxy : HttpProxy
        Launched and stopped with it.
    """

    name = "jupyterhub"

    def __init__(self, users: Mapping[str, Sequence[str]], *, progress: Callable[[str], None] = ignore) -> None:
        super().__init__()
        self.services: Services
        self._users = users
        self._port = HeldPort()
        self.proxy = HttpProxy(self._port.number, proxy_program(progress=progress))

    @property
    def url(self) -> str:
        """Where users go."""
        return self.proxy.url

    @property
    def api_url(self) -> str:
        """Where services ask."""
        return f"http://{LOOPBACK}:{self._port.number}/hub/api"

    @property
    def password_file(self) -> Path:
        """Holds the password of all users."""
        return self.directory / "password"

    @property
    def operator_token_file(self) -> Path:
        """Holds a token that may do what an administrator may: make users, tokens and servers, change groups."""
        return self.directory / "operator-token"

    @property
    def homes(self) -> Path:
        """Holds a home directory for each user who has logged in."""
        return self.directory / "home"

    def launch(self) -> None:
        """Start proxy and Hub, which then takes seconds until it is ready."""
        self._check_packages()
        if not self.proxy.launched:
            self.proxy.launch()
            self.proxy.wait_until_ready()
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        self.directory = Path(tempfile.mkdtemp(prefix="eaf-inference-hub-"))  # 0700
        self.homes.mkdir(mode=0o700)
        self._operator_token, password = secrets.token_hex(32), secrets.token_urlsafe(24)
        write_private(self.password_file, password)
        write_private(self.operator_token_file, self._operator_token)
        configuration = self.directory / "jupyterhub_config.py"
        write_private(configuration, self._configuration(password))
        environment = plain_environment(first_on_path=Path(sys.executable).parent)
        self.keep([sys.executable, "-m", "jupyterhub", "--config", str(configuration)], environment=environment)

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
        """Begin to stop it, and the proxy, without waiting."""
        super().ask_to_stop()
        self.proxy.ask_to_stop()

    def stop(self) -> None:
        """End it, its proxy and all users' servers."""
        super().stop()
        self.proxy.stop()

    def is_ready(self) -> bool:
        """Whether it answers through its proxy; nobody but that is shown the operator's token."""
        if not (self.proxy.launched and listens(self.proxy.pid, self.proxy.port)):
            return False
        headers = {"Authorization": f"token {self._operator_token}"}
        status, body = ask(self.proxy.port, "/hub/api/user", headers=headers)
        return status == OK and json.loads(body).get("name") == OPERATOR
