"""Who the user is: tokens, where they come from, when they are renewed, and TLS files.

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import grpc

__all__ = [
    "BearerDiscovery",
    "Credentials",
    "StaticToken",
    "TlsFiles",
    "Token",
    "TokenFile",
    "TokenSource",
]

log = logging.getLogger(__name__)

_RENEW_AHEAD = 60.0  # seconds before expiry at which the source is read again, but never …
_RENEW_AHEAD_SHARE = 0.2  # … earlier than in the last fifth of the token's life
_READ_AGAIN_AFTER = 1.0  # seconds: a source without a fresher token is not asked more often than this
_LARGEST_TOKEN = 64 * 1024  # bytes
_LATEST = 1e12  # seconds since the epoch; what a JWT puts beyond, NaN included, is no time
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1
_C99_SPACE = " \f\n\r\t\v"


class _SecretText(str):
    """Text that gRPC can encode and nothing else can show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return "<secret>"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("A token does not travel: it is found again where it is needed.")


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
        text = _SecretText(str.strip(text, _C99_SPACE))  # a traceback may show this function's variables
        if len(text) > _LARGEST_TOKEN or not _B64TOKEN.fullmatch(text):
            raise ConfigurationError(
                "The token is not a bearer token (RFC 6750: letters, digits and -._~+/=, at most 64 KiB, "
                "no white space inside). Its text is not shown here."
            )
        claims = _jwt_claims(text)
        self.authorization = _SecretText("Bearer " + text)
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

    def renewal_due(self, now: float) -> bool:
        """Whether a fresh one should be looked for: the last minute, or fifth, of its life has begun."""
        if self.expires_at is None:
            return False
        ahead = _RENEW_AHEAD
        if self.issued_at is not None:
            ahead = min(ahead, max(0.0, _RENEW_AHEAD_SHARE * (self.expires_at - self.issued_at)))
        return now >= self.expires_at - ahead


def describe_expiry(expires_at: float | None, now: float | None = None) -> str:
    """``expires in 9 min``, ``expired 20 s ago`` or ``no expiry known``."""
    if expires_at is None:
        return "no expiry known"
    left = expires_at - (time.time() if now is None else now)
    length = f"{abs(left):.0f} s" if abs(left) < 120 else f"{abs(left) / 60:.0f} min"
    return f"expires in {length}" if left > 0 else f"expired {length} ago"


class TokenSource(ABC):
    """Where a token comes from. `read` may be called again at any time and by any thread."""

    @abstractmethod
    def read(self) -> Token | None:
        """The token as it is now, or None where this source has none."""

    @abstractmethod
    def __repr__(self) -> str:
        """Where it is read from, without its text."""


class StaticToken(TokenSource):
    """A token that the caller passed; it cannot be renewed."""

    def __init__(self, text: str) -> None:
        text = _SecretText(text)  # a traceback may show this function's variables
        self._token = Token(text)

    def read(self) -> Token | None:
        return self._token

    def __repr__(self) -> str:
        return "a token passed by the caller"


class TokenFile(TokenSource):
    """A file that something else renews in place; it must exist and hold a token."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

    def read(self) -> Token | None:
        text = _read_text(self.path)
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
    first that holds a token. An empty one means the next; one that is no token ends the search.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def read(self) -> Token | None:
        if text := _SecretText(self._environment.get("BEARER_TOKEN", "").strip(_C99_SPACE)):
            return Token(text)
        for path in self._files():
            if found := _read_text(path):
                return Token(found)
        return None

    def _files(self) -> list[Path]:
        name = f"bt_u{os.geteuid()}"
        files = []
        if named := self._environment.get("BEARER_TOKEN_FILE"):
            files.append(Path(named))
        if runtime := self._environment.get("XDG_RUNTIME_DIR"):
            files.append(Path(runtime) / name)
        return [*files, Path("/tmp") / name]  # noqa: S108  (the specification's place)

    def __repr__(self) -> str:
        return "WLCG bearer token discovery"


class Credentials:
    """One user's token, kept fresh for all threads of one connection.

    Parameters
    ----------
    source : TokenSource
    clock : callable
        Seconds since the epoch.
    """

    def __init__(self, source: TokenSource, *, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._last_read = float("-inf")

    def __repr__(self) -> str:
        return f"<Credentials from {self.source!r}: {self._token!r}>"

    @property
    def known(self) -> Token | None:
        """The token as last read, without reading."""
        return self._token

    def token(self) -> Token | None:
        """The token to send now; the source is read first when there is none or it nears its end.

        Raises
        ------
        ConfigurationError
            The source holds something that is not a token.
        """
        with self._lock:
            now = self._clock()
            due = self._token is None or self._token.renewal_due(now)
            rests = 0 <= now - self._last_read < _READ_AGAIN_AFTER  # a clock that was set back ends the rest
            if due and not rests:
                self._read(now)
            return self._token

    def renewed_after(self, refused: Token | None) -> bool:
        """Whether there is another token to try, now that a server refused this one.

        Threads whose requests met the same refusal share the renewed one.
        """
        with self._lock:
            if self._token == refused:
                self._read(self._clock())
            return self._token != refused

    def _read(self, now: float) -> None:
        try:
            self._token = self.source.read() or self._token
        except ConfigurationError as error:
            if self._token is None:
                raise
            # the one at hand may still serve: a file that is being replaced is unreadable for a moment
            log.warning("The token could not be renewed from %r: %s", self.source, error)
        self._last_read = now


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one TLS channel: authorities, and a client certificate where there is one."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def find(
        cls,
        *,
        ca: str | os.PathLike[str] | None,
        certificate: str | None = None,
        key: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> TlsFiles:
        """The files given, else the user's grid proxy where ``X509_USER_PROXY`` names a readable one.

        A grid proxy is a PEM file with certificate, key and chain in one.
        """
        environment = os.environ if environment is None else environment
        authorities = Path(ca).expanduser() if ca else None
        if certificate:
            path = Path(certificate).expanduser()
            return cls(authorities, path, Path(key).expanduser() if key else path)
        if named := environment.get("X509_USER_PROXY"):
            proxy = Path(named)
            if os.access(proxy, os.R_OK):
                return cls(authorities, proxy, proxy)
            log.warning("X509_USER_PROXY names %s, which cannot be read; going on without it", proxy)
        return cls(authorities)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What gRPC opens a TLS channel with.

        Raises
        ------
        ConfigurationError
            A file cannot be read, or is no PEM file.
        """
        import grpc

        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.ca, "certificate authorities"),
            private_key=_pem(self.key, "client key"),
            certificate_chain=_pem(self.certificate, "client certificate"),
        )


def _pem(path: Path | None, what: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The file of the {what} cannot be read: {error}") from error
    if b"-----BEGIN " not in content:
        raise ConfigurationError(f"The file of the {what}, {path}, is not a PEM file.")
    return content


def _read_text(path: Path) -> _SecretText | None:
    """The file's stripped text; None where there is no file."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_TOKEN + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"The token file cannot be read: {error}") from error
    return _SecretText(content.decode("ascii", errors="replace").strip(_C99_SPACE))


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
