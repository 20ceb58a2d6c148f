"""Results that are printed and written after every measurement, so that an interrupted run keeps them."""

from __future__ import annotations

import json
import sys
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Results"]


class Results:
    """Results by part; each part may fail alone.

    Parameters
    ----------
    directory : Path
        Gets ``results.json`` and ``report.txt``.
    seconds : float
        For the whole run; parts ask `left`.
    """

    def __init__(self, directory: Path, seconds: float) -> None:
        self.directory = directory
        self.parts: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self._began = time.monotonic()
        self._seconds = seconds
        self._report = (directory / "report.txt").open("w", encoding="utf-8")

    @property
    def left(self) -> float:
        """Seconds left for the run."""
        return self._seconds - (time.monotonic() - self._began)

    def say(self, line: str = "") -> None:
        """Print a line, and keep it in the report."""
        for file in (sys.stdout, self._report):
            file.write(line + "\n")
            file.flush()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run a part: report its time, and its failure instead of raising it."""
        began = time.monotonic()
        self.say(f"\n== {name} (after {began - self._began:.0f} s)")
        try:
            yield
        except Exception as error:  # noqa: BLE001  (the other parts are worth having)
            self.failures[name] = traceback.format_exc()
            self.say(f"FAILED: {error!r}\n{self.failures[name]}")
        self.keep("seconds", {**self.parts.get("seconds", {}), name: round(time.monotonic() - began, 1)})

    def keep(self, name: str, value: Any) -> None:
        """Keep a part's results, and write all results."""
        self.parts[name] = value
        content = json.dumps({**self.parts, "failures": self.failures}, indent=1, default=str)
        partial = self.directory / "results.partial"
        partial.write_text(content, encoding="utf-8")
        partial.rename(self.directory / "results.json")

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print rows as a table of all their columns."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [columns, *([_text(row.get(column)) for column in columns] for row in rows)]
        widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
        for row in cells:
            self.say("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
