"""Files and directories that somebody else may have put there: opened without waiting, believed after a look.

A name in a shared directory may lead to a pipe, which would never be read to its end, to a link, or to the file of
another user. The checks are made on what has been opened, so that it cannot be exchanged meanwhile.
"""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Unusable", "own_or_root", "private_directory", "read_regular", "reason_of"]

_ROOT = 0


class Unusable(OSError):
    """What is there is not believed; the message says why, without the path."""


def read_regular(
    path: Path, largest: int, *, owners: frozenset[int] | None = None, follow_links: bool = True
) -> bytes:
    """The content of a regular file.

    Parameters
    ----------
    path : Path
    largest : int
        Bytes.
    owners : frozenset of int, optional
        The users whose files are believed; such a file must not be writable by others. Without, anybody's is.
    follow_links : bool
        Whether the path may be a symbolic link.

    Raises
    ------
    Unusable
        It is no such file.
    OSError
        It is not there, or cannot be opened.
    """
    if not follow_links and path.is_symlink():
        raise Unusable("it is a symbolic link. Expected a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW))
    try:
        _check(os.fstat(descriptor), path, owners)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(largest + 1)
    finally:
        os.close(descriptor)
    if len(content) > largest:
        raise Unusable(f"it is larger than {largest} bytes")
    return content


def _check(status: os.stat_result, path: Path, owners: frozenset[int] | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("it is not a regular file")
    if owners is None:
        return
    if status.st_uid not in owners:
        raise Unusable(f"it belongs to {_name_of(status.st_uid)}. Expected a file of yours")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise Unusable(f"others may write to it (mode {mode:04o}). If it is yours: chmod 600 {path}")


def own_or_root() -> frozenset[int]:
    """This user and root, who writes what a batch system or Kubernetes mounts."""
    return frozenset({os.geteuid(), _ROOT})


def private_directory(path: Path, *, remedy: str) -> Path:
    """Make a directory that only this user can read, or see that it is one.

    Parameters
    ----------
    path : Path
        Not a symbolic link: whoever made it could lead it elsewhere.
    remedy : str
        What to do where it cannot be used.

    Raises
    ------
    ConfigurationError
        It is somebody else's, is no directory, or cannot be made.
    """
    try:
        if path.is_symlink():
            raise Unusable("it is a symbolic link. Expected a directory")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            owner = os.fstat(descriptor).st_uid
            if owner != os.geteuid():
                raise Unusable(f"it belongs to {_name_of(owner)}. Expected a directory of yours")
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(f"The directory {path} cannot be used: {reason_of(error)}. {remedy}") from error
    return path


def reason_of(error: Exception) -> str:
    """Why a file or directory cannot be used, without its path."""
    return getattr(error, "strerror", None) or str(error)


def _name_of(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user {user}"
