"""JupyterHub's proxy, configurable-http-proxy: where its program is, and one that runs apart from the Hub.

Apart, because whoever restarts the Hub must not cut users off from their servers.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.loopback_http import OK, ask
from eaf_inference.facility.ports import LOOPBACK, free_ports, listens
from eaf_inference.facility.processes import Child, Server, ignore, log_file, plain_environment, private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["VERSION", "HttpProxy", "proxy_program"]

VERSION = "5.3.0"
_NAME = "configurable-http-proxy"
_PACKAGES = Path(__file__).with_name(_NAME)  # for npm: this version, and a lock with the hashes of all that it needs
_CHECKOUT = Path(__file__).parents[2] / "node_modules" / ".bin" / _NAME


def proxy_program(*, progress: Callable[[str], None] = ignore) -> Path:
    """The program: that on the PATH, that of a checkout, or else one that npm installs in the user's cache.

    Raises
    ------
    ConfigurationError
        There is none, and npm is missing or fails.
    """
    if found := shutil.which(_NAME):
        return Path(found)
    if _CHECKOUT.exists():
        return _CHECKOUT
    import platformdirs

    directory = platformdirs.user_cache_path("eaf-inference", appauthor=False) / f"{_NAME}-{VERSION}"
    program = directory / "node_modules" / ".bin" / _NAME
    if not program.exists():
        with _locked(directory.with_name(f"{directory.name}.lock")):
            if not program.exists():
                _install(directory, progress)
    return program


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    private_directory(path.parent)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(directory: Path, progress: Callable[[str], None]) -> None:
    """Let npm install it beside, and move it to its place in one step."""
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigurationError(
            f"A JupyterHub needs {_NAME}, and there is neither that nor npm to install it with on your PATH. Install "
            f"Node 20 or newer with npm, or {_NAME} {VERSION} itself."
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


class HttpProxy(Server):
    """One configurable-http-proxy on loopback ports, with a random token for those who set its routes.

    Parameters
    ----------
    hub_port : int
        Where the Hub will be: what has no route goes there.
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
        """Where users go."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def api_url(self) -> str:
        """Where the Hub sets routes."""
        return f"http://{LOOPBACK}:{self._ports[1]}"

    def launch(self) -> None:
        """Start the program; it then takes a moment until it is ready."""
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        port, api_port = map(str, self._ports)
        environment = plain_environment(first_on_path=self._program.parent)
        self._child = Child(
            [
                *(self._program, "--ip", LOOPBACK, "--port", port, "--api-ip", LOOPBACK, "--api-port", api_port),
                *("--default-target", self._hub, "--error-target", f"{self._hub}/hub/error", "--log-level", "warn"),
            ],
            environment=environment | {"CONFIGPROXY_AUTH_TOKEN": self.token},  # as a Hub passes it that starts one
            log=self.log,
        )

    def is_ready(self) -> bool:
        """Whether it takes routes, and it is this proxy that listens: no other one is shown the token."""
        if not all(listens(self.pid, port) for port in self._ports):
            return False
        return ask(self._ports[1], "/api/routes", headers={"Authorization": f"token {self.token}"})[0] == OK
