"""What a data set consists of: files as coffea and uproot write them, in lists, patterns and folders, and arrays."""

from __future__ import annotations

import glob
import operator
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.dataset.faults import of_file
from eaf_inference.dataset.formats import format_of, split
from eaf_inference.dataset.parts import File
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["files_of", "names_files"]

_OF_A_FILE = {"object_path", "steps", "num_entries", "uuid"}  # in the description of one file
_PATTERN = "*?["


def names_files(chunks: Any) -> bool:
    """Whether this names files: a path, a pattern, or a mapping of coffea or uproot, rather than of arrays."""
    if isinstance(chunks, str | os.PathLike):
        return True
    if not isinstance(chunks := _plain(chunks), Mapping) or not chunks:
        return False
    return all(isinstance(key, str | os.PathLike) and _name_files(value) for key, value in chunks.items())


def _name_files(value: Any) -> bool:
    if value is None or isinstance(value, str | os.PathLike):
        return True
    if isinstance(value := _plain(value), Mapping):
        return "files" in value or bool(_OF_A_FILE & {*value}) or names_files(value)
    return isinstance(value, list | tuple) and all(isinstance(each, str | os.PathLike) for each in value)


def files_of(chunks: Any) -> Iterator[Any]:
    """Return the files and arrays of a data set, in order, one after the other.

    Parameters
    ----------
    chunks : mapping, str, or iterable
        ``{data set: {"files": …, "metadata": …}}`` as for coffea, where the files are ``{path: tree}``,
        ``{path: {"object_path": tree, "steps": [[start, stop], …]}}`` or a list; ``{data set: files}``;
        ``{path: tree}`` as for uproot; a path, a pattern such as ``dir/*.root:Events``, or a folder; or an iterable
        of all of these and of arrays. An iterable is consumed as files are requested, so it may be endless.

    Returns
    -------
    iterator of File and arrays
        Arrays are as they were given.

    Raises
    ------
    InvalidInput
        `chunks` is one array. While iterating: a pattern or a folder has no files, a data set has none or has one
        twice, or steps overlap.
    """
    one_array = isinstance(chunks, Mapping | ak.Array | np.ndarray) or not isinstance(chunks, Iterable)
    if one_array and not names_files(chunks):
        raise InvalidInput(
            f"The chunks are {kind_of(chunks)}. Expected an iterable of files or arrays, such as [chunk]."
        )
    return _once(_found(_plain(chunks)))


def _once(found_files: Iterator[Any]) -> Iterator[Any]:
    """Refuse a file that a data set has twice."""
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for found in found_files:
        if isinstance(found, File):
            trees, tree = seen[found.dataset, _true(found.path)], found.tree.partition(";")[0]
            if trees and ({tree, ""} & trees or not tree):  # a tree without a name is any of them
                of = f" of the data set {found.dataset!r}" if found.dataset else ""
                raise InvalidInput(
                    f"{found}{of} is given twice, so its entries would be counted twice. Expected each file once; "
                    "patterns that overlap are a usual cause."
                )
            trees.add(tree)
        yield found


def _found(chunks: Any) -> Iterator[Any]:
    if isinstance(chunks, str | os.PathLike):
        yield from _of_path(chunks)
    elif isinstance(chunks, Mapping):
        yield from _of_mapping(chunks)
    else:
        for chunk in chunks:
            yield from _found(_plain(chunk)) if names_files(chunk) else (chunk,)


def _of_mapping(chunks: Mapping[Any, Any]) -> Iterator[File]:
    for key, value in chunks.items():
        value = _plain(value)
        if _is_path(os.fspath(key), value):
            yield from _of_path(key, value)
        else:
            yield from _of_dataset(os.fspath(key), value)


def _is_path(key: str, value: Any) -> bool:
    """Whether a key is a path rather than the name of a data set."""
    if value is None:
        return True
    if isinstance(value, Mapping):
        return "files" not in value and bool(_OF_A_FILE & {*value})
    if not isinstance(value, str):
        return False
    if format_of(split(key)[0]) or format_of(split(value)[0]):
        return bool(format_of(split(key)[0]))
    return any(mark in key for mark in "/*") or not any(mark in value for mark in "/*")


