"""Who the user is: tokens, where they come from and when they are renewed.

A token's text is held in one place only, the `authorization` header that gRPC sends. That header hides
itself from ``repr``, ``str`` and formatting and refuses to be pickled, so that no log, traceback, notebook
or task graph can show it. What to do and when is decided by `Credentials`, which performs no I/O but the
reading of its source.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from eaf_inference._files import own_or_root, read_regular, reason_of
from eaf_inference._redact import SecretText
from eaf_inference.errors import ConfigurationError, InferenceError, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "LARGEST_TOKEN",
    "BearerDiscovery",
    "Credentials",
    "NoToken",
    "SecretText",
    "StaticToken",
    "Token",
    "TokenFile",
    "TokenSource",
]

log = logging.getLogger(__name__)

_RENEW_AHEAD = 60.0  # seconds before expiry at which the source is read again, but never …
_RENEW_AHEAD_SHARE = 0.2  # … earlier than in the last fifth of the token's life
_READ_AGAIN_AFTER = 1.0  # seconds: a source without a fresher token is not asked more often than this …
_LONGEST_REST = 30.0  # … and one that fails, less and less often
LARGEST_TOKEN = 64 * 1024  # bytes
_LATEST = 1e12  # seconds since the epoch; what a JWT puts beyond, NaN included, is no time
_DAY = 86400.0  # seconds
_UNITS = (  # below so many seconds, in units of so many seconds, called …
    (120, 1, "s"),
    (120 * 60, 60, "min"),
    (2 * _DAY, 3600, "h"),
    (730 * _DAY, _DAY, "days"),
    (36525 * _DAY, 365.25 * _DAY, "years"),
)
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1
_C99_SPACE = " \f\n\r\t\v"


class Token:
    """A bearer token whose text cannot be read back from this object's repr, fields or pickle.

    Attributes
    ----------
    user : str or None
        The JWT's ``sub``; None for an opaque token. Read, not verified: that is the server's business.
    issued_at, expires_at : float or None
        The JWT's ``iat`` and ``exp`` in seconds since the epoch.
    """

    __slots__ = ("authorization", "expires_at", "issued_at", "user")

    def __init__(self, text: str) -> None:
        self.user: str | None = None
        self.issued_at: float | None = None
        self.expires_at: float | None = None
        text = SecretText(str.strip(text, _C99_SPACE))  # a traceback may show this function's variables
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
        raise TypeError("A token does not travel: it is found again where it is needed.")

    def reveal(self) -> str:
        """The token's text, for what hands it on; it must not be kept in a variable that a traceback shows."""
        return self.authorization[len("Bearer ") :]

    def renewal_due(self, now: float, spent: float | None = None) -> bool:
        """Whether a fresh one should be looked for: the last minute, or fifth, of its life has begun.

        With `spent`, when that share of its life is over.
        """
        if self.expires_at is None:
            return False
        ahead = _RENEW_AHEAD
        if spent is not None and self.issued_at is not None:
            return now >= self.issued_at + spent * (self.expires_at - self.issued_at)
        if self.issued_at is not None:
            ahead = min(ahead, max(0.0, _RENEW_AHEAD_SHARE * (self.expires_at - self.issued_at)))
        return now >= self.expires_at - ahead


def describe_expiry(expires_at: float | None, now: float | None = None, *, renewed: bool = False) -> str:
    """Say how long a token lasts: ``expires in 8 min``, ``renewed automatically, 8 min left``, ``expired 3 min ago``.

    Parameters
    ----------
    expires_at, now : float or None
        Seconds since the epoch.
    renewed : bool
        A younger token is fetched before this one ends.
    """
    if expires_at is None:
        return "no expiry known"
    left = expires_at - (time.time() if now is None else now)
    if left <= 0:
        return f"expired {_length(-left)} ago{', renewed on next use' if renewed else ''}"
    return f"renewed automatically, {_length(left)} left" if renewed else f"expires in {_length(left)}"


def _length(seconds: float) -> str:
    """A time in the unit that a person would use."""
    for limit, unit, name in _UNITS:
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return "more than 100 years"  # a claim as far away as that is a mistake


