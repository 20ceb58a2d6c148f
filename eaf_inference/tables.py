"""Plain text for messages, terminals and logs: tables, and the name that was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["aligned", "did_you_mean"]


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The rows under their heads, every column as wide as its widest cell."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def did_you_mean(given: object, known: Sequence[str]) -> str:
    """A sentence that names what is nearest, or nothing."""
    close = get_close_matches(str(given), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
