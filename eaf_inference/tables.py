"""Plain text for messages, terminals and logs: tables, and the name that was probably meant."""

from __future__ import annotations

import textwrap
from difflib import get_close_matches
from itertools import zip_longest
from typing import TYPE_CHECKING

from eaf_inference._text import cells, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["aligned", "did_you_mean", "number"]

_NARROWEST = 8  # columns of a terminal that a cell is folded to


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> str:
    """The rows under their heads, every column as wide as its widest cell.

    Control characters in a cell are shown as escapes. Each row is one line, unless a width is given: then long cells
    are folded so that the table fits, and nothing of them is left out.
    """
    lines = [[printable(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
    if width is not None:
        widths = _fitted(widths, width)
        folded = ([_folded(cell, most) for cell, most in zip(line, widths, strict=True)] for line in lines)
        lines = [list(line) for row in folded for line in zip_longest(*row, fillvalue="")]
    padded = (
        "  ".join(cell + " " * (width - cells(cell)) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _fitted(widths: Sequence[int], total: int) -> list[int]:
    """Narrow the widest columns until the table fits, as far as a column stays readable."""
    left = total - 2 * (len(widths) - 1)
    most = next((most for most in range(min(max(widths), left), _NARROWEST, -1) if _sum(widths, most) <= left), None)
    return [min(each, most or _NARROWEST) for each in widths]


def _sum(widths: Sequence[int], most: int) -> int:
    return sum(min(each, most) for each in widths)


def _folded(cell: str, most: int) -> list[str]:
    """The cell in lines of so many columns, between words where that is possible."""
    if cells(cell) > len(cell):  # textwrap counts characters, of which some are two columns wide
        most = max(1, most // 2)
    return textwrap.wrap(cell, most, break_on_hyphens=False) or [""]


def number(value: float) -> str:
    """A measured number with one decimal; nothing but 0 reads as 0."""
    if value == 0:
        return "0"
    return f"{value:,.1f}" if abs(value) >= 0.05 else "<0.1"


def did_you_mean(given: object, known: Sequence[str]) -> str:
    """A sentence that names what is nearest, or nothing."""
    close = get_close_matches(str(given), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