class TokenSource(ABC):
    """Where a token comes from. `read` may be called again at any time and by any thread.

    Attributes
    ----------
    at_hand : bool
        Reading costs nothing, so that it is read whenever a token is needed.
    spent : float or None
        The share of a token's life after which a younger one is to be had; None: towards its end.
    renews : bool
        It has a younger token before the present one ends; nobody has to do anything.
    """

    at_hand = False
    renews = False
    spent: float | None = None

    @property
    def passed_over(self) -> Mapping[str, str]:
        """Files that it did not believe when it was last read, and why."""
        return {}

    @property
    def why_none(self) -> str:
        """What a user reads whose server wants a token, where this source has none; may be empty."""
        return " ".join(f"{path} is passed over: {why}." for path, why in self.passed_over.items())

    @abstractmethod
    def read(self) -> Token | None:
        """The token as it is now, or None where this source has none."""

    def renew(self) -> Token | None:
        """The token as it is now that a server has refused the former one; may wait for it."""
        return self.read()

    @abstractmethod
    def __repr__(self) -> str:
        """Where it is read from, without its text."""


class StaticToken(TokenSource):
    """A token that the caller passed; it cannot be renewed."""

    def __init__(self, text: str) -> None:
        text = SecretText(text)  # a traceback may show this function's variables
        self._token = Token(text)

    def read(self) -> Token | None:
        return self._token

    def __repr__(self) -> str:
        return "a token passed by the caller"


class TokenFile(TokenSource):
    """A file that something else renews in place; it must exist and hold a token.

    It belongs to this user, or to root, as what Kubernetes and batch systems mount does, and only its owner may write
    to it.
    """

    renews = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

    def read(self) -> Token | None:
        text = _read_named(self.path)
        if not text:
            raise ConfigurationError(
                f"The token file {self.path} is {'empty' if text == '' else 'not there'}. "
                "Expected a file that holds one bearer token."
            )
        return Token(text)

    def __repr__(self) -> str:
        return f"token file {self.path}"


