"""An open file as a table of entries and columns, whatever its format, and ranges of entries of a bounded size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import awkward as ak

__all__ = ["Column", "Piece", "Table", "cut"]

Column: TypeAlias = tuple[str, ...]  # the field names from the top of a table to the numbers


class Piece(NamedTuple):
    """Entries that a file stores together, and the bytes of some of their columns in memory and in the file."""

    start: int
    stop: int
    size: float
    stored: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """An open file.

    Attributes
    ----------
    source : object
        The tree or RNTuple of uproot, or the file of pyarrow.
    names : sequence of str
        Of the columns at the top.
    entries : int
    form : callable
        Returns the form of an entry.
    read : callable
        Returns some columns, or all with None, of the entries from one to the one before another.
    pieces : callable
        Returns the file's pieces, in order and without gaps, with the sizes of some columns, or all with None.
    reads_from_start : bool
        Whether reading some entries of a piece takes as long as reading all up to them.
    """

    source: Any
    names: Sequence[str]
    entries: int
    form: Callable[[], ak.forms.Form]
    read: Callable[[Sequence[Column] | None, int, int], ak.Array]
    pieces: Callable[[Sequence[Column] | None], Sequence[Piece]]
    reads_from_start: bool = True


def cut(pieces: Iterable[Piece], most: float, steps: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ranges that cover the steps in order, never empty, of at most `most` bytes but at least one entry.

    Whole pieces are joined; a piece is split only if it is too large itself.
    """
    pieces = [piece for piece in pieces if piece.start < piece.stop]
    for first, last in steps:
        start, size = first, 0.0
        for piece in pieces:
            low, high = max(piece.start, first), min(piece.stop, last)
            if low >= high:
                continue
            more = piece.size * (high - low) / (piece.stop - piece.start)
            if size + more <= most:
                size += more
                continue
            if start < low:
                yield start, low
            start, size = low, more
            if more > most:
                parts = min(math.ceil(more / most), high - low)
                yield from pairwise(low + (high - low) * part // parts for part in range(parts + 1))
                start, size = high, 0.0
        if start < last:
            yield start, last
