"""The result of every source of discovery, as a table."""

from __future__ import annotations

from dataclasses import dataclass

from eaf_inference._html import page
from eaf_inference._table import Cell, Table

__all__ = ["Attempt", "Attempts"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One source: its name, the server it named, the outcome, and how long it took."""

    source: str
    value: str
    outcome: str
    seconds: float | None = None
    chosen: bool = False

    @property
    def time(self) -> str:
        return "" if self.seconds is None else f"{1000 * self.seconds:.0f} ms"


class Attempts(list[Attempt]):
    """All sources in order; prints as a table."""

    def __str__(self) -> str:
        return self._table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return page(self._table().html())

    def _table(self) -> Table:
        rows = [
            (Cell("→" if each.chosen else "", "good"), each.source, Cell(each.value, "code"), each.outcome, each.time)
            for each in self
        ]
        return Table(("", "source", "value", "outcome", "time"), rows, numbers=(4,))
