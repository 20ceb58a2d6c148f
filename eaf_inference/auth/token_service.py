"""The client of the facility's token service under the Hub: tokens, the facility document, and the user's usage.

It authenticates with the user's JupyterHub token, and never follows redirects with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from http import HTTPStatus
from operator import index
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eaf_inference._http import exchange
from eaf_inference._proxies import unused_proxy
from eaf_inference._redact import SecretText, redact
from eaf_inference.auth.sources import TokenSource
from eaf_inference.auth.tls import pem_text, tls_context
from eaf_inference.auth.token import Token
from eaf_inference.errors import ConfigurationError, DeploymentRefused, NotAuthorized, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from eaf_inference._http import Reply
    from eaf_inference.errors import InferenceError

__all__ = ["ANSWER_WITHIN", "ENVIRONMENT", "TokenService", "below"]

ENVIRONMENT = "EAF_TOKEN_SERVICE"  # its URL if no configuration names it; the Hub sets this variable

ANSWER_WITHIN = 5.0  # seconds
_HALF = (0.45, 0.55)  # of a token's life, after which it is renewed; random, so that users do not all come at once
# errors from reading a malformed reply, such as one of nested brackets
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
_COUNTED = ("requests", "inferences", "failures", "bytes_in", "bytes_out")
_COUNTED_OF_OWNED = ("users", "requests", "inferences", "failures")


def below(base: str, name: str) -> str:
    """Return the URL of one of the service's resources: `token`, `facility.json`, `usage`."""
    return f"{base.rstrip('/')}/{name}"


