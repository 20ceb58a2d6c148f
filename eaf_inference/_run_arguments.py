"""What the arguments of `eaf-inference run` mean: files, a job's share of them, and functions by name."""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import re
import sys
import traceback
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference.dataset.parts import File
from eaf_inference.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["files_given", "job_number", "object_named", "positive", "qualified_name", "schema_named", "share_of"]

_Item = TypeVar("_Item")
_FILESETS = (".json", ".json.gz")


def positive(text: str) -> int:
    """Return a number of at least 1, for argparse."""
    if not re.fullmatch("[0-9]+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number. Expected 1 or more")
    return int(text)


def job_number(text: str) -> tuple[int, int]:
    """Return i and n of ``i/n`` with i from 1 to n, for argparse."""
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    number, jobs = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= jobs:
        message = f"{text!r} is no i/n with i from 1 to n, such as 3/20"
        if jobs:
            message += "; add 1 to numbers that begin with 0, such as HTCondor's $(Process)"
        raise argparse.ArgumentTypeError(message)
    return number, jobs


def share_of(files: list[_Item], number: int, jobs: int) -> list[_Item]:
    """Return the files of one job; neighbours are often alike, so they are dealt out one by one."""
    return files[number - 1 :: jobs]


def qualified_name(text: str) -> str:
    """Check the form ``module:name``, for argparse."""
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no module:function, such as selections:fatjets")
    if (file := text.partition(":")[0]).endswith(".py"):
        raise argparse.ArgumentTypeError(f"{file!r} is a file. Expected the module: {text.replace('.py:', ':')}")
    return text


def object_named(name: str) -> Any:
    """Import ``module:name``; the module may lie in the current directory.

    Raises
    ------
    ConfigurationError
        There is no such module, or no such function in it.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{name} cannot be imported: {error}. Expected module:function, with the module {module} installed or in "
            f"{here}."
        ) from error
    except Exception as error:  # whatever the user's module raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f" in line {place.lineno} of {place.filename}"
        raise ConfigurationError(
            f"{name} cannot be imported: {type(error).__name__}{where}: {error}. Correct the module {module}; "
            f"`python -c 'import {module}'` shows the same."
        ) from error


def schema_named(name: str) -> Any:
    """Return a schema of coffea, or one of the user as ``module:Class``."""
    if ":" in name:
        return object_named(qualified_name(name))
    try:
        nanoevents = importlib.import_module("coffea.nanoevents")
    except ImportError as error:
        raise ConfigurationError(f"The schema {name} needs coffea: pip install coffea ({error}).") from error
    schemas = [each for each in nanoevents.__all__ if each.endswith("Schema")]
    if name not in schemas:
        raise ConfigurationError(
            f"coffea has no schema {name!r}. Expected one of {', '.join(schemas)}, or module:Class."
        )
    return getattr(nanoevents, name)


def files_given(given: Sequence[str]) -> list[File]:
    """Return the files of a command line, in order.

    Parameters
    ----------
    given : sequence of str
        As `eaf_inference.dataset.fileset.files_of` takes them, or JSON files with filesets.

    Raises
    ------
    ConfigurationError
        A fileset is not readable.
    InvalidInput
        No files are named, or one is named twice.
    """
    from eaf_inference.dataset.fileset import files_of

    chunks: list[Any] = []
    for each in given:
        if each.lower().endswith(_FILESETS):
            fileset = _fileset(each)
            chunks += fileset if isinstance(fileset, list) else [fileset]
        else:
            chunks.append(each)
    files = list(files_of(chunks))
    if not files:
        raise InvalidInput(f"{', '.join(given)} has no files. Expected at least one.")
    if strange := [each for each in files if not isinstance(each, File)]:
        raise InvalidInput(f"{', '.join(given)} names no files: {strange[0]!r}. Expected paths or filesets.")
    return files


def _fileset(path: str) -> Any:
    try:
        content = Path(path).expanduser().read_bytes()
        if path.lower().endswith(".gz"):
            content = gzip.decompress(content)
        fileset = json.loads(content, object_pairs_hook=_unique)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConfigurationError(f"{path} is no fileset: {error}. Expected JSON as coffea writes it.") from error
    if not isinstance(fileset, dict | list):
        raise ConfigurationError(f"{path} is no fileset. Expected {{data set: {{'files': {{path: tree}}}}}}.")
    return fileset


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that occurs twice, of which JSON would keep the last."""
    names = Counter(name for name, _ in pairs)
    if twice := next((name for name, times in names.items() if times > 1), None):
        raise ValueError(f"{twice!r} is there twice")
    return dict(pairs)
