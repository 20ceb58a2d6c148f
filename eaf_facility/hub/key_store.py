"""The signing keys on disk: one file that only this account can read, replaced atomically.

Several processes may share the directory: each one locks it and reads the current file before it makes a change.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from eaf_facility.hub.keys import Key, advanced, next_change, signing
from eaf_inference._files import locked, write_private
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eaf_facility.hub.keys import Keys, Schedule

__all__ = ["KEY_FILE", "KeyStore"]

log = logging.getLogger(__name__)

KEY_FILE = "keys.json"
_RETRY = 60.0  # seconds after a failed change of the file


class KeyStore:
    """The keys, rotated on schedule whenever they are requested.

    Parameters
    ----------
    directory : Path
        Created with mode 0700 if it does not exist.
    schedule : Schedule
    clock : callable
        Returns seconds since the epoch.

    Raises
    ------
    ConfigurationError
        The directory or file is readable by others or unusable.
    """

    def __init__(self, directory: Path, schedule: Schedule, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._schedule = schedule
        self._clock = clock
        self._keys = self._advance()
        self._next_change = next_change(self._keys, schedule)

    def published(self) -> Keys:
        """Return the keys that are published now."""
        now = self._clock()
        if now >= self._next_change:
            try:
                self._keys = self._advance()
                self._next_change = next_change(self._keys, self._schedule)
            except ConfigurationError as error:
                log.error("the keys were not rotated, and the previous ones stay in use: %s", error)  # noqa: TRY400
                self._next_change = now + _RETRY
        return self._keys

    def signing(self) -> Key:
        """Return the key that signs now."""
        return signing(self.published(), self._clock())

    def _advance(self) -> Keys:
        path = self._directory / KEY_FILE
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self._directory, "700")
            with locked(self._directory / "lock"):
                known = _read(path)
                keys = advanced(known, self._clock(), self._schedule)
                if keys != known:
                    write_private(path, json.dumps({"keys": [key.as_dict() for key in keys]}))
                return keys
        except OSError as error:
            raise ConfigurationError(
                f"The signing keys in {self._directory} cannot be used: {error.strerror or error}. Set "
                "TokenIssuer.key_directory to a directory that only the token service may write to."
            ) from error


def _check_private(path: Path, mode: str) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} does not belong to the token service's account. Set TokenIssuer.key_directory to a directory "
            "that only the token service uses."
        )
    if status.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}), but protects the keys that "
            f"sign users' tokens. Make it private: chmod {mode} {path}. If another user may have read the keys, "
            f"remove {KEY_FILE}, so that new ones are made."
        )


def _read(path: Path) -> Keys:
    try:
        _check_private(path, "600")
    except FileNotFoundError:
        return ()
    try:
        return tuple(Key.from_dict(each) for each in json.loads(path.read_text(encoding="utf-8"))["keys"])
    except (ValueError, LookupError, TypeError) as error:
        # the original exception could show a part of the key
        raise ConfigurationError(
            f"The signing keys {path} cannot be read ({type(error).__name__}). Restore the file, or remove it: new "
            "keys are then made, and existing tokens are refused until users renew them."
        ) from None
