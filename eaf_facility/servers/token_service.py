"""The token service as its own process, for a facility on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_facility.hub.jupyterhub import TOKEN_SERVICE
from eaf_facility.process.http import OK, ask
from eaf_facility.process.ports import LOOPBACK, HeldPort
from eaf_facility.process.server import (
    Child,
    Server,
    log_file,
    plain_environment,
)
from eaf_facility.token_policy import JWKS_PATH
from eaf_inference._files import private_directory, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TokenServiceServer"]

_PREFIX = f"/services/{TOKEN_SERVICE}/"


class TokenServiceServer(Server):
    """One token service, on a held loopback port: another process on that port would receive users' Hub tokens.

    Parameters
    ----------
    hub_api_url : str
        URL of the API of the Hub that identifies users.
    configuration : mapping
        Settings by section (`Facility`, `TokenPolicy`, `TokenIssuer`). The server sets the key directory itself.
    directory : Path
        Keeps keys and configuration across restarts; the caller removes it.
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
        """URL on which the service listens, for the Hub's proxy."""
        return f"http://{LOOPBACK}:{self._port.number}"

    @property
    def base_url(self) -> str:
        """Base URL for users' servers; `token` and `facility.json` are below it."""
        return f"{self.url}{_PREFIX}"

    @property
    def jwks_url(self) -> str:
        """URL from which Envoy fetches the public keys."""
        return f"{self.base_url}{JWKS_PATH}"

    @property
    def keys(self) -> Path:
        """Directory of the signing keys."""
        return self._directory / "keys"

    def launch(self) -> None:
        """Start the program with the current configuration."""
        self.log = log_file(self.name)
        settings = {section: dict(values) for section, values in self.configuration.items()}
        settings["TokenIssuer"] = {**settings.get("TokenIssuer", {}), "key_directory": str(self.keys)}
        etc = private_directory(private_directory(self._directory) / "etc")
        (etc / "eaf_inference_config.json").unlink(missing_ok=True)
        write_private(etc / "eaf_inference_config.json", json.dumps(settings))
        environment = plain_environment(first_on_path=Path(sys.executable).parent)
        environment |= {
            "JUPYTER_CONFIG_DIR": str(etc),  # replaces the user's own configuration
            "JUPYTER_CONFIG_PATH": str(etc),  # overrides /etc
            "JUPYTERHUB_API_URL": self._hub_api_url,
            "JUPYTERHUB_SERVICE_URL": self.url,
            "JUPYTERHUB_SERVICE_PREFIX": _PREFIX,
            "JUPYTERHUB_SERVICE_NAME": TOKEN_SERVICE,
        }
        command = [sys.executable, "-m", "eaf_facility.hub", "--reuse-port"]
        self._child = Child(command, environment=environment, log=self.log)

    def reason(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("eaf_facility.hub: ")]
        return errors[-1] if errors else super().reason()

    def is_ready(self) -> bool:
        """Return whether it can sign tokens."""
        return ask(self._port.number, f"{_PREFIX}healthz")[0] == OK
