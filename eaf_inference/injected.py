"""What a Dask client gave this worker process, as the rest of the package sees it.

The values were put there by `eaf_inference.dask.worker_plugin`, of whichever version the client has; they change
while they are used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from eaf_inference.config import Address, parse_urls, possible_addresses
from eaf_inference.credentials import Token, TokenSource
from eaf_inference.errors import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Injected", "InjectedToken", "injected"]

_HELD = "_eaf_inference_held"  # as in worker_plugin, which must not be imported where there is no Dask
_CLIENT_ANSWERS_WITHIN = 15.0  # seconds: two heartbeats of a large cluster's worker, and the token service's time


class Injected:
    """Where Triton is and who the user is, as the newest push says."""

    def __init__(self, held: Any) -> None:
        self._held = held
        self.token = InjectedToken(held)

    def wait(self, timeout: float) -> dict[str, Any]:
        """The values, once the client has told where Triton is.

        Raises
        ------
        ServerUnavailable
            It has not within the timeout; the message has its reason.
        """
        held = self._held
        held.wait_until(lambda: held.values is None or held.values["urls"], timeout)
        values: dict[str, Any] | None = held.values
        if values and values["urls"]:
            return values
        reason = values["reason"] if values else "it has disconnected"
        error = ServerUnavailable(
            f"The notebook that this Dask worker works for has no connection to Triton: {reason}. "
            "See %triton_status there."
        )
        error.reason = reason
        raise error

    def names(self, urls: str | tuple[str, ...]) -> bool:
        """Whether these are the servers that the client named."""
        values = self._held.values
        if values is None:
            return False
        meant = [{each.url for each in meanings} for meanings in possible_addresses(urls)]
        return all(each & set(values["urls"]) for each in meant) and set(values["urls"]) <= set().union(*meant)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The servers as last named; none where the client has disconnected."""
        values = self._held.values
        return parse_urls(list(values["urls"])) if values and values["urls"] else ()

    def count_with(self, totals: Callable[[], dict[str, Any]]) -> None:
        """Put what a connection has sent and got back on this worker's heartbeat."""
        self._held.totals = totals


class InjectedToken(TokenSource):
    """The token that the client gave this worker, and renews there."""

    at_hand = True
    renews = True

    @property
    def why_none(self) -> str:
        return "The notebook that this Dask worker works for has none: see %triton_status there."

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
        """Tell the client that a server refused the token, and wait for its answer.

        Raises
        ------
        ServerUnavailable
            There is none yet: the client is gone, or gets no younger token itself.
        """
        held, refused = self._held, self._held.values
        if refused is not None and refused["token"] is not None:
            held.refuse(refused["issued"])
            if not held.wait_until(lambda: held.values is not refused, _CLIENT_ANSWERS_WITHIN):
                raise ServerUnavailable("Your notebook has brought this worker no younger token.")
        return self.read()

    def __repr__(self) -> str:
        return "the Dask client of this worker"


def injected() -> Injected | None:
    """What a client gave this process, if it has taken it back or not; None where no client ever gave any."""
    held = getattr(sys.modules.get(_HELD), "held", None)
    return None if held is None else Injected(held)
