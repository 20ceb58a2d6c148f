"""What a check finds wrong with a model: what it is, what was expected, and what to change in the export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eaf_inference._html import page
from eaf_inference._table import Cell, Table
from eaf_inference._text import printable, shortened

__all__ = ["ERROR", "WARNING", "Finding", "Findings"]

ERROR: Literal["error"] = "error"
WARNING: Literal["warning"] = "warning"

_LONGEST = 2000  # characters of each part


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a model.

    Attributes
    ----------
    code : str
        Its kind, such as ``fixed-batch-axis``, for programs.
    severity : {"error", "warning"}
        A model with an error is not put on a server.
    what : str
        What was found: a sentence.
    expected : str
        What was expected, without a verb.
    do : str
        What to change: a sentence.
    """

    code: str
    severity: Literal["error", "warning"]
    what: str
    expected: str
    do: str

    def __post_init__(self) -> None:
        for part in ("what", "expected", "do"):  # a file's own names may be of any length
            object.__setattr__(self, part, shortened(getattr(self, part), _LONGEST))

    def __str__(self) -> str:
        return printable(f"{self.what} Expected {self.expected}. {self.do}")


class Findings(list[Finding]):
    """What the checks of a model found; it prints as a list, and in a notebook as a table."""

    @property
    def errors(self) -> Findings:
        """Those that keep a model off the server."""
        return Findings(each for each in self if each.severity == ERROR)

    @property
    def codes(self) -> list[str]:
        """The kinds of what was found."""
        return [each.code for each in self]

    def __str__(self) -> str:
        if not self:
            return "No problem was found."
        return "\n".join(f"{each.severity} {each.code}: {each}" for each in self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (
                Cell(each.severity, "bad" if each.severity == ERROR else "plain"),
                Cell(each.code, "code"),
                each.what,
                each.expected,
                each.do,
            )
            for each in self
        ]
        heads = ("", "finding", "what", "expected", "what to do")
        return page(Table(heads, rows, folds=(2, 3, 4)).html() if rows else str(self))
