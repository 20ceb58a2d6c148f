"""Text from other programs, made safe to show on a terminal, in a log or in a notebook.

A server's names and messages may hold control characters that move the cursor or change the terminal, and Unicode
characters that reorder or hide the text around them.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from difflib import get_close_matches
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "aligned",
    "cells",
    "did_you_mean",
    "duration",
    "file_size",
    "number",
    "printable",
    "printable_lines",
    "shortened",
]

_NO_SPACE = re.compile(r"[^\S ]+")  # white space other than a space

_DAY = 86400.0  # seconds
_DURATIONS = (  # limit in seconds, unit in seconds, name
    (120, 1, "s"),
    (120 * 60, 60, "min"),
    (2 * _DAY, 3600, "h"),
    (730 * _DAY, _DAY, "days"),
    (36525 * _DAY, 365.25 * _DAY, "years"),
)
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def printable(text: str) -> str:
    r"""Put the text on one line, and show each character that is not printable as its escape, such as ``\x1b``.

    Line breaks, tabs and other white space become a space.
    """
    if text.isprintable():
        return text
    text = _NO_SPACE.sub(" ", text)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_lines(text: str) -> str:
    """Apply `printable` to each line of a text; line feeds stay."""
    if text.isprintable():
        return text
    return "\n".join(line if line.isprintable() else printable(line) for line in text.split("\n"))


def shortened(text: str, most: int) -> str:
    """Return the text in at most this number of characters; an ellipsis stands for the rest."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def cells(text: str) -> int:
    """Return the width of a printable text in columns of a terminal: wide characters count twice."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


_NARROWEST = 8  # columns of a terminal: cells are not folded to less


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> str:
    """Align rows under their headers; every column is as wide as its widest cell.

    Control characters are shown as escapes. Each row is one line, unless a width is given: then long cells are
    wrapped, not truncated, so that the table fits.
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
    """Wrap a cell to a number of columns, between words if possible."""
    if cells(cell) > len(cell):  # textwrap counts characters, but some are two columns wide
        most = max(1, most // 2)
    return textwrap.wrap(cell, most, break_on_hyphens=False) or [""]


def number(value: float) -> str:
    """Format a measured number with one decimal; only 0 reads as 0."""
    if value == 0:
        return "0"
    return f"{value:,.1f}" if abs(value) >= 0.05 else "<0.1"


def duration(seconds: float) -> str:
    """Return a duration in the unit that a person would use."""
    for limit, unit, name in _DURATIONS:
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return "more than 100 years"  # so distant a claim is a mistake


def file_size(value: float) -> str:
    """Return a number of bytes in the unit that a person would use: ``12.3 MB``."""
    unit, name = next((each for each in _SIZES if value >= each[0]), (1.0, "B"))
    return f"{value / unit:.3g} {name}" if value < 999.5 * unit else f"{value / unit:,.0f} {name}"


def did_you_mean(given: object, known: Sequence[str]) -> str:
    """Return a sentence that suggests the closest known name, or nothing."""
    close = get_close_matches(str(given), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
