"""Scores in a ROOT file: a friend tree of the input's tree, with the same entries.

ROOT writes the time into each file. Apart from that, the same scores have the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import awkward as ak
import numpy as np

from eaf_inference.dataset.parts import merged
from eaf_inference.dataset.reading import opened
from eaf_inference.dataset.score_columns import canonical
from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from eaf_inference.dataset.parts import File
    from eaf_inference.dataset.score_columns import Columns

__all__ = ["RootOutput"]

_TREE = "scores"
_KEY = "eaf_inference"
_NUMBERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")


class RootOutput:
    """A ROOT file that is being written."""

    suffix: ClassVar[str] = ".root"
    must_align: ClassVar[bool] = True

    def __init__(self, file: BinaryIO) -> None:
        import uproot

        own = os.fdopen(os.dup(file.fileno()), "w+b")  # uproot closes its file
        self._directory: Any = uproot.recreate(own, uuid_function=lambda: uuid.NAMESPACE_URL)
        self._tree: Any = None

    @staticmethod
    def check(file: File) -> None:
        """Refuse steps that leave entries out: a friend tree with fewer entries would be read wrongly."""
        if not file.steps:
            return
        try:
            with opened(file) as table:
                entries = table.entries
        except Exception as error:
            raise InvalidInput(
                f"{file} has steps, and its number of entries cannot be read here: {type(error).__name__}: {error}. "
                "Expected to read it, because a friend tree needs all entries. Write format='parquet'."
            ) from error
        if merged(file.steps) != merged([(0, entries)]):
            raise InvalidInput(
                f"{file} has {entries} entries, and its steps are {merged(file.steps)}. Expected steps that cover "
                "all entries in order, because a friend tree with others would be read wrongly. Write "
                "format='parquet'."
            )

    def append(self, columns: Columns) -> None:
        """Write rows.

        Raises
        ------
        InvalidInput
            A branch cannot hold the scores.
        """
        branches = [
            branch
            for name, content in {**columns.ids, **columns.scores}.items()
            for branch in _branches(name, content)
        ]
        arrays = {name: ak.Array(content) for name, content in branches}
        if len(arrays) < len(branches):
            raise InvalidInput(
                f"Two of the branches {', '.join(name for name, _ in branches)} would have one name. Expected names "
                "that differ in letters and digits. Write format='parquet', which keeps all names."
            )
        if self._tree is None:
            types = {name: array.type.content for name, array in arrays.items()}
            self._tree = self._directory.mktree(_TREE, types)
        if columns.rows:
            self._tree.extend(arrays)

    def finish(self, metadata: Mapping[str, Any]) -> None:
        self._directory[_KEY] = json.dumps(metadata, sort_keys=True)
        self._directory.close()

    def abandon(self) -> None:
        with suppress(OSError):  # a full disk
            self._directory.close()

    @staticmethod
    def pieces(path: Path) -> Iterator[Columns]:
        raise NotImplementedError(f"{path}: the scores of a friend tree always have entry numbers")

    @staticmethod
    def read_metadata(path: Path) -> dict[str, Any] | None:
        """Return the metadata of a complete file; None if it is damaged, incomplete or from another program."""
        import uproot

        if not path.is_file():
            return None
        try:
            with uproot.open(path) as file:
                metadata: dict[str, Any] = json.loads(file[_KEY])
                whole = file.file.fEND == path.stat().st_size and file[_TREE].num_entries == metadata["scores"]
        except Exception:  # noqa: BLE001  (uproot has many errors for a damaged file)
            return None
        return metadata if whole else None


def _branches(column: str, content: ak.contents.Content) -> Iterator[tuple[str, ak.contents.Content]]:
    """Return the branches of a column: one, or one for each field of records."""
    content = _present(column, content)
    if content.is_record:
        for field in content.fields:
            yield from _branches(f"{column}_{field}", content.content(field))
        return
    if content.is_list and not content.is_regular and content.parameter("__array__") is None:
        inner = _present(column, content.content)
        if inner.is_record:  # uproot makes branches of the fields, which share the lengths
            numbers = [_number(f"{column}_{field}", inner.content(field)) for field in inner.fields]
            inner = ak.contents.RecordArray(numbers, [*map(_name, inner.fields)], length=len(inner))
        else:
            inner = _number(column, inner)
        content = ak.contents.ListOffsetArray(content.offsets, inner)
    else:
        inner = content
        while inner.is_regular and inner.parameter("__array__") is None:
            inner = inner.content
        _number(column, inner)
    yield _name(column), content


def _name(text: str) -> str:
    """Return a name that ROOT takes in formulas."""
    return re.sub(r"\W", "_", text, flags=re.ASCII)


def _number(column: str, content: ak.contents.Content) -> ak.contents.Content:
    content = _present(column, content)
    if not content.is_numpy or str(content.form.type) not in _NUMBERS:
        raise _unfit(column, content)
    return content


def _present(column: str, content: ak.contents.Content) -> ak.contents.Content:
    """Return the content of an option type without missing values."""
    if not content.is_option:
        return content
    if not np.all(content.mask_as_bool(valid_when=True)):
        raise _unfit(column, content)
    return canonical(content.project())


def _unfit(column: str, content: ak.contents.Content) -> InvalidInput:
    return InvalidInput(
        f"A branch of a ROOT tree cannot hold {column} of the type {content.form.type}. Expected numbers of 8 to 64 "
        "bits, records of them, and lists of either in each entry, with no missing value. Write format='parquet', "
        "which holds all, or change the scores before: ak.fill_none, ak.values_astype."
    )
