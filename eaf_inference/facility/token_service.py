"""The token service as a process of its own, configured by what a facility on this machine gives it."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference.facility.loopback_http import OK, ask
from eaf_inference.facility.ports import LOOPBACK, HeldPort
from eaf_inference.facility.processes import (
    Child,
    Server,
    log_file,
    plain_environment,
    private_directory,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TokenServiceServer"]

_NAME = "triton-token"
_PREFIX = f"/services/{_NAME}/"


class TokenServiceServer(Server):
    """One token service on a loopback port that nobody else can take: whoever has it has users' Hub tokens.

    Parameters
    ----------
    hub_api_url : str
        The Hub that identifies users.
    configuration : mapping
        Section (`Facility`, `TokenPolicy`, `TokenIssuer`) -> settings; the key directory is this server's own.
    directory : Path
        Keys and configuration are kept in it, for a restart; it is the caller's to remove.
    """

    name = "token-service"

    def __init__(self, hub_api_url: str, configuration: Mapping[str, Mapping[str, Any]], directory: Path) -> None:
        super().__init__()
        self._hub_api_url = hub_api_url
        self.configuration = configuration
        self._directory = directory
        self._port = HeldPort()

    @property
    def url(self) -> str:
        """Where it listens, for the Hub's proxy."""
        return f"http://{LOOPBACK}:{self._port.number}"

    @property
    def base_url(self) -> str:
        """What users' servers are told: `token` and `facility.json` are below it."""
        return f"{self.url}{_PREFIX}"

    @property
    def jwks_url(self) -> str:
        """Where the door fetches the public keys."""
        return f"{self.base_url}.well-known/jwks.json"

    @property
    def keys(self) -> Path:
        """The directory of the signing keys."""
        return self._directory / "keys"

    def launch(self) -> None:
        """Start the program with the configuration as it is now."""
        self.log = log_file(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}")
        settings = {section: dict(values) for section, values in self.configuration.items()}
        settings["TokenIssuer"] = {**settings.get("TokenIssuer", {}), "key_directory": str(self.keys)}
        etc = private_directory(private_directory(self._directory) / "etc")
        (etc / "eaf_inference_config.json").unlink(missing_ok=True)
        write_private(etc / "eaf_inference_config.json", json.dumps(settings))
        environment = plain_environment(first_on_path=Path(sys.executable).parent)
        environment |= {
            "JUPYTER_CONFIG_DIR": str(etc),  # instead of the user's own
            "JUPYTER_CONFIG_PATH": str(etc),  # above what is in /etc
            "JUPYTERHUB_API_URL": self._hub_api_url,
            "JUPYTERHUB_SERVICE_URL": self.url,
            "JUPYTERHUB_SERVICE_PREFIX": _PREFIX,
            "JUPYTERHUB_SERVICE_NAME": _NAME,
        }
        command = [sys.executable, "-m", "eaf_inference.hub", "--reuse-port"]
        self._child = Child(command, environment=environment, log=self.log)

    def reason(self) -> str:
        said = [
            line
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            if "eaf_inference" in line
        ]
        return said[-1] if said else super().reason()

    def is_ready(self) -> bool:
        """Whether it can sign."""
        return ask(self._port.number, f"{_PREFIX}healthz")[0] == OK
