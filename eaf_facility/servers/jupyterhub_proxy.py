"""JupyterHub's proxy, configurable-http-proxy.

It is a process of its own, so that restarting the Hub does not cut users off from their servers.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.process.http import OK, ask
from eaf_facility.process.ports import LOOPBACK, free_ports, listens
from eaf_facility.process.server import Child, Server, ignore, log_file, plain_environment
from eaf_inference._files import cache_path, locked
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VERSION", "JupyterHubProxy", "proxy_program"]

VERSION = "5.3.0"
_NAME = "configurable-http-proxy"
_PACKAGES = Path(__file__).with_name(_NAME)  # package.json, and a lock with the hashes of all packages
_CHECKOUT = Path(__file__).parents[2] / "node_modules" / ".bin" / _NAME


def proxy_program(*, progress: Callable[[str], None] = ignore) -> Path:
    """Return the program on the PATH or in a checkout, or else install one with npm into the user's cache.

    Raises
    ------
    ConfigurationError
        It is not installed, and npm is missing or fails.
    """
    if found := shutil.which(_NAME):
        return Path(found)
    if _CHECKOUT.exists():
        return _CHECKOUT
    directory = cache_path() / f"{_NAME}-{VERSION}"
    program = directory / "node_modules" / ".bin" / _NAME
    if not program.exists():
        with locked(directory.with_name(f"{directory.name}.lock")):
            if not program.exists():
                _install(directory, progress)
    return program


def _install(directory: Path, progress: Callable[[str], None]) -> None:
    """Install it with npm into another directory, and move that into place in one step."""
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigurationError(
            f"A JupyterHub needs {_NAME}, but neither it nor npm is on your PATH. Install Node 20 or newer with npm, "
            f"or {_NAME} {VERSION} itself."
        )
    progress(f"installing {_NAME} {VERSION} into {directory} (once, about 10 MB)")
    draft = directory.with_name(f"{directory.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(_PACKAGES, draft)
    command = [npm, "ci", "--prefix", str(draft), "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        said = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise ConfigurationError(f"npm cannot install {_NAME}: `{' '.join(command)}` failed:\n  {said}")
    shutil.rmtree(directory, ignore_errors=True)
    draft.rename(directory)


class JupyterHubProxy(Server):
    """One configurable-http-proxy on loopback ports; setting its routes needs a random token.

    Parameters
    ----------
    hub_port : int
        The port of the Hub, which gets all requests without a route.
    program : Path
    """

    name = "jupyterhub-proxy"

    def __init__(self, hub_port: int, program: Path) -> None:
        super().__init__()
        self.token = secrets.token_hex(32)
        self._hub = f"http://{LOOPBACK}:{hub_port}"
        self._program = program
        self._ports = free_ports(2)

    @property
    def port(self) -> int:
        return self._ports[0]

    @property
    def url(self) -> str:
        """The URL that users open."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def api_url(self) -> str:
        """The URL at which the Hub sets routes."""
        return f"http://{LOOPBACK}:{self._ports[1]}"

    def launch(self) -> None:
        """Start the program, without waiting until it is ready."""
        self.log = log_file(self.name)
        port, api_port = map(str, self._ports)
        environment = plain_environment(first_on_path=self._program.parent)
        self._child = Child(
            [
                *(self._program, "--ip", LOOPBACK, "--port", port, "--api-ip", LOOPBACK, "--api-port", api_port),
                *("--default-target", self._hub, "--error-target", f"{self._hub}/hub/error", "--log-level", "warn"),
            ],
            environment=environment | {"CONFIGPROXY_AUTH_TOKEN": self.token},  # as a Hub passes it to its own proxy
            log=self.log,
        )

    def is_ready(self) -> bool:
        """Return whether it takes routes; the token is sent only if this process is the one that listens."""
        if not all(listens(self.pid, port) for port in self._ports):
            return False
        return ask(self._ports[1], "/api/routes", headers={"Authorization": f"token {self.token}"})[0] == OK