class BearerDiscovery(TokenSource):
    """WLCG bearer token discovery (https://doi.org/10.5281/zenodo.3937438).

    ``BEARER_TOKEN``, the file ``BEARER_TOKEN_FILE``, ``$XDG_RUNTIME_DIR/bt_u$EUID``, ``/tmp/bt_u$EUID``: the
    first that holds a token. An empty one means the next; one that is no token ends the search. In the last two
    places, which nobody named, a file that is not this user's alone to write is passed over: everybody may put one
    into ``/tmp``.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._passed_over: dict[str, str] = {}

    @property
    def passed_over(self) -> Mapping[str, str]:
        return self._passed_over

    @property
    def why_none(self) -> str:
        named = self._environment.get("BEARER_TOKEN_FILE")
        file = f"the file of BEARER_TOKEN_FILE ({named})" if named else "BEARER_TOKEN_FILE"
        places = ", ".join(["BEARER_TOKEN", file, *map(str, self._files())])
        found = f"None was found in {places}, and no token service is configured (EAF_TOKEN_SERVICE)."
        cure = (
            "Get a token from your facility and save it in one of these places, or name its file: "
            "%triton_connect --token-file FILE, or TokenFile(FILE) as the token of connect."
        )
        return " ".join(part for part in (found, super().why_none, cure) if part)

    def read(self) -> Token | None:
        text: SecretText | None
        if text := SecretText(self._environment.get("BEARER_TOKEN", "").strip(_C99_SPACE)):
            return Token(text)
        if (named := self._environment.get("BEARER_TOKEN_FILE")) and (text := _read_named(Path(named))):
            return Token(text)
        passed_over: dict[str, str] = {}
        found = next((found for path in self._files() if (found := _read_found(path, passed_over))), None)
        for path, why in passed_over.items():
            if self._passed_over.get(path) != why:
                log.warning("The token file %s is passed over: %s", path, why)
        self._passed_over = passed_over
        return Token(found) if found else None

    def _files(self) -> list[Path]:
        """Those that nobody named."""
        name = f"bt_u{os.geteuid()}"
        runtime = self._environment.get("XDG_RUNTIME_DIR")
        return [*([Path(runtime) / name] if runtime else []), Path("/tmp") / name]  # noqa: S108  (the specification's)

    def __repr__(self) -> str:
        return "WLCG bearer token discovery"


class NoToken(TokenSource):
    """In place of the user's, for a server that does not get it.

    Parameters
    ----------
    why : str
        See `TokenSource.why_none`.
    """

    at_hand = True

    def __init__(self, why: str) -> None:
        self._why = why

    @property
    def why_none(self) -> str:
        return self._why

    def read(self) -> Token | None:
        return None

    def __repr__(self) -> str:
        return "no token"


class Credentials:
    """One user's token, kept fresh for all threads of one connection.

    Parameters
    ----------
    source : TokenSource
    clock : callable
        Seconds since the epoch.

    Attributes
    ----------
    unavailable : bool
        The source did not answer when it was last read; it may later.
    """

    def __init__(self, source: TokenSource, *, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self._clock = clock
        self._reading = threading.Lock()
        self._token: Token | None = None
        self._last_read = float("-inf")
        self._pause = _READ_AGAIN_AFTER
        self._trouble = ""
        self._has_renewed = False
        self.unavailable = False

    def __repr__(self) -> str:
        return f"<Credentials from {self.source!r}: {self._token!r}>"

    @property
    def known(self) -> Token | None:
        """The token as last read, without reading."""
        return self._token

    @property
    def trouble(self) -> str:
        """Why the source gave no token when it was last read; empty where it gave one."""
        return self._trouble or ("" if self._token else self.source.why_none)

    @property
    def renews(self) -> bool:
        """Whether a younger token comes by itself: the source promises one, or has brought one, and works."""
        return (self.source.renews or self._has_renewed) and not self._trouble

    def token(self, *, spent: float | None = None) -> Token | None:
        """The token to send now; the source is read first when there is none or it nears its end.

        Parameters
        ----------
        spent : float, optional
            Read the source when this share of the token's life is over, which is earlier.

        Raises
        ------
        ConfigurationError
            The source holds something that is not a token.
        """
        if not self._is_due(spent):
            return self._token
        # one thread reads; the others wait for it only where they have nothing to go on with
        if not self._reading.acquire(blocking=self.source.at_hand or not self._serves()):
            return self._token
        try:
            if self._is_due(spent):
                self._read(self.source.read)
            return self._token
        finally:
            self._reading.release()

    def renewed_after(self, refused: Token | None) -> bool:
        """Whether there is another token to try, now that a server refused this one.

        Threads whose requests met the same refusal share the renewed one.
        """
        with self._reading:
            if self._token == refused and not (self.unavailable and self._rests()):
                self._read(self.source.renew)
            return self._token != refused

    def _is_due(self, spent: float | None) -> bool:
        if self.source.at_hand:
            return True
        shares = [each for each in (spent, self.source.spent) if each is not None]
        if self._rests():
            return False
        return self._token is None or self._token.renewal_due(self._clock(), min(shares, default=None))

    def _rests(self) -> bool:
        """Whether the source was asked just now."""
        return 0 <= self._clock() - self._last_read < self._pause  # a clock that was set back ends the rest

    def _serves(self) -> bool:
        """Whether the token at hand has not expired."""
        token = self._token
        return token is not None and (token.expires_at is None or self._clock() < token.expires_at)

    def _read(self, read: Callable[[], Token | None]) -> None:
        before = self._token
        try:
            self._token = read() or (None if self.source.at_hand else self._token)
        except InferenceError as error:
            self._trouble = error.reason or str(error)
            self.unavailable = isinstance(error, ServerUnavailable)
            if self.unavailable:
                self._pause = min(2 * self._pause, _LONGEST_REST)
            if self._token is None:
                raise
            # the one at hand may still serve: a file that is being replaced is unreadable for a moment
            level = logging.WARNING if self._token.renewal_due(self._clock()) else logging.INFO
            log.log(level, "The token could not be renewed from %r: %s", self.source, error)
        else:
            if before is not None and self._token is not None and self._token != before:
                self._has_renewed = True  # a bearer token file that something keeps fresh, as far as anyone can tell
            if not self.source.at_hand or self._token != before:  # what is at hand may be what was refused
                self._trouble, self.unavailable = "", False
                self._pause = _READ_AGAIN_AFTER
        self._last_read = self._clock()


def _read_named(path: Path) -> SecretText | None:
    """The stripped text of a file that somebody named; None where there is no file.

    Raises
    ------
    ConfigurationError
        It cannot be read, or is not to be believed.
    """
    try:
        return _text(read_regular(path, LARGEST_TOKEN, owners=own_or_root()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"The token file cannot be read: {path}: {reason_of(error)}.") from error


def _read_found(path: Path, passed_over: dict[str, str]) -> SecretText | None:
    """The same of a file that nobody named; what is not to be believed is noted and passed over."""
    try:
        return _text(read_regular(path, LARGEST_TOKEN, owners=frozenset({os.geteuid()}), follow_links=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        passed_over[str(path)] = reason_of(error)
        return None


def _text(content: bytes) -> SecretText:
    return SecretText(content.decode("ascii", errors="replace").strip(_C99_SPACE))


def _jwt_claims(text: str) -> dict[str, object]:
    """A JWT's claims, unverified; nothing for an opaque token."""
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
