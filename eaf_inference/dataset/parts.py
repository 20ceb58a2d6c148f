"""What a data set consists of: files, and ranges of their entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["File", "Part", "merged"]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a data set.

    Attributes
    ----------
    path : str
        Absolute path or URL.
    tree : str
        Of a ROOT file: the name of its tree or RNTuple; empty if it has only one.
    dataset : str
        The data set that it belongs to; empty if it was given alone.
    steps : tuple of (int, int)
        Ranges of entries, each from its first entry to the one after its last; empty for all entries.
    metadata : mapping
        Of the data set, as the user gave it.
    """

    path: str
    tree: str = ""
    dataset: str = ""
    steps: tuple[tuple[int, int], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.tree}" if self.tree else self.path


@dataclass(frozen=True, slots=True)
class Part:
    """Entries that are read and scored together: a range of a file, or a whole one.

    Attributes
    ----------
    number : int
        The place of the file, or of the array, in the data set.
    file : File or None
        None for an array.
    start, stop : int
        Entries; `stop` is None for all of them from `start` on.
    """

    number: int
    file: File | None
    start: int = 0
    stop: int | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Where it is in the data set."""
        return self.number, self.start


def merged(steps: Iterable[tuple[int, int]]) -> list[tuple[int, int | None]]:
    """Join ranges that follow one another, and leave out empty ones."""
    merged: list[tuple[int, int | None]] = []
    for start, stop in steps:
        if merged and merged[-1][1] == start:
            merged[-1] = merged[-1][0], stop
        elif stop > start:
            merged.append((start, stop))
    return merged
