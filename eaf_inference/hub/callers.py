"""Who is calling: what the Hub says of the token in the request's Authorization header, asked on every occasion.

Nothing is remembered, so that whoever is taken out of the group gets nothing more; and nothing else that a request
says of its sender is believed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyterhub.services.auth import HubAuth

__all__ = ["Caller", "Refusal", "caller_of"]

_HUB_WITHIN = 5.0  # seconds
_HEADER = re.compile(r"(?:token|bearer) +([A-Za-z0-9\-._~+/]{1,4096}=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Caller:
    """A user of the Hub who may use this service."""

    name: str
    groups: frozenset[str]


class Refusal(Exception):
    """A request that is not granted.

    Attributes
    ----------
    status : int
        HTTP's.
    error : str
        For programs.
    message : str
        A sentence for the user.
    user : str or None
        Whose request it is, where that is known.
    retry_after : int or None
        Seconds after which it may be granted.
    """

    def __init__(
        self, status: int, error: str, message: str, *, user: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message
        self.user, self.retry_after = user, retry_after


async def caller_of(authorization: str | None, hub: HubAuth, contact: str) -> Caller:
    """Ask the Hub.

    Raises
    ------
    Refusal
        401 without a token that the Hub knows, 403 where it is not a user's or may not use this service, 503 where
        the Hub does not answer.
    """
    if authorization is None:
        raise Refusal(
            401, "no_token", "There is no token. Expected the header Authorization: token, with that of your Hub."
        )
    found = _HEADER.fullmatch(authorization)
    if found is None:
        raise Refusal(401, "invalid_token", "The Authorization header holds no token of the Hub.")
    try:
        model = await asyncio.wait_for(hub.user_for_token(found[1], use_cache=False, sync=False), _HUB_WITHIN)
        problem = not (model is None or _is_somebody(model))
    except Exception:  # noqa: BLE001  (each version of HubAuth has its own errors for what is no answer)
        problem = True
    if problem:
        message = "JupyterHub does not answer, so that nobody can be identified. It is worth trying again soon."
        raise Refusal(503, "hub_unavailable", message, retry_after=5)
    if model is None:
        message = "JupyterHub does not know your token any more: log in and restart your server from the Hub."
        raise Refusal(401, "invalid_token", message)
    name = model["name"]
    if model["kind"] != "user":
        raise Refusal(
            403, "not_a_user", "Tokens for inference are given to users, and this is a service's.", user=name
        )
    if not hub.check_scopes(hub.access_scopes, model):
        raise Refusal(403, "not_authorised", f"not authorised for inference: ask {contact}.", user=name)
    return Caller(name, frozenset(model.get("groups", ())))


def _is_somebody(model: object) -> bool:
    """Whether this is the Hub's description of a user or service."""
    return isinstance(model, dict) and isinstance(model.get("name"), str) and isinstance(model.get("kind"), str)
