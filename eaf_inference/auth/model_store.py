"""A facility's model store behind its token service: short-lived keys to upload with, and who writes config.pbtxt."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from eaf_inference._redact import SecretText
from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.auth.token_service import TokenService

__all__ = ["HubPublisher", "StoreKeys"]

_RENEW = 0.5  # of the keys' life that is left when they are renewed: an upload that began with them goes on with them
_STORE_TIMEOUT = 60.0  # seconds for a request during which the service itself asks the store
_LARGEST_CONFIG = 256 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class _Keys:
    key: SecretText
    secret: SecretText
    token: SecretText
    renew_at: float


class StoreKeys:
    """The user's keys for the model store: a function for `eaf_inference.deploy.store.Store` that returns valid ones.

    Parameters
    ----------
    service : TokenService
    clock : callable
        Returns seconds from any starting point.
    """

    def __init__(self, service: TokenService, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._lock = threading.Lock()
        self._known: _Keys | None = None

    def __call__(self) -> tuple[SecretText, SecretText, SecretText]:
        """Return the access key, the secret and the session token.

        Raises
        ------
        NotAuthorized, ServerUnavailable
            The service refuses, or does not answer.
        """
        with self._lock:
            if self._known is None or self._clock() >= self._known.renew_at:
                self._known = self._service.ask(
                    "store/keys", "POST", "keys for the model store", self._read, timeout=_STORE_TIMEOUT
                )
            known = self._known
        return known.key, known.secret, known.token

    def _read(self, reply: Any) -> _Keys:
        lifetime = index(reply["expires_in"])
        return _Keys(
            SecretText(reply["key"][:]),
            SecretText(reply["secret"][:]),
            SecretText(reply["token"][:]),
            self._clock() + _RENEW * lifetime,
        )

    def __repr__(self) -> str:
        return f"keys from the {self._service!r}"


class HubPublisher:
    """Writes config.pbtxt through the token service, which checks it (see `eaf_inference.deploy.store.Publisher`).

    Parameters
    ----------
    service : TokenService
    """

    def __init__(self, service: TokenService) -> None:
        self._service = service

    def write_config(self, served_name: str, text: str) -> None:
        """Ask the service to check the text and write it.

        Raises
        ------
        DeploymentRefused
            The facility does not allow it; the message is the service's own.
        NotAuthorized, ServerUnavailable
            It is not the user's model, or the service does not answer.
        """
        if (length := len(text.encode())) > _LARGEST_CONFIG:
            raise DeploymentRefused(
                f"The config.pbtxt of {served_name!r} has {length} bytes. Expected at most {_LARGEST_CONFIG}: "
                "shorten its labels or recipe."
            )
        self._ask(f"{_path(served_name)}/config", "PUT", "configuration", text)

    def remove_config(self, served_name: str) -> None:
        """Ask the service to remove it; errors are those of `write_config`."""
        self._ask(f"{_path(served_name)}/config", "DELETE", "removal")

    def _ask(self, path: str, method: str, what: str, body: str | None = None) -> None:
        self._service.ask(path, method, what, lambda reply: reply["model"][:], body=body, timeout=_STORE_TIMEOUT)

    def __repr__(self) -> str:
        return f"HubPublisher({self._service!r})"


def _path(served_name: str) -> str:
    return f"store/models/{quote(served_name, safe='')}"
