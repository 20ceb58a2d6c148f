"""Text from other programs, made safe to show on a terminal, in a log or in a notebook.

A server's names and messages may hold control characters that move the cursor or change the terminal, and Unicode
characters that reorder or hide the text around them.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["cells", "printable", "printable_lines"]

_NO_SPACE = re.compile(r"[^\S ]+")  # white space other than a space


def printable(text: str) -> str:
    r"""Put the text on one line, and show each character that is not printable as its escape, such as ``\x1b``.

    Line breaks, tabs and other white space become a space.
    """
    if text.isprintable():
        return text
    text = _NO_SPACE.sub(" ", text)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_lines(text: str) -> str:
    """Do the same with each line of a text, and keep its line feeds."""
    if text.isprintable():
        return text
    return "\n".join(line if line.isprintable() else printable(line) for line in text.split("\n"))


def cells(text: str) -> int:
    """How many columns of a terminal a printable text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
