"""Where a user's token comes from: the caller, a file, or WLCG bearer token discovery."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._files import own_or_root, read_regular, reason_of
from eaf_inference._redact import SecretText
from eaf_inference.auth.token import LARGEST_TOKEN, SPACE, Token
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BearerDiscovery", "NoToken", "StaticToken", "TokenFile", "TokenSource"]

log = logging.getLogger(__name__)


class TokenSource(ABC):
    """Where a token comes from. Any thread may call `read` at any time.

    Attributes
    ----------
    cheap : bool
        Reading costs nothing, so the source is read whenever a token is needed.
    renew_fraction : float or None
        The fraction of a token's life after which the source has a younger one; None: towards the end.
    renews : bool
        The source has a younger token before the current one expires, without the user's help.
    """

    cheap = False
    renews = False
    renew_fraction: float | None = None

    @property
    def ignored(self) -> Mapping[str, str]:
        """The files ignored in the last reading because they are not trusted, and why."""
        return {}

    @property
    def why_none(self) -> str:
        """The explanation for a user whose server requires a token that this source lacks; may be empty."""
        return " ".join(f"{path} was ignored: {why}." for path, why in self.ignored.items())

    @abstractmethod
    def read(self) -> Token | None:
        """Return the current token, or None if this source has none."""

    def renew(self) -> Token | None:
        """Return the current token after a server refused the last one; may wait for it."""
        return self.read()

    @abstractmethod
    def __repr__(self) -> str:
        """Name the source, without the token's text."""


class StaticToken(TokenSource):
    """A token passed by the caller; it cannot be renewed."""

    def __init__(self, text: str) -> None:
        text = SecretText(text)  # a traceback may show this variable
        self._token = Token(text)

    def read(self) -> Token | None:
        return self._token

    def __repr__(self) -> str:
        return "a token passed by the caller"


class TokenFile(TokenSource):
    """A file with a token, which another program renews in place.

    It must belong to this user, or to root as files mounted by Kubernetes and batch systems do, and only its owner
    may write to it.
    """

    renews = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

    def read(self) -> Token | None:
        text = _read_named(self.path)
        if not text:
            raise ConfigurationError(
                f"The token file {self.path} {'is empty' if text == '' else 'does not exist'}. "
                "Expected a file that holds one bearer token."
            )
        return Token(text)

    def __repr__(self) -> str:
        return f"token file {self.path}"


class BearerDiscovery(TokenSource):
    """WLCG bearer token discovery (https://doi.org/10.5281/zenodo.3937438).

    The token is the first of ``BEARER_TOKEN``, the file ``BEARER_TOKEN_FILE``, ``$XDG_RUNTIME_DIR/bt_u$EUID`` and
    ``/tmp/bt_u$EUID`` that is not empty; if it is not a valid token, the search ends. The last two files are ignored
    if another user owns them or may write to them, because anybody may put a file into ``/tmp``.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._ignored: dict[str, str] = {}

    @property
    def ignored(self) -> Mapping[str, str]:
        return self._ignored

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
        if text := SecretText(self._environment.get("BEARER_TOKEN", "").strip(SPACE)):
            return Token(text)
        if (named := self._environment.get("BEARER_TOKEN_FILE")) and (text := _read_named(Path(named))):
            return Token(text)
        ignored: dict[str, str] = {}
        found = next((found for path in self._files() if (found := _read_found(path, ignored))), None)
        for path, why in ignored.items():
            if self._ignored.get(path) != why:
                log.warning("The token file %s is ignored: %s", path, why)
        self._ignored = ignored
        return Token(found) if found else None

    def _files(self) -> list[Path]:
        """Return the files that the specification names."""
        name = f"bt_u{os.geteuid()}"
        runtime = self._environment.get("XDG_RUNTIME_DIR")
        return [*([Path(runtime) / name] if runtime else []), Path("/tmp") / name]  # noqa: S108  (the specification's)

    def __repr__(self) -> str:
        return "WLCG bearer token discovery"


class NoToken(TokenSource):
    """The source for a server that does not get the user's token.

    Parameters
    ----------
    why : str
        See `TokenSource.why_none`.
    """

    cheap = True

    def __init__(self, why: str) -> None:
        self._why = why

    @property
    def why_none(self) -> str:
        return self._why

    def read(self) -> Token | None:
        return None

    def __repr__(self) -> str:
        return "no token"


def _read_named(path: Path) -> SecretText | None:
    """Return the stripped text of a file that the user named, or None if it does not exist.

    Raises
    ------
    ConfigurationError
        It cannot be read, or is not trusted.
    """
    try:
        return _text(read_regular(path, LARGEST_TOKEN, owners=own_or_root()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"The token file cannot be read: {path}: {reason_of(error)}. Expected a regular file with one token, "
            "which belongs to you or root and which others cannot write to."
        ) from error


def _read_found(path: Path, ignored: dict[str, str]) -> SecretText | None:
    """Return the same for a file that nobody named; if it is not trusted, add it to `ignored` instead."""
    try:
        return _text(read_regular(path, LARGEST_TOKEN, owners=frozenset({os.geteuid()}), follow_links=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        ignored[str(path)] = reason_of(error)
        return None


def _text(content: bytes) -> SecretText:
    return SecretText(content.decode("ascii", errors="replace").strip(SPACE))
