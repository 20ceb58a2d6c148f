"""The columns of an output file: entry numbers, what identifies the events, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_inference.dataset.results import Result

__all__ = ["Columns", "canonical", "columns_in", "columns_of", "joined"]

_ENTRY = "entry"
_SCORES = "scores"
_RESERVED = (_ENTRY, "run", "luminosityBlock", "event")


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows of an output file.

    Attributes
    ----------
    ids : mapping of str to layout
        Entry numbers and the columns that identify events; empty if there is not one score for each entry.
    scores : mapping of str to layout
    rows : int
    """

    ids: Mapping[str, ak.contents.Content]
    scores: Mapping[str, ak.contents.Content]
    rows: int

    def __getitem__(self, rows: slice) -> Columns:
        start, stop, _ = rows.indices(self.rows)
        ids, scores = ({name: each[start:stop] for name, each in group.items()} for group in (self.ids, self.scores))
        return Columns(ids, scores, stop - start)

    @property
    def types(self) -> dict[str, str]:
        return {name: str(each.form.type) for name, each in {**self.ids, **self.scores}.items()}

    def without_ids(self) -> Columns:
        return Columns({}, self.scores, self.rows)

    def allowing(self, other: Columns) -> Columns:
        """Return the same rows in types in which values may be missing wherever they may in the other's."""
        ids, scores = (
            {name: _allowing(each, theirs[name]) if name in theirs else each for name, each in mine.items()}
            for mine, theirs in ((self.ids, other.ids), (self.scores, other.scores))
        )
        return Columns(ids, scores, self.rows)

    def table(self) -> ak.Array:
        """Return the rows as one array of records."""
        columns = {**self.ids, **self.scores}
        return ak.Array(ak.contents.RecordArray([*map(canonical, columns.values())], [*columns], length=self.rows))


def columns_of(result: Result) -> Columns:
    """Return the columns of a part.

    Raises
    ------
    InvalidInput
        The scores have different lengths, or names of other columns; or the part's numbers of entries disagree.
    """
    part, where = result.part, f"Entries {result.part.start} to {result.part.stop} of {result.part.file}"
    named = result.scores if isinstance(result.scores, dict) else {_SCORES: result.scores}
    if taken := [name for name in named if name in _RESERVED]:
        raise InvalidInput(
            f"The scores have the name {taken[0]!r}, which a column of the output has. Expected another."
        )
    scores = {str(name): canonical(_layout(value, where)) for name, value in named.items()}
    lengths = {name: len(each) for name, each in scores.items()}
    if len(set(lengths.values())) != 1:
        raise InvalidInput(f"{where}: the scores have different lengths, {lengths}. Expected the same.")
    [rows] = set(lengths.values())
    if part.stop is None or part.stop - part.start != result.entries:
        raise InvalidInput(f"{where} are {result.entries} entries. Expected as many as the range has.")
    if rows != result.entries or not result.aligned:
        return Columns({}, scores, rows)
    ids = {_ENTRY: ak.contents.NumpyArray(np.arange(part.start, part.stop, dtype=np.int64))}
    for name, values in result.ids.items():
        if len(values) != rows:
            raise InvalidInput(f"{where}: {name} has {len(values)} values. Expected {rows}.")
        ids[name] = canonical(_layout(values, where))
    return Columns(ids, scores, rows)


def columns_in(table: ak.Array) -> Columns:
    """Return the columns of rows that were written before."""
    columns = {name: canonical(table[name].layout) for name in table.fields}
    ids = {name: columns.pop(name) for name in table.fields if name in _RESERVED}
    return Columns(ids, columns, len(table))


def joined(pieces: list[Columns]) -> Columns:
    """Return the rows of several pieces, whose columns have the same names and types."""
    if len(pieces) == 1:
        return pieces[0]
    together = canonical(ak.concatenate([piece.table() for piece in pieces]).layout)
    ids = {name: together.content(name) for name in pieces[0].ids}
    scores = {name: together.content(name) for name in pieces[0].scores}
    return Columns(ids, scores, len(together))


def _layout(value: Any, where: str) -> ak.contents.Content:
    if isinstance(value, np.ndarray) and value.dtype == object:  # strings
        value = ak.from_iter(value.tolist())
    try:
        return ak.to_layout(value, primitive_policy="error", string_policy="error")
    except TypeError as error:
        raise InvalidInput(f"{where}: the scores are {kind_of(value)}. Expected an array.") from error


def _allowing(content: ak.contents.Content, other: ak.contents.Content) -> ak.contents.Content:
    """Allow missing values where another type does; both are canonical."""
    if other.is_option and not content.is_option:
        every = ak.index.Index64(np.arange(len(content)))
        return ak.contents.IndexedOptionArray(every, _allowing(content, other.content))
    inner = other.content if other.is_option and content.is_option else other
    if content.is_option:
        return content.copy(content=_allowing(content.content, inner))
    if content.is_record and inner.is_record and content.fields == inner.fields:
        return content.copy(contents=[*map(_allowing, content.contents, inner.contents)])
    if content.is_list and inner.is_list:
        return content.copy(content=_allowing(content.content, inner.content))
    return content


def canonical(content: ak.contents.Content) -> ak.contents.Content:
    """Return the same array in one form of memory, so that the same values always become the same bytes."""
    parameters = content.parameters
    if content.is_option:
        valid = content.mask_as_bool(valid_when=True)
        index = np.where(valid, np.cumsum(valid) - 1, -1).astype(np.int64)
        inner = canonical(content.project())
        if len(valid) and not (len(inner) or inner.is_unknown):  # awkward's Arrow arrays need something behind None
            inner = canonical(inner.form.length_one_array(highlevel=False))
        return ak.contents.IndexedOptionArray(ak.index.Index64(index), inner, parameters=parameters)
    if content.is_indexed:
        return canonical(content.project())
    if content.is_record:
        length = len(content)
        inner = [canonical(each[:length]) for each in content.contents]
        names = None if content.is_tuple else content.fields
        return ak.contents.RecordArray(inner, names, length=length, parameters=parameters)
    if content.is_regular:
        inner = canonical(content.content[: content.size * len(content)])
        return ak.contents.RegularArray(inner, content.size, zeros_length=len(content), parameters=parameters)
    if content.is_list:
        content = content.to_ListOffsetArray64(start_at_zero=True)
        inner = canonical(content.content[: content.offsets[-1]])
        return ak.contents.ListOffsetArray(content.offsets, inner, parameters=parameters)
    if content.is_numpy and content.purelist_depth > 1:
        return canonical(content.to_RegularArray())
    if content.is_numpy:
        return ak.contents.NumpyArray(np.ascontiguousarray(content.data), parameters=parameters)
    return content