def _of_dataset(name: str, value: Any) -> Iterator[File]:
    described = value if isinstance(value, Mapping) and "files" in value else {"files": value}
    tree, metadata = described.get("treename") or "", described.get("metadata") or {}
    files = _plain(described["files"])
    if isinstance(files, str | os.PathLike):
        files = [files]
    if not files:
        raise InvalidInput(f"The data set {name!r} has no files. Expected a path or more under 'files'.")
    items = files.items() if isinstance(files, Mapping) else ((path, None) for path in files)
    for path, about in items:
        for file in _of_path(path, _plain(about)):
            by_default = "" if format_of(file.path) == "parquet" else tree
            yield replace(file, dataset=name, metadata=metadata, tree=file.tree or by_default)


def _of_path(given: Any, about: Any = None) -> Iterator[File]:
    """Yield the files of a path, a pattern or a folder, described by the name of a tree or a mapping."""
    if not isinstance(given, str | os.PathLike):
        raise InvalidInput(f"A file is given as {given!r}. Expected a path or URL.")
    path, tree = split(os.fspath(given))
    steps: tuple[tuple[int, int], ...] = ()
    if isinstance(about, Mapping):
        tree, steps = about.get("object_path") or tree, _steps(path, about.get("steps"))
    elif isinstance(about, str):
        tree = about
    elif about is not None:
        raise InvalidInput(f"{path} has {about!r}. Expected the name of its tree, or a mapping with object_path.")
    paths = _paths(path)
    if steps and len(paths) > 1:
        raise InvalidInput(f"{path} has steps but stands for {len(paths)} files. Expected one file.")
    for each in paths:
        yield File(each, "" if format_of(each) == "parquet" else tree, steps=steps)


def _steps(path: str, steps: Any) -> tuple[tuple[int, int], ...]:
    """Return ranges of entries, given as such or as their edges, and leave out empty ones unless all are empty."""
    if steps is None:
        return ()
    edges = list(steps)
    if not any(hasattr(each, "__len__") for each in edges):
        edges = list(pairwise(edges))
    try:
        ranges = [(operator.index(start), operator.index(stop)) for start, stop in edges]
    except (TypeError, ValueError):
        ranges = []
    ordered = all(0 <= start <= stop for start, stop in ranges) and all(
        before[1] <= after[0] for before, after in pairwise(ranges)
    )
    if not ranges or not ordered:
        raise InvalidInput(
            f"{path} has the steps {steps!r}. Expected [[start, stop], …] in order and without overlap, or none."
        )
    return tuple((start, stop) for start, stop in ranges if start < stop) or ((0, 0),)


def _paths(path: str) -> list[str]:
    """Return the files that a path stands for: itself, or those that a pattern or a folder has."""
    if "://" in path:
        return _remote(path)
    local = _absolute(Path(path).expanduser())
    if local.is_dir():
        found = sorted(str(each) for each in local.rglob("*") if _is_data(each.relative_to(local)) and each.is_file())
        return _some(found, path, "folder")
    if any(character in path for character in _PATTERN) and not local.exists():
        matches = sorted(glob.glob(str(local), recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        found = [each for match in matches for each in _paths(match)]
        return _some(found, path, "pattern")
    return [str(local)]


def _absolute(path: Path) -> Path:
    """Return the path from the root without "..", because its name must not depend on the current directory."""
    parts = path.absolute().parts
    up = len(parts) - parts[::-1].index("..") if ".." in parts else 0
    return Path(*parts[:up]).resolve().joinpath(*parts[up:]) if up else Path(*parts)


def _is_data(path: Path) -> bool:
    """Whether a file in a folder is data, not a description or a hidden file of the program that wrote it."""
    return bool(format_of(path.name)) and not any(part.startswith(("_", ".")) for part in path.parts)


def _remote(path: str) -> list[str]:
    if "*" not in path and not path.endswith("/"):
        return [path]
    import fsspec

    pattern = path if "*" in path else f"{path}**"
    system, inner = of_file(path, fsspec.core.url_to_fs, pattern)
    matches = sorted(system.unstrip_protocol(each) for each in of_file(path, system.glob, inner))
    return _some(
        [each for each in matches if "*" in path or format_of(each)], path, "pattern" if "*" in path else "folder"
    )


def _some(found: list[str], path: str, kind: str) -> list[str]:
    if not found:
        raise InvalidInput(f"The {kind} {path} has no files. Expected at least one .root or .parquet file there.")
    return found


def _true(path: str) -> str:
    """Return one name for a local file that has several."""
    path = path.removeprefix("file://")
    return path if "://" in path else os.path.realpath(path)


def _plain(value: Any) -> Any:
    """Return coffea's descriptions of data sets as mappings."""
    return value.model_dump() if hasattr(value, "model_dump") else value
