"""The server and the token that a Dask client pushed to this worker process.

`eaf_inference.dask.worker_plugin`, of the client's version, stores the values; they may change at any time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from eaf_inference.address import Address, parse_urls, possible_addresses
from eaf_inference.auth.sources import TokenSource
from eaf_inference.auth.token import Token
from eaf_inference.errors import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WorkerSession", "WorkerToken", "worker_session"]

_HELD = "_eaf_inference_held"  # as in worker_plugin, which cannot be imported without Dask
_CLIENT_ANSWERS_WITHIN = 15.0  # seconds: two heartbeats of a large cluster's worker, and the token service's time


class WorkerSession:
    """The server and the user of the client's last push."""

    def __init__(self, held: Any) -> None:
        self._held = held
        self.token = WorkerToken(held)

    def wait(self, timeout: float) -> dict[str, Any]:
        """Wait until the client has named a server, and return the pushed values.

        Raises
        ------
        ServerUnavailable
            It did not within the timeout; the message has the client's reason.
        """
        held = self._held
        held.wait_until(lambda: held.values is None or held.values["urls"], timeout)
        values: dict[str, Any] | None = held.values
        if values and values["urls"]:
            return values
        reason = values["reason"] if values else "it has disconnected"
        error = ServerUnavailable(
            f"The notebook of this Dask worker has no connection to Triton: {reason}. See %triton_status there."
        )
        error.reason = reason
        raise error

    def names(self, urls: str | tuple[str, ...]) -> bool:
        """Return whether these are the servers that the client named."""
        values = self._held.values
        if values is None:
            return False
        meant = [{each.url for each in meanings} for meanings in possible_addresses(urls)]
        return all(each & set(values["urls"]) for each in meant) and set(values["urls"]) <= set().union(*meant)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The servers in the last push; none if the client has disconnected."""
        values = self._held.values
        return parse_urls(list(values["urls"])) if values and values["urls"] else ()

    def count_with(self, totals: Callable[[], dict[str, Any]]) -> None:
        """Report a connection's traffic with this worker's heartbeats."""
        self._held.totals = totals


class WorkerToken(TokenSource):
    """The token that the client pushed to this worker, and renews."""

    cheap = True
    renews = True

    @property
    def why_none(self) -> str:
        return "The notebook of this Dask worker has none: see %triton_status there."

    def __init__(self, held: Any) -> None:
        self._held = held
        self._secret: Any = None
        self._token: Token | None = None

    def read(self) -> Token | None:
        values = self._held.values
        secret = values["token"] if values else None
        if secret is not self._secret:
            self._token = None if secret is None else Token(secret.reveal())
            self._secret = secret
        return self._token

    def renew(self) -> Token | None:
        """Report to the client that a server refused the token, and wait for a younger one.

        Raises
        ------
        ServerUnavailable
            None came in time: the client is gone, or gets no younger token itself.
        """
        held, refused = self._held, self._held.values
        if refused is not None and refused["token"] is not None:
            held.refuse(refused["issued"])
            if not held.wait_until(lambda: held.values is not refused, _CLIENT_ANSWERS_WITHIN):
                raise ServerUnavailable(
                    "The server refused this worker's token, and your notebook has sent no newer one within "
                    f"{_CLIENT_ANSWERS_WITHIN:.0f} s. See %triton_status there."
                )
        return self.read()

    def __repr__(self) -> str:
        return "the Dask client of this worker"


def worker_session() -> WorkerSession | None:
    """Return the session of this process, even if the client has ended it; None if there never was one."""
    held = getattr(sys.modules.get(_HELD), "held", None)
    return None if held is None else WorkerSession(held)
