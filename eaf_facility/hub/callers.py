"""Identify the caller: ask the Hub about the token in the request's Authorization header, for every request.

Nothing is cached, so that a user who is removed from the group is refused at once. Nothing else in a request is
believed to identify its sender.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from eaf_inference._redact import redact
from eaf_inference._text import printable

if TYPE_CHECKING:
    from jupyterhub.services.auth import HubAuth

__all__ = ["Caller", "Refusal", "caller_of"]

log = logging.getLogger(__name__)

_HUB_TIMEOUT = 5.0  # seconds
_HEADER = re.compile(r"(?:token|bearer) +([A-Za-z0-9\-._~+/]{1,4096}=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Caller:
    """A user of the Hub who may use this service."""

    name: str
    groups: frozenset[str]


class Refusal(Exception):
    """A refused request.

    Attributes
    ----------
    status : int
        HTTP status.
    error : str
        Code for programs.
    message : str
        Sentence for the user.
    user : str or None
        The caller, if known.
    retry_after : int or None
        Seconds after which to retry.
    details : dict
        What else the audit log says about it.
    """

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        *,
        user: str | None = None,
        retry_after: int | None = None,
        **details: object,
    ) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message
        self.user, self.retry_after, self.details = user, retry_after, details


async def caller_of(authorization: str | None, hub: HubAuth, contact: str) -> Caller:
    """Ask the Hub who the caller is.

    Raises
    ------
    Refusal
        401: no token, or one that the Hub does not know. 403: not a user's token, or one without access to this
        service. 503: the Hub does not answer.
    """
    if authorization is None:
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "no_token",
            'No token was sent. Expected the header "Authorization: token …" with your Hub token.',
        )
    found = _HEADER.fullmatch(authorization)
    if found is None:
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "invalid_token",
            'The Authorization header does not contain a Hub token. Expected "Authorization: token …".',
        )
    try:
        model = await asyncio.wait_for(hub.user_for_token(found[1], use_cache=False, sync=False), _HUB_TIMEOUT)
        problem = "" if model is None or _is_identity(model) else "its answer describes no user"
    except asyncio.TimeoutError:
        problem = f"no answer within {_HUB_TIMEOUT:.0f} s"
    except Exception as error:  # noqa: BLE001  (the exceptions of HubAuth differ between its versions)
        problem = f"{type(error).__name__}: {redact(str(error).replace(found[1], '…'))}"
    if problem:
        log.warning("JupyterHub, %s: %s", hub.api_url, printable(problem))
        message = "JupyterHub does not answer, so you cannot be identified. Try again in a few seconds."
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "hub_unavailable", message, retry_after=5)
    if model is None:
        message = "JupyterHub no longer knows your token: log in and restart your server from the Hub."
        raise Refusal(HTTPStatus.UNAUTHORIZED, "invalid_token", message)
    name = model["name"]
    if model["kind"] != "user":
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "not_a_user",
            "Tokens for inference are for users only, and this Hub token belongs to a service.",
            user=name,
        )
    if not hub.check_scopes(hub.access_scopes, model):
        raise Refusal(
            HTTPStatus.FORBIDDEN, "not_authorised", f"not authorised for inference: ask {contact}.", user=name
        )
    return Caller(name, frozenset(model.get("groups", ())))


def _is_identity(model: object) -> bool:
    """Return whether this is the Hub's description of a user or service."""
    return isinstance(model, dict) and isinstance(model.get("name"), str) and isinstance(model.get("kind"), str)
