"""Plain text for messages, terminals and logs: tables, and the name that was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from eaf_inference._text import cells, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["aligned", "did_you_mean"]


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The rows under their heads, every column as wide as its widest cell.

    Each cell is put on one line, and control characters in it are shown as escapes.
    """
    lines = [[printable(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell + " " * (width - cells(cell)) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def did_you_mean(given: object, known: Sequence[str]) -> str:
    """A sentence that names what is nearest, or nothing."""
    close = get_close_matches(str(given), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
