"""The signing keys on disk: one file that only this account can read, replaced in one step.

Several processes may share the directory: who changes the file holds its lock, and takes over what is there.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError
from eaf_inference.hub.keys import Key, advanced, next_change, signing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from eaf_inference.hub.keys import Keys, Schedule

__all__ = ["KeyStore"]

log = logging.getLogger(__name__)

_FILE = "keys.json"
_TRY_AGAIN = 60.0  # seconds, where the file could not be changed


class KeyStore:
    """The keys, rotated by their schedule whenever somebody asks for them.

    Parameters
    ----------
    directory : Path
        Made, 0700, where it is not there.
    schedule : Schedule
    clock : callable
        Seconds since the epoch.

    Raises
    ------
    ConfigurationError
        Others can read directory or file, or they cannot be used.
    """

    def __init__(self, directory: Path, schedule: Schedule, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._schedule = schedule
        self._clock = clock
        self._keys = self._advance()
        self._look_at = next_change(self._keys, schedule)

    def published(self) -> Keys:
        """All that are published now."""
        now = self._clock()
        if now >= self._look_at:
            try:
                self._keys = self._advance()
                self._look_at = next_change(self._keys, self._schedule)
            except ConfigurationError as error:
                log.error("The keys were not rotated, and those of before are used: %s", error)  # noqa: TRY400
                self._look_at = now + _TRY_AGAIN
        return self._keys

    def signing(self) -> Key:
        """The one that signs now."""
        return signing(self.published(), self._clock())

    def _advance(self) -> Keys:
        path = self._directory / _FILE
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self._directory, "700")
            with _locked(self._directory / "lock"):
                known = _read(path)
                keys = advanced(known, self._clock(), self._schedule)
                if keys != known:
                    _write(path, keys)
                return keys
        except OSError as error:
            raise ConfigurationError(
                f"The signing keys in {self._directory} cannot be used: {error.strerror or error}. Set "
                "TokenIssuer.key_directory to a directory that the token service may write to, and nobody else."
            ) from error


def _check_private(path: Path, mode: str) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} does not belong to the token service's account. Expected a directory of its own with what it "
            "wrote there; set TokenIssuer.key_directory."
        )
    if status.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}), and it guards the keys "
            f"that sign users' tokens. Make it private, `chmod {mode} {path}`, and where somebody may have "
            f"read the keys remove {_FILE} so that new ones are made."
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Keys:
    try:
        _check_private(path, "600")
    except FileNotFoundError:
        return ()
    try:
        return tuple(Key.from_dict(each) for each in json.loads(path.read_text(encoding="utf-8"))["keys"])
    except (ValueError, LookupError, TypeError) as error:
        # the cause may show a part of the key
        raise ConfigurationError(
            f"The signing keys {path} cannot be read ({type(error).__name__}). Restore the file, or remove it: then "
            "new keys are made, and users' tokens of before are refused until they are renewed."
        ) from None


def _write(path: Path, keys: Keys) -> None:
    draft = path.with_suffix(".draft")
    descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # a draft that was left
        json.dump({"keys": [key.as_dict() for key in keys]}, file)
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)
