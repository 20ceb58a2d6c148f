"""One output that is being written: the parts of its input in order, joined to pieces of one size.

Where a file is cut into parts may depend on the machine, so it must not show in the output: rows are gathered until
there are enough for a piece.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

from eaf_inference.dataset.drafts import Draft
from eaf_inference.dataset.parts import merged
from eaf_inference.dataset.score_columns import Columns, columns_of, joined
from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from eaf_inference.dataset.parts import File, Part
    from eaf_inference.dataset.results import Result

__all__ = ["Format", "Unfinished"]

ROWS = 1 << 16  # of a piece


class Format(Protocol):
    """A file of some format that is being written.

    Attributes
    ----------
    suffix : str
        Of its name.
    must_align : bool
        Whether each entry must have its score.
    """

    suffix: ClassVar[str]
    must_align: ClassVar[bool]

    def __init__(self, file: BinaryIO) -> None: ...

    @staticmethod
    def check(file: File) -> None:
        """Raise InvalidInput if the output of such a file would be wrong."""

    def append(self, columns: Columns) -> None:
        """Write a piece; raises InvalidInput if the format has no such type."""

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Write what made the scores, and all that is still in memory."""

    def abandon(self) -> None:
        """End the writing of a file that will be removed."""

    @staticmethod
    def pieces(path: Path) -> Iterator[Columns]:
        """Read the rows again; only of a format that can hold scores of any type, aligned or not."""

    @staticmethod
    def read_metadata(path: Path) -> dict[str, Any] | None:
        """Return the metadata of a complete file; None if it is not there, damaged, or from another program."""


class Unfinished:
    """The output of one file.

    Attributes
    ----------
    file : File
    digest : str
        Of the input, before its first part was read.
    aligned : bool
        Whether there was one score for each entry so far, in their order.
    entries : int
        Of the input, so far.
    """

    def __init__(self, file: File, target: Path, format: type[Format], digest: str) -> None:  # noqa: A002
        format.check(file)
        self.digest = digest
        self.aligned = True
        self.file = file
        self._target = target
        self._format = format
        self._early: dict[int, Result] = {}  # parts that came before those in front of them
        self._left = deque(merged(file.steps) or [(0, None)])
        self._next = self._left[0][0]
        self._none: Columns | None = None  # no rows, of the type of all so far
        self._empty: Columns | None = None
        self._pieces: list[Columns] = []
        self._waiting = 0  # rows in the pieces
        self.entries = self._rows = 0
        self._open: tuple[Draft, Format] | None = None

    @property
    def complete(self) -> bool:
        """Whether all of the steps were added, or all entries up to the last that came if the file has none."""
        return not self._early and (not self._left or self._left[0][1] is None)

    def add(self, result: Result) -> None:
        """Add a part, or keep it until those in front of it have come.

        Raises
        ------
        InvalidInput
            The scores have another type than those before, or the format cannot hold them.
        """
        if not result.entries:
            self._add(result)
            return
        self._early[result.part.start] = result
        while (following := self._early.get(self._next)) is not None and self._advance(following):
            self._add(self._early.pop(following.part.start))

    def _add(self, result: Result) -> None:
        columns, part = columns_of(result), result.part
        self.entries += result.entries
        self._rows += columns.rows
        if not columns.ids and self.aligned:
            self._drop_ids()
        if not self.aligned:
            columns = columns.without_ids()
        if not columns.rows:
            self._empty = columns
            return
        if self._none is not None and self._none.types != columns.types:
            columns = self._of_one_type(columns, part)
        self._none = columns[:0]
        self._pieces.append(columns)
        self._waiting += columns.rows
        if self._waiting >= ROWS:
            self._flush()

    def finish(self, facts: Mapping[str, Any]) -> int:
        """Write the rest and what made it, give the file its name, and return its size in bytes."""
        while self._waiting:
            self._flush()
        if self._open is None:
            if self._empty is None:
                raise InvalidInput(f"{self.file} has no scores. Expected at least one part, if only without entries.")
            self._append(self._empty if self.aligned else self._empty.without_ids())
        draft, output = self._opened()
        ranges = merged(self.file.steps) or [(0, self.entries)]
        counts = {"ranges": ranges, "entries": self.entries, "scores": self._rows, "aligned": self.aligned}
        output.finish({**facts, **counts})
        return draft.publish()

    def discard(self) -> None:
        """Remove what was written; does nothing after `finish`."""
        if self._open is not None:
            draft, output = self._open
            output.abandon()
            draft.discard()

    def _advance(self, result: Result) -> bool:
        """Move on by the entries of the next part, if they do not reach beyond a step."""
        end = self._left[0][1] if self._left else self._next
        stop = result.part.start + result.entries
        if end is not None and stop > end:
            return False
        self._next = stop
        if stop == end:
            self._left.popleft()
            self._next = self._left[0][0] if self._left else stop
        return True

    def _flush(self) -> None:
        """Write pieces of the right size, or the last one, which may be smaller."""
        rows = joined(self._pieces)
        start = 0
        while rows.rows - start >= ROWS or start == 0:
            self._append(rows[start : start + ROWS])
            start += ROWS
        rest = rows[start:]
        self._pieces, self._waiting = [rest] * bool(rest.rows), rest.rows

    def _append(self, columns: Columns) -> None:
        _, output = self._opened()
        try:
            output.append(columns)
        except InvalidInput as error:
            raise InvalidInput(f"{self.file}: {error}") from error

    def _opened(self) -> tuple[Draft, Format]:
        if self._open is None:
            draft = Draft(self._target)
            self._open = draft, self._format(draft.file)
        return self._open

    def _drop_ids(self) -> None:
        """Go on without entry numbers, and remove them from what was written."""
        if self._format.must_align:
            raise InvalidInput(
                f"{self.file}: there is not one score for each entry, in their order, so a friend tree would be "
                "wrong. Expected `select` to keep all entries and their order, for example with ak.mask, which puts "
                "None in place of an entry; or write format='parquet'."
            )
        self.aligned = False
        self._none = self._none and self._none.without_ids()
        self._change(Columns.without_ids)

    def _of_one_type(self, columns: Columns, part: Part) -> Columns:
        """Allow missing values in all parts if any of them has some."""
        assert self._none is not None  # noqa: S101  (for the type checker)
        columns, none = columns.allowing(self._none), self._none.allowing(columns)
        if none.types != columns.types:
            raise InvalidInput(
                f"{self.file}: the scores of entries {part.start} to {part.stop} have the types {columns.types}, and "
                f"those before have {none.types}. Expected one type in a file, whatever the data."
            )
        if none.types != self._none.types:
            if self._format.must_align:
                raise InvalidInput(
                    f"{self.file}: scores of entries {part.start} to {part.stop} are missing, which a branch of a "
                    "ROOT tree cannot hold. Write format='parquet', which can, or change the scores before: "
                    "ak.fill_none."
                )
            self._change(lambda piece: piece.allowing(none))
        return columns

    def _change(self, change: Callable[[Columns], Columns]) -> None:
        """Change the pieces, and those that were written."""
        self._pieces = [change(piece) for piece in self._pieces]
        if self._open is None:
            return
        draft, output = self._open
        try:
            output.finish({})
            draft.file.flush()
            self._open = None
            for piece in self._format.pieces(draft.path):
                self._append(change(piece))
        finally:
            draft.discard()
