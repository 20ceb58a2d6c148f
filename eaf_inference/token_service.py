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

from eaf_inference._redact import redact
from eaf_inference.credentials import LARGEST_TOKEN, SecretText, Token, TokenSource
from eaf_inference.errors import ConfigurationError, NotAuthorized, ServerUnavailable
from eaf_inference.tls import pem_text, tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ENVIRONMENT", "TokenService", "below"]

ENVIRONMENT = "EAF_TOKEN_SERVICE"  # names it where no configuration does; the Hub sets it for users' servers

_LARGEST_REPLY = 1024 * 1024  # bytes
_HALF = (0.45, 0.55)  # of a token's life, after which it is renewed: users do not all come at the same time
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
        Seconds for its answer.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 5.0,
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
        import urllib.error

        if not self._environment.get("JUPYTERHUB_API_TOKEN"):
            raise NotAuthorized(
                f"The token service {self.url} needs your JupyterHub token, and JUPYTERHUB_API_TOKEN is not set. "
                "Start this notebook from the facility's JupyterHub, or pass a token yourself."
            )
        try:
            return read(self._ask(name, method))
        except urllib.error.HTTPError as error:
            with error:
                said = _message(error)
            if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise NotAuthorized(
                    said
                    or f"The token service {self.url} refuses your JupyterHub token ({error.code} {error.reason}). "
                    "Ask the facility for access to inference, or restart your server from the Hub."
                ) from None
            kind = _NotThere if error.code == HTTPStatus.NOT_FOUND else ServerUnavailable
            raise self._unavailable(what, said or f"{error.code} {error.reason}", kind) from None
        except OSError as error:
            raise self._unavailable(what, str(getattr(error, "reason", error))) from error
        except (ValueError, LookupError, TypeError, ConfigurationError) as error:
            raise self._unavailable(what, f"its reply holds no {what}") from error

    def _ask(self, name: str, method: str) -> Any:
        import urllib.request

        data = b"" if method == "POST" else None
        request = urllib.request.Request(below(self.url, name), method=method, data=data)  # noqa: S310  (the facility's)
        # not sent on to where the service might redirect
        request.add_unredirected_header("Authorization", f"token {self._environment['JUPYTERHUB_API_TOKEN']}")
        context = tls_context(self.url, self.ca)
        with urllib.request.urlopen(request, timeout=self._timeout, context=context) as reply:  # noqa: S310
            return json.loads(reply.read(_LARGEST_REPLY))

    def _unavailable(
        self, what: str, why: str, kind: type[ServerUnavailable] = ServerUnavailable
    ) -> ServerUnavailable:
        why = why.rstrip(".")
        error = kind(f"The token service {self.url} gives no {what}: {why}.")
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


def _message(error: Any) -> str:
    """The sentence for the user that the service's refusal holds; empty where it is somebody else's, as a proxy's."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        said = json.loads(error.read(2 * LARGEST_TOKEN))["message"]
        return redact(said) if isinstance(said, str) else ""
    return ""
