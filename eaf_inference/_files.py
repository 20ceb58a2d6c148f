"""Private files, private directories and locks, and the reading of files that another user may have put there.

A name in a shared directory may lead to a pipe, which never ends, to a symbolic link, or to another user's file. So
the checks are made on the opened file, which nobody can exchange for another one in the meantime.
"""

from __future__ import annotations

import os
import pwd
import secrets
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Unusable",
    "cache_path",
    "locked",
    "log_directory",
    "own_or_root",
    "private_directory",
    "read_regular",
    "reason_of",
    "runtime_directory",
    "write_private",
]

_ROOT = 0
_APPLICATION = "eaf-inference"


class Unusable(OSError):
    """The file or directory is not trusted; the message says why, without the path."""


def read_regular(
    path: Path, largest: int, *, owners: frozenset[int] | None = None, follow_links: bool = True
) -> bytes:
    """Return the content of a regular file.

    Parameters
    ----------
    path : Path
    largest : int
        Bytes.
    owners : frozenset of int, optional
        The users whose files are trusted; others must not be able to write to such a file. By default any file is.
    follow_links : bool
        Whether the path may be a symbolic link.

    Raises
    ------
    Unusable
        The file is not regular, not trusted, or too large.
    OSError
        The file does not exist or cannot be opened.
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
        raise Unusable(f"it belongs to {_name_of(status.st_uid)}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise Unusable(f"others may write to it (mode {mode:04o}). If it is yours: chmod 600 {path}")


def own_or_root() -> frozenset[int]:
    """Return this user and root, who owns the files that a batch system or Kubernetes mounts."""
    return frozenset({os.geteuid(), _ROOT})


def write_private(path: Path, content: str | bytes) -> None:
    """Create or replace a file, in one step, with mode 0600.

    A reader sees the old content or the new content, never a part of it. A symbolic link at the path is replaced,
    not followed.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def private_directory(path: Path, *, remedy: str = "", follow_links: bool = False) -> Path:
    """Make a directory with mode 0700, or check that it belongs to this user and set its mode.

    Parameters
    ----------
    path : Path
    remedy : str
        What to do if the directory cannot be used; ends the error message.
    follow_links : bool
        Whether the path may be a symbolic link. In a shared directory another user could have made it.

    Raises
    ------
    ConfigurationError
        It belongs to another user, is not a directory, or cannot be made.
    """
    try:
        if not follow_links and path.is_symlink():
            raise Unusable("it is a symbolic link. Expected a directory")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
        descriptor = os.open(path, flags)
        try:
            owner = os.fstat(descriptor).st_uid
            if owner != os.geteuid():
                raise Unusable(f"it belongs to {_name_of(owner)}. Expected a directory of yours")
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    except OSError as error:
        why = f"The directory {path} cannot be used: {reason_of(error)}. {remedy}".rstrip()
        raise ConfigurationError(why) from error
    return path


def runtime_directory() -> Path:
    """Make this user's runtime directory, or check that it is private.

    It is ``$XDG_RUNTIME_DIR/eaf-inference``, else ``eaf-inference-UID`` in the directory for temporary files. There
    platformdirs would put it into a directory ``runtime-UID``, which another user may have made.

    Raises
    ------
    ConfigurationError
        It belongs to another user, is a symbolic link, or cannot be made.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(named) / _APPLICATION if named else Path(tempfile.gettempdir()) / f"{_APPLICATION}-{os.geteuid()}"
    return private_directory(
        path, remedy="Remove it, or set XDG_RUNTIME_DIR to a directory that belongs to you, and try again."
    )


def cache_path() -> Path:
    """Return this user's cache directory, which may not exist yet; `locked` makes it."""
    import platformdirs

    return platformdirs.user_cache_path(_APPLICATION, appauthor=False)


def log_directory() -> Path:
    """Make this user's directory for log files."""
    import platformdirs

    return private_directory(platformdirs.user_log_path(_APPLICATION, appauthor=False), follow_links=True)


@contextmanager
def locked(path: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold a lock file, made with mode 0600 in a private directory, until the block ends; gives its descriptor.

    A child process that inherits the descriptor holds the lock for as long as it lives, also when this process is
    killed.

    Parameters
    ----------
    path : Path
    waiting : callable, optional
        Called once if another process holds the lock.
    """
    from filelock import FileLock, Timeout

    private_directory(path.parent, follow_links=True)
    descriptors: list[int] = []
    lock = FileLock(path, mode=0o600, on_acquired=descriptors.append)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is not None:
            waiting()
        lock.acquire()
    try:
        yield descriptors[-1]
    finally:
        lock.release()


def reason_of(error: Exception) -> str:
    """Return why a file or directory cannot be used, without its path."""
    return getattr(error, "strerror", None) or str(error)


def _name_of(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user {user}"
