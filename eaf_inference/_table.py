"""A table that is described once and shown as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eaf_inference._html import code, column, escape, span, table
from eaf_inference._text import aligned

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Cell", "Table", "reported"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes
    ----------
    text : str or tuple of str
        Several parts are lines in HTML; in text, semicolons separate them.
    kind : str
        How HTML shows it; text shows all kinds alike.
    """

    text: str | tuple[str, ...]
    kind: Literal["plain", "dim", "good", "bad", "code"] = "plain"

    def __str__(self) -> str:
        return self.text if isinstance(self.text, str) else "; ".join(self.text)

    def html(self, *, folds: bool) -> str:
        parts = (self.text,) if isinstance(self.text, str) else self.text
        return "<br>".join(self._part(part, folds=folds) for part in parts)

    def _part(self, text: str, *, folds: bool) -> str:
        if self.kind == "plain":
            return escape(text)
        return code(text, folds=folds) if self.kind == "code" else span(self.kind, text)


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes
    ----------
    heads : sequence of str
    rows : sequence of sequence of Cell or str
    numbers : collection of int
        Columns that hold numbers: HTML aligns them right and keeps them on one line.
    folds : collection of int
        Columns whose long cells wrap in HTML.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    numbers: Collection[int] = ()
    folds: Collection[int] = ()

    def text(self, *, width: int | None = None) -> str:
        """Return the table in plain text, folded to `width` columns of a terminal if one is given."""
        return aligned(self.heads, ([str(cell) for cell in row] for row in self.rows), width=width)

    def html(self) -> str:
        """Return the table in HTML."""
        rows = ([self._html(place, cell) for place, cell in enumerate(row)] for row in self.rows)
        return table(self.heads, rows, numbers=self.numbers)

    def _html(self, place: int, cell: Cell | str) -> str:
        cell = Cell(cell) if isinstance(cell, str) else cell
        shown = cell.html(folds=place in self.folds)
        if place in self.folds:
            return column(shown)
        return f'<span style="white-space: nowrap">{shown}</span>' if place in self.numbers else shown


def reported(value: float | None, form: str = "{}", otherwise: str = "not reported") -> Cell:
    """Return a cell with the number, or with `otherwise` if the number is not known."""
    return Cell(otherwise, "dim") if value is None else Cell(form.format(value))
