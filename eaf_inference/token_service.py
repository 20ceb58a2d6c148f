"""The client of the facility's token service, which stands under the Hub: tokens, and what it says of the facility.

Whoever holds a JupyterHub token asks, and nobody else is asked: no redirection is followed with it.
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
from eaf_inference.credentials import Token, TokenSource
from eaf_inference.errors import ConfigurationError, NotAuthorized, ServerUnavailable
from eaf_inference.tls import pem_text, tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eaf_inference._http import Reply
    from eaf_inference.errors import InferenceError

__all__ = ["ANSWER_WITHIN", "ENVIRONMENT", "TokenService", "below"]

ENVIRONMENT = "EAF_TOKEN_SERVICE"  # names it where no configuration does; the Hub sets it for users' servers

ANSWER_WITHIN = 5.0  # seconds
_HALF = (0.45, 0.55)  # of a token's life, after which it is renewed: users do not all come at the same time
# what comes out of reading a reply of any form, brackets without end among them
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
_COUNTED = ("requests", "inferences", "failures", "bytes_in", "bytes_out")


def below(base: str, name: str) -> str:
    """The address of what the service has by this name: `token`, `facility.json`, `usage`."""
    return f"{base.rstrip('/')}/{name}"


class TokenService(TokenSource):
    """The facility's token service, which gives a short-lived token to whoever holds a JupyterHub token.

    Parameters
    ----------
    url : str
        Its base: ``token`` below it answers ``POST`` with ``{"access_token": …}`` (RFC 6749, section 5.1).
    ca : str or path, optional
        PEM file of the certificate authorities to trust, or their text; by default the system's.
    environment : mapping, optional
        Holds the user's own ``JUPYTERHUB_API_TOKEN``, as the Hub sets it for every user's server.
    timeout : float
        Seconds for its whole answer.
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
        self.spent = random.uniform(*_HALF)  # noqa: S311  (no secret)
        self._environment = os.environ if environment is None else environment
        self._timeout = timeout

    @property
    def authorities(self) -> str | None:
        """The text of the certificate authorities; None for the system's."""
        return pem_text(self.ca, "certificate authorities") if self.ca else None

    def read(self) -> Token:
        """A new token.

        Raises
        ------
        NotAuthorized
            There is no Hub token, or the service refuses it; in the service's own words, where it has some.
        ServerUnavailable
            The service does not answer, or not with a token.
        """
        # a number has no slice
        token: Token = self._answer(
            "token", "POST", "token", lambda reply: Token(SecretText(reply["access_token"][:]))
        )
        return token

    def facility(self) -> dict[str, Any]:
        """The facility document: settings of `eaf_inference.config.Facility` by name.

        Raises
        ------
        NotAuthorized, ServerUnavailable
            As for `read`.
        """
        settings: dict[str, Any] = self._answer(
            "facility.json", "GET", "facility document", lambda reply: dict(reply["facility"])
        )
        return settings

    def usage(self, since: str) -> dict[str, Any] | None:
        """What the holder of the Hub token herself had lately: ``{"at": …, "models": [{"model": …, …}]}``.

        Parameters
        ----------
        since : str
            1h, 1d, 1w or 4w.

        Returns
        -------
        dict or None
            None where the facility does not tell it.

        Raises
        ------
        NotAuthorized, ServerUnavailable
            As for `read`.
        """
        try:
            told: dict[str, Any] = self._answer(f"usage?since={since}", "GET", "usage", _usage)
        except _NotThere:
            return None
        return told

    def _answer(self, name: str, method: str, what: str, read: Callable[[Any], Any]) -> Any:
        # held while the answer is read, so that it is not shown where the service repeats it
        hub_token = SecretText(self._environment.get("JUPYTERHUB_API_TOKEN", ""))
        if not hub_token:
            raise NotAuthorized(
                f"The token service {self.url} needs your JupyterHub token, and JUPYTERHUB_API_TOKEN is not set. "
                "Start this notebook from the facility's JupyterHub, or pass a token yourself."
            )
        try:
            reply = exchange(
                below(self.url, name),
                method=method,
                headers={"Authorization": SecretText("token " + hub_token)},
                timeout=self._timeout,
                tls=tls_context(self.url, self.ca),
            )
        except OSError as error:
            remark = ""
            with contextlib.suppress(ValueError):  # the URL is none
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
        if 300 <= reply.status < 400:
            said = f"{status}: it redirects, and your JupyterHub token is not sent elsewhere"
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
    """The service has nothing at this address."""


def _usage(reply: Any) -> dict[str, Any]:
    models = [
        {
            "model": each["model"][:],
            **{name: index(each[name]) for name in _COUNTED},
            "estimated": bool(each["estimated"]),
        }
        for each in reply["models"]
    ]
    return {"at": float(reply["at"]), "models": models}


def _described(status: int) -> str:
    """A status with the words that HTTP has for it; the server's own are not shown."""
    with contextlib.suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def _message(body: bytes) -> str:
    """The sentence for the user that the service's refusal holds; empty where it is somebody else's, as a proxy's."""
    with contextlib.suppress(*_UNREADABLE):
        said = json.loads(body)["message"]
        return redact(said) if isinstance(said, str) else ""
    return ""
