"""A bearer token that hides its text.

The text is held in one place only, the `authorization` header that gRPC sends. The header hides itself from ``repr``,
``str`` and formatting and cannot be pickled, so that no log, traceback, notebook or task graph can show it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from typing import NoReturn

from eaf_inference._redact import SecretText
from eaf_inference._text import duration
from eaf_inference.errors import ConfigurationError

__all__ = ["LARGEST_TOKEN", "SPACE", "Token", "describe_expiry"]

LARGEST_TOKEN = 64 * 1024  # bytes
SPACE = " \f\n\r\t\v"  # C99's, which bearer token discovery strips from a token
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1
_RENEW_AHEAD = 60.0  # seconds before expiry at which a token is renewed, but never …
_RENEW_AHEAD_SHARE = 0.2  # … before the last fifth of its life
_LATEST = 1e12  # seconds since the epoch; a later time in a JWT, or NaN, is ignored


class Token:
    """A bearer token whose text cannot be read back from this object's repr, fields or pickle.

    Attributes
    ----------
    user : str or None
        The JWT's ``sub``, which only the server verifies; None for an opaque token.
    issued_at, expires_at : float or None
        The JWT's ``iat`` and ``exp`` in seconds since the epoch.
    """

    __slots__ = ("authorization", "expires_at", "issued_at", "user")

    def __init__(self, text: str) -> None:
        self.user: str | None = None
        self.issued_at: float | None = None
        self.expires_at: float | None = None
        text = SecretText(str.strip(text, SPACE))  # a traceback may show this function's variables
        if len(text) > LARGEST_TOKEN or not _B64TOKEN.fullmatch(text):
            raise ConfigurationError(
                "The token is not a bearer token (RFC 6750: letters, digits and -._~+/=, at most 64 KiB, "
                "no white space inside). Its text is not shown here."
            )
        claims = _jwt_claims(text)
        self.authorization = SecretText("Bearer " + text)
        subject = claims.get("sub")
        self.user = subject if isinstance(subject, str) else None
        self.issued_at = _seconds(claims.get("iat"))
        self.expires_at = _seconds(claims.get("exp"))

    def __repr__(self) -> str:
        who = self.user or "an opaque token"
        return f"<Token of {who}, {describe_expiry(self.expires_at)}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        return str.__eq__(self.authorization, other.authorization)

    def __hash__(self) -> int:
        return str.__hash__(self.authorization)

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("A token cannot be pickled; each process finds its own.")

    def reveal(self) -> str:
        """Return the token's text, to pass on; do not keep it in a variable, which a traceback might show."""
        return self.authorization[len("Bearer ") :]

    def renewal_due(self, now: float, renew_fraction: float | None = None) -> bool:
        """Return whether to look for a younger token: in the last minute, or fifth, of this one's life.

        With `renew_fraction`, from that fraction of its life on.
        """
        if self.expires_at is None:
            return False
        ahead = _RENEW_AHEAD
        if renew_fraction is not None and self.issued_at is not None:
            return now >= self.issued_at + renew_fraction * (self.expires_at - self.issued_at)
        if self.issued_at is not None:
            ahead = min(ahead, max(0.0, _RENEW_AHEAD_SHARE * (self.expires_at - self.issued_at)))
        return now >= self.expires_at - ahead


def describe_expiry(expires_at: float | None, now: float | None = None, *, renewed: bool = False) -> str:
    """Describe how long a token lasts: ``expires in 8 min``, ``expired 3 min ago``.

    Parameters
    ----------
    expires_at, now : float or None
        Seconds since the epoch.
    renewed : bool
        Whether a younger token is fetched before this one expires.
    """
    if expires_at is None:
        return "no expiry known"
    left = expires_at - (time.time() if now is None else now)
    if left <= 0:
        return f"expired {duration(-left)} ago{', renewed on next use' if renewed else ''}"
    return f"renewed automatically, {duration(left)} left" if renewed else f"expires in {duration(left)}"


def _jwt_claims(text: str) -> dict[str, object]:
    """Return a JWT's claims, unverified; none for an opaque token."""
    parts = text.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = json.loads(payload)
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _seconds(claim: object) -> float | None:
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not abs(claim) < _LATEST:
        return None
    return float(claim)
