"""Write a file under a temporary name beside its own, so that nobody ever sees a part of it.

A process holds a lock on its drafts while it lives. So the drafts of a killed process are recognised beside those of
another process that writes into the same directory.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Draft", "remove_leftovers"]

_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.draft")


class Draft:
    """An unfinished file.

    Attributes
    ----------
    file : binary file
        Open for reading and writing.
    target : Path
        Where it goes when it is finished.
    """

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.target = target
        while True:  # each time with a new name: it never names a second file, which others could take for the first
            self.path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.draft")
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            with suppress(OSError):  # some file systems have no locks; then leftovers are not removed either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)  # removed as a leftover before it was locked
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")

    def publish(self, *, over: bool = True) -> int:
        """Give the finished file its name, in one step, and return its size in bytes.

        Parameters
        ----------
        over : bool
            Whether to replace a file of this name. If not, the one that is there stays.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        size = os.fstat(self.file.fileno()).st_size
        if over or not self._linked():
            self.path.replace(self.target)
        self.file.close()
        directory = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # not every file system can
                os.fsync(directory)
        finally:
            os.close(directory)
        return size

    def _linked(self) -> bool:
        """Whether the file has its name now, or another file has it."""
        try:
            self.target.hardlink_to(self.path)
        except OSError:  # there is one, or the file system has no hard links
            if not self.target.exists():
                return False
        self.path.unlink()
        return True

    def discard(self) -> None:
        """Remove the file; does nothing after `publish`."""
        if self.file.closed:
            return
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk: what is still in the buffer cannot be written
            self.file.close()


def remove_leftovers(directory: Path) -> None:
    """Remove the drafts of processes that ended without finishing them."""
    for path in directory.rglob(".*.draft"):
        if not _NAME.fullmatch(path.name):
            continue
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            continue  # its process lives, or there are no locks to tell
        finally:
            os.close(descriptor)
