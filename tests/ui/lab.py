"""A real JupyterLab or Notebook 7, as under a Hub: below a base URL, with a token, in its own directories."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.process.ports import free_ports
from eaf_facility.process.server import Child

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BASE = "/user/alice/"
_STARTS_WITHIN = 60.0  # seconds
# Prefixes of variables that would affect discovery, credentials or Jupyter.
_AMBIENT = ("EAF_", "TRITON_", "SONIC_", "BEARER_", "X509_", "JUPYTER", "IPYTHON", "PYTEST", "DASK_")
_DIRECTORIES = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "jupyter-runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
    "XDG_RUNTIME_DIR": "runtime",  # for the announcement of `eaf-inference up`
    "XDG_STATE_HOME": "state",
}
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}


@dataclass(frozen=True)
class Lab:
    """One that runs.

    Attributes
    ----------
    url : str
        With the base URL, without the token.
    environment : mapping
        What its user's other programs have to be started with.
    directory : Path
        What the file browser shows.
    """

    url: str
    token: str
    environment: Mapping[str, str]
    directory: Path
    log: Path

    def configure(self, **settings) -> None:
        """Write the facility's configuration, which the next update reads."""
        path = Path(self.environment["JUPYTER_CONFIG_DIR"]) / "eaf_inference_config.json"
        path.write_text(json.dumps({"Facility": settings}))


@contextmanager
def running_lab(
    home: Path, *, application: str = "jupyterlab", environment: Mapping[str, str] | None = None, **settings
) -> Iterator[Lab]:
    """A Lab for the length of a `with` block.

    Parameters
    ----------
    home : Path
        An empty directory, for all that it writes.
    application : str
        The module that serves it: "jupyterlab" or "notebook".
    environment : mapping, optional
        More variables.
    **settings
        The facility's configuration.
    """
    (port,) = free_ports(1)
    url, token = f"http://127.0.0.1:{port}{BASE}", secrets.token_hex(16)
    lab = Lab(url, token, environment_of(home) | dict(environment or {}), home / "notebooks", home / "lab.log")
    lab.directory.mkdir()
    lab.configure(**settings)
    command = [
        *(sys.executable, "-m", application, "--allow-root", "--no-browser", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(
            f"--ServerApp.base_url={BASE}",
            f"--ServerApp.root_dir={lab.directory}",
            "--LabApp.extension_manager=readonly",
        ),
    ]
    # the environment, because `ps` shows arguments
    with serving(lab, command, "api/status", environment=lab.environment | {"JUPYTER_TOKEN": token}):
        yield lab


@contextmanager
def serving(lab: Lab, command: list[str], health: str, *, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a Lab's program during the block, from its first answer to `health`."""
    lab.log.touch()
    # stopped with its kernels when the block, or this process, ends
    child = Child(command, environment=environment, log=lab.log)
    try:
        _wait_until_it_answers(lab, child, health)
        yield
    finally:
        child.stop()


def environment_of(home: Path) -> dict[str, str]:
    """Return the environment of a program that reads and writes only below `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_AMBIENT)}
    paths = {name: home / directory for name, directory in _DIRECTORIES.items()}
    for path in paths.values():
        path.mkdir(parents=True, mode=0o700)
    notification = (
        paths["JUPYTERLAB_SETTINGS_DIR"] / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    )
    notification.parent.mkdir(parents=True)
    notification.write_text(json.dumps(NO_NEWS))
    return inherited | {name: str(path) for name, path in paths.items()}


def _wait_until_it_answers(lab: Lab, child: Child, health: str) -> None:
    request = urllib.request.Request(f"{lab.url}{health}", headers={"Authorization": f"token {lab.token}"})  # noqa: S310
    ends = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
        except OSError:  # there is no event for the open port
            if child.wait(0) is not None or time.monotonic() > ends:
                raise RuntimeError(f"The server did not start:\n{lab.log.read_text()[-4000:]}") from None
            time.sleep(0.05)
        else:
            return
