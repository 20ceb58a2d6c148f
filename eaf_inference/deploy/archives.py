"""Read zip archives that anybody may have made, as torch's files are.

Python's zipfile and torch's own reader can find different files in one archive: they take the place of its directory
from different numbers. So what was checked here is written into a new archive, and that is what torch reads.
"""

from __future__ import annotations

import errno
import shutil
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from eaf_inference.errors import DeploymentRefused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["DAMAGED", "copied", "names_in"]

# What zipfile raises for archives that are cut off, changed, encrypted or compressed in an unknown way.
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
_LARGEST_COMPRESSED = 64 << 20  # bytes: torch compresses code alone
_BLOCK = 1 << 20  # bytes


def names_in(path: Path) -> list[str] | None:
    """Return the names of the files in an archive; None if the file is none, or is damaged."""
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except DAMAGED:
        return None


def copied(path: Path, target: Path, wrong: Callable[[str, Callable[[], bytes]], str]) -> str:
    """Write what an archive holds into a new one, and return what is wrong with it; empty if nothing is.

    Parameters
    ----------
    path, target : pathlib.Path
    wrong : callable
        Returns what is wrong with a file in the archive, of its name and a function that returns its content.

    Raises
    ------
    DeploymentRefused
        There is no space for the new one.
    OSError
        The archive cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w") as copy:
            names = archive.namelist()
            if len(set(names)) < len(names):
                return "it holds two files of one name"
            if any(each.header_offset < 0 for each in archive.infolist()):
                return "it is damaged"
            compressed = [each for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED]
            if sum(each.file_size for each in compressed) > _LARGEST_COMPRESSED:
                return f"it unpacks to more than {_LARGEST_COMPRESSED >> 20} MiB"
            for name in names:
                if why := wrong(name, lambda name=name: archive.read(name)):  # type: ignore[misc]
                    return why
                size = archive.getinfo(name).file_size
                with archive.open(name) as content, copy.open(name, mode="w", force_zip64=size > _BLOCK) as written:
                    shutil.copyfileobj(content, written, _BLOCK)
    except (*DAMAGED, OSError) as error:
        if full := _no_space(error):
            raise DeploymentRefused(
                f"{path} cannot be copied to {target.parent}: {full.strerror}. Free some space there, or set "
                "TMPDIR to a directory with more."
            ) from full
        if isinstance(error, OSError):
            raise
        return f"it is damaged ({error})"
    return ""


def _no_space(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk, which may be behind another one: a zip file cannot be closed either."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        error = error.__context__
    return None
