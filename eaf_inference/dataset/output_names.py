"""Where the scores of an input file go, and whether that input is still the same one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from eaf_inference.dataset.parts import merged

if TYPE_CHECKING:
    from eaf_inference.dataset.parts import File

__all__ = ["digest_of", "joined_steps", "output_name"]

_LONGEST = 80  # characters of a name that are kept
_HEAD, _TAIL = 4 << 10, 64 << 10  # bytes that are compared: a ROOT file's UUID, a parquet file's footer
_INPUTS = (".root", ".parquet", ".pq")


def output_name(file: File, suffix: str) -> PurePath:
    """Return the path of a file's scores, relative to the directory of all scores.

    It begins with the data set's and the file's names, as far as they can be used, and ends with a hash of the data
    set, the path, the tree and the entries that are read, however they are cut into steps. So it is the same in each
    run, and different for files of the same name.
    """
    identity = json.dumps([file.dataset, file.path, file.tree, joined_steps(file)])
    unique = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    name = PurePath(urlsplit(file.path).path if "://" in file.path else file.path).name
    for each in _INPUTS:
        if name.lower().endswith(each):
            name = name[: -len(each)]
    path = PurePath(f"{_usable(name) or 'scores'}-{unique}{suffix}")
    return PurePath(_usable(file.dataset) or "dataset") / path if file.dataset else path


def _usable(name: str) -> str:
    """Keep what every file system and shell takes; names that begin with a dot or "_" are hidden from readers."""
    return re.sub(r"[^A-Za-z0-9.=+-]+", "_", name).strip("._-")[:_LONGEST]


def joined_steps(file: File) -> list[list[int | None]]:
    """Return the ranges of entries that are read, whose cuts do not show in an output; none for all entries."""
    return [[*step] for step in merged(file.steps) or file.steps]


def digest_of(path: str) -> str:
    """Return a digest of a local file's size, beginning and end; empty for a URL and for a file that is not visible.

    Times are left out, because a copy of the file is the same input.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return ""
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ""
        size = status.st_size
        try:
            head = file.read(_HEAD)
            file.seek(max(size - _TAIL, 0))
            return hashlib.sha256(b"%d " % size + head + file.read(_TAIL)).hexdigest()[:16]
        except OSError:
            return ""