class TokenService(TokenSource):
    """The facility's token service, which exchanges a JupyterHub token for a short-lived token.

    Parameters
    ----------
    url : str
        Its base URL: ``token`` below it answers ``POST`` with ``{"access_token": …}`` (RFC 6749, section 5.1).
    ca : str or path, optional
        PEM file of the certificate authorities to trust, or their text; by default the system's.
    environment : mapping, optional
        Has the user's own ``JUPYTERHUB_API_TOKEN``, which the Hub sets for every user's server.
    timeout : float
        Seconds for a whole reply.
    """

    renews = True

    def __init__(
        self,
        url: str,
        *,
        ca: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = ANSWER_WITHIN,
    ) -> None:
        self.url = url
        self.ca = ca
        self.renew_fraction = random.uniform(*_HALF)  # noqa: S311  (no secret)
        self._environment = os.environ if environment is None else environment
        self._timeout = timeout

    @property
    def authorities(self) -> str | None:
        """The text of the certificate authorities; None for the system's."""
        return pem_text(self.ca, "certificate authorities") if self.ca else None

    def read(self) -> Token:
        """Return a new token.

        Raises
        ------
        NotAuthorized
            There is no Hub token, or the service refuses it; the message is the service's own, if it sent one.
        ServerUnavailable
            The service does not answer, or its reply has no token.
        """
        # a number has no slice
        token: Token = self.ask("token", "POST", "token", lambda reply: Token(SecretText(reply["access_token"][:])))
        return token

    def facility(self) -> dict[str, Any]:
        """Return the facility document: settings of `eaf_inference.config.Facility` by name.

        Raises
        ------
        NotAuthorized, ServerUnavailable
            As for `read`.
        """
        settings: dict[str, Any] = self.ask(
            "facility.json", "GET", "facility document", lambda reply: dict(reply["facility"])
        )
        return settings

    def usage(self, since: str) -> dict[str, Any] | None:
        """Return the recent usage of the Hub token's user: ``{"at": …, "models": [{"model": …, …}], "owned": […]}``.

        Parameters
        ----------
        since : str
            1h, 1d, 1w or 4w.

        Returns
        -------
        dict or None
            None if the facility does not publish it.

        Raises
        ------
        NotAuthorized, ServerUnavailable
            As for `read`.
        """
        try:
            told: dict[str, Any] = self.ask(f"usage?since={since}", "GET", "usage", _usage)
        except _NotThere:
            return None
        return told

    def ask(
        self,
        name: str,
        method: str,
        what: str,
        read: Callable[[Any], Any],
        *,
        body: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send one request in the name of the Hub token's user, and return what `read` makes of its JSON.

        Parameters
        ----------
        name : str
            The resource below the service's URL.
        method, what : str
            HTTP's method, and what is requested, for messages.
        read : callable
            Any error that it raises for a reply of another form is reported as such.
        body : str, optional
        timeout : float, optional
            Seconds; by default the service's.

        Raises
        ------
        NotAuthorized, ServerUnavailable
            As for `read`.
        DeploymentRefused
            The service refuses what is requested (409 or 422); the message is the service's own.
        """
        # alive until the reply is read, so that it is masked if the service repeats it
        hub_token = SecretText(self._environment.get("JUPYTERHUB_API_TOKEN", ""))
        if not hub_token:
            raise NotAuthorized(
                f"The token service {self.url} needs your JupyterHub token, but JUPYTERHUB_API_TOKEN is not set. "
                "Start this notebook from the facility's JupyterHub, or pass a token yourself."
            )
        try:
            reply = exchange(
                below(self.url, name),
                method=method,
                headers={"Authorization": SecretText("token " + hub_token)},
                body=body,
                timeout=self._timeout if timeout is None else timeout,
                tls=tls_context(self.url, self.ca),
            )
        except OSError as error:
            remark = ""
            with contextlib.suppress(ValueError):  # not a valid URL
                remark = unused_proxy(urlsplit(self.url).hostname or "")
            raise self._unavailable(what, redact(str(error)), remark=remark) from None
        if reply.status != HTTPStatus.OK:
            raise self._refusal(reply, what)
        try:
            return read(json.loads(reply.body))
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            ConfigurationError,
        ):
            raise self._unavailable(what, f"its reply holds no {what}") from None

    def _refusal(self, reply: Reply, what: str) -> InferenceError:
        status, said = _described(reply.status), _message(reply.body)
        if reply.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return NotAuthorized(
                said
                or f"The token service {self.url} refuses your JupyterHub token ({status}). "
                "Ask the facility for access to inference, or restart your server from the Hub."
            )
        if said and reply.status in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
            return DeploymentRefused(said)
        if 300 <= reply.status < 400:
            said = f"{status}: it redirects, but your JupyterHub token is not sent elsewhere"
        kind = _NotThere if reply.status == HTTPStatus.NOT_FOUND else ServerUnavailable
        return self._unavailable(what, said or status, kind)

    def _unavailable(
        self, what: str, why: str, kind: type[ServerUnavailable] = ServerUnavailable, *, remark: str = ""
    ) -> ServerUnavailable:
        why = why.rstrip(".")
        error = kind(f"The token service {self.url} gives no {what}: {why}. {remark}".rstrip())
        error.reason = f"the token service gives no {what}: {why}"
        return error

    def __repr__(self) -> str:
        return f"token service {self.url}"


class _NotThere(ServerUnavailable):
    """The service has no such resource."""


def _usage(reply: Any) -> dict[str, Any]:
    def row(each: Any, counted: Iterable[str]) -> dict[str, Any]:
        counts = {name: index(each[name]) for name in counted}
        return {"model": each["model"][:], **counts, "estimated": bool(each["estimated"])}

    models = [row(each, _COUNTED) for each in reply["models"]]
    owned = [row(each, _COUNTED_OF_OWNED) for each in reply.get("owned", ())]  # an older service has none
    return {"at": float(reply["at"]), "models": models, "owned": owned}


def _described(status: int) -> str:
    """Return a status with HTTP's own phrase, not the server's."""
    with contextlib.suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def _message(body: bytes) -> str:
    """Return the message for the user in the service's refusal; empty if the refusal comes from, say, a proxy."""
    with contextlib.suppress(*_UNREADABLE):
        said = json.loads(body)["message"]
        return redact(said) if isinstance(said, str) else ""
    return ""
