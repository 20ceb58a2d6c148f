"""The stand-in for an S3 service, for a facility on this machine: moto's server as a process of its own.

It has one bucket for users' models, and STS for users' short-lived keys. moto is a tool for tests: it keeps the
objects in memory and the larger ones in temporary files, and they are gone when it ends.
"""

from __future__ import annotations

import json
import secrets
import sys
from importlib.util import find_spec
from pathlib import Path

from eaf_facility.process.http import ask
from eaf_facility.process.ports import LOOPBACK, HeldPort, listens
from eaf_facility.process.server import Child, Server, log_file, plain_environment
from eaf_inference._files import private_directory, write_private
from eaf_inference._redact import SecretText
from eaf_inference.errors import ConfigurationError

__all__ = ["REGION", "ROLE", "S3StandIn"]

REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/eaf-inference-user"  # moto knows every role
_BUCKET, _PREFIX = "eaf-inference", "models"
_FORBIDDEN = 403


class S3StandIn(Server):
    """One moto, on a held loopback port, with keys of its own.

    Parameters
    ----------
    directory : Path
        Keeps its keys across restarts, in files that only this user can read. The caller removes it.

    Raises
    ------
    ConfigurationError
        moto is not installed.
    """

    name = "S3 stand-in (moto)"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        if missing := [name for name in ("moto", "flask", "flask_cors") if find_spec(name) is None]:
            raise ConfigurationError(
                f"--store s3 needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. "
                "Install the extra: pip install 'eaf-inference[s3-stand-in]'"
            )
        self._directory = private_directory(directory)
        self._port = HeldPort()
        self._keys = {owner: _new_key() for owner in ("service", "triton")}
        write_private(self._directory / "keys.json", json.dumps(self._keys))
        write_private(self.key_file, json.dumps(self._keys["service"]))

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self._port.number}"

    @property
    def url(self) -> str:
        """The store, for clients."""
        return f"s3://{_BUCKET}/{_PREFIX}"

    @property
    def repository(self) -> str:
        """The store, as Triton reads it."""
        return f"s3://{self.endpoint}/{_BUCKET}/{_PREFIX}"

    @property
    def key_file(self) -> Path:
        """A private JSON file with ``key`` and ``secret``, which may do everything."""
        return self._directory / "key.json"

    @property
    def reader(self) -> dict[str, SecretText]:
        """Triton's environment variables, with a key that can only read."""
        key = self._keys["triton"]
        return {
            "AWS_ACCESS_KEY_ID": SecretText(key["key"]),
            "AWS_SECRET_ACCESS_KEY": SecretText(key["secret"]),
            "AWS_DEFAULT_REGION": SecretText(REGION),
            "AWS_EC2_METADATA_DISABLED": SecretText("true"),
        }

    def launch(self) -> None:
        """Start the program, without waiting until it is ready. It has no objects."""
        self.log = log_file("s3-stand-in")
        program = [sys.executable, "-m", "eaf_facility.servers.s3_program"]
        arguments = [str(self._port.number), _BUCKET, f"{_PREFIX}/", str(self._directory / "keys.json")]
        self._child = Child(
            [*program, *arguments],
            environment=plain_environment(first_on_path=Path(sys.executable).parent),
            log=self.log,
        )

    def is_ready(self) -> bool:
        """Return whether it answers; it refuses everybody without a key."""
        return listens(self.pid, self._port.number) and ask(self._port.number, "/")[0] == _FORBIDDEN


def _new_key() -> dict[str, str]:
    return {"key": f"EAF{secrets.token_hex(9).upper()}", "secret": secrets.token_urlsafe(30)}
