"""Find the rows of one array that are rows of another, bit for bit.

Rows in the same place are compared first. The others are found by a hash of their numbers and then compared too, so
that two rows with equal hashes are never taken for one another. All of it works on flat arrays, in blocks that bound
the memory. Pure functions of arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.inference.inputs import DenseInput, MatrixInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.graphs import Graphs
    from eaf_inference.inference.inputs import Inputs

__all__ = ["KnownRows", "Rows", "rows_of_graphs", "rows_of_inputs"]

_BLOCK = 1 << 18  # entries that are compared or hashed together
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # of splitmix64
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Flat arrays with a run of entries for each row."""

    columns: Sequence[NDArray[Any]]  # bits, or strings
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Sequence[NDArray[Any]], counts: NDArray[np.int64], starts: Any = None) -> _Part:
        starts = np.cumsum(counts) - counts if starts is None else starts
        return cls([_bits(column) for column in columns], starts, counts)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of some inputs, as they can be compared.

    Attributes
    ----------
    kind : object
        What else the scores depend on; rows of different kinds are never equal.
    number : int
    parts : sequence of _Part
    """

    kind: object
    number: int
    parts: Sequence[_Part]


def rows_of_inputs(inputs: Inputs) -> Rows:
    """Return the rows of a model's inputs."""
    parts: list[_Part] = []
    kind: list[object] = [tuple(each.spec.name for each in one.inputs) for one in inputs.collections]
    for each in inputs.arrays:
        if isinstance(each, DenseInput):
            shape = each.rows.shape[1:]
            parts.append(_Part.of([each.rows.reshape(-1)], np.full(inputs.rows, math.prod(shape))))
            kind.append((each.spec.name, shape, each.rows.dtype.str))
        elif isinstance(each, MatrixInput):
            axes = np.full(inputs.rows, each.shapes.shape[1])
            parts += [_Part.of([each.values], each.numbers), _Part.of([each.shapes.reshape(-1)], axes)]
            kind.append((each.spec.name, "shapes"))
        else:
            parts.append(_Part.of(each.columns, each.counts, each.starts))
            kind.append((each.spec.name, tuple(each.pads), each.length_axis))
    return Rows(tuple(kind), inputs.rows, parts)


def rows_of_graphs(graphs: Graphs) -> Rows:
    """Return graphs as rows."""
    parts = [_Part.of([graphs.edge_index[0], graphs.edge_index[1]], graphs.edges)]
    kind: list[object] = [graphs.edge_index.dtype.str]
    for counts, arrays in ((graphs.nodes, graphs.of_nodes), (graphs.edges, graphs.of_edges)):
        for name, values in arrays.items():
            width = math.prod(values.shape[1:])
            parts += [_Part.of([values.reshape(-1)], counts * width)]
            kind.append((name, values.shape[1:], values.dtype.str))
    parts.append(_Part.of([graphs.nodes], np.ones(len(graphs), np.int64)))
    return Rows(tuple(kind), len(graphs), parts)


class KnownRows:
    """Rows among which others are looked up.

    Parameters
    ----------
    rows : Rows
        Its arrays must stay as they are.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @cached_property
    def _by_hash(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The hashes in order, and the place of each."""
        hashes = _hashes(self._rows, np.arange(self._rows.number))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def places_of(self, rows: Rows) -> NDArray[np.int64]:
        """Return for each row the place of an equal one among the known rows, or -1.

        Of several equal ones it is the one in the same place, or the first.
        """
        places = np.full(rows.number, -1, np.int64)
        if rows.kind != self._rows.kind or not self._rows.number:
            return places
        here = np.arange(min(rows.number, self._rows.number))
        here = here[_equal(rows, here, self._rows, here)]
        places[here] = here
        rest = np.flatnonzero(places < 0)
        if len(rest):
            known, order = self._by_hash
            hashes = _hashes(rows, rest)
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            likely = known[at] == hashes
            rest, at = rest[likely], order[at[likely]]
            same = _equal(rows, rest, self._rows, at)
            places[rest[same]] = at[same]
        return places


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as unsigned integers of the same size, which tell -0 from 0 and one NaN from another."""
    return values if values.dtype == object else values.view(f"u{values.dtype.itemsize}")


def _blocks(rows: Rows, number: int) -> Iterator[slice]:
    """Cut this number of rows into blocks of about as many entries."""
    entries = max((int(part.counts.sum()) for part in rows.parts), default=0)
    size = max(_BLOCK * rows.number // max(entries, 1), 1)
    for start in range(0, number, size):
        yield slice(start, start + size)


def _entries(part: _Part, rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return the places of the entries of some rows; a slice if they follow one another."""
    starts, counts = part.starts[rows], part.counts[rows]
    if not len(rows):
        return slice(0, 0)
    if np.array_equal(starts[1:], starts[:-1] + counts[:-1]):
        return slice(int(starts[0]), int(starts[-1] + counts[-1]))
    first = np.cumsum(counts) - counts
    return np.asarray(np.repeat(starts - first, counts) + np.arange(counts.sum()))


def _over_rows(ufunc: np.ufunc, values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
    """Reduce the values of each row; 0 for rows without any."""
    found = np.zeros(len(counts), values.dtype)
    filled = counts > 0
    if filled.any():  # reduceat takes the next value for an empty row
        found[filled] = ufunc.reduceat(values, (np.cumsum(counts) - counts)[filled])
    return found


def _equal(rows: Rows, own: NDArray[np.int64], known: Rows, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of these rows equal the known ones in these places, bit for bit."""
    equal = np.zeros(len(own), np.bool_)
    for block in _blocks(rows, len(own)):
        mine, theirs = own[block], places[block]
        left = np.arange(len(mine))
        for part, other in zip(rows.parts, known.parts, strict=True):
            left = left[part.counts[mine[left]] == other.counts[theirs[left]]]
            here, there = _entries(part, mine[left]), _entries(other, theirs[left])
            counts = part.counts[mine[left]]
            differing = np.zeros(int(counts.sum()), np.bool_)
            for column, known_column in zip(part.columns, other.columns, strict=True):
                differing |= column[here] != known_column[there]
            left = left[~_over_rows(np.logical_or, differing, counts)]
        equal[block.start + left] = True
    return equal


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit over all bits, as splitmix64 does."""
    values = (values ^ (values >> _SHIFTS[0])) * _MIXERS[0]
    values = (values ^ (values >> _SHIFTS[1])) * _MIXERS[1]
    return np.asarray(values ^ (values >> _SHIFTS[2]))


def _factors(number: int) -> NDArray[np.uint64]:
    """Return odd factors for columns, or for places in a row."""
    return np.asarray(_mixed(np.arange(1, number + 1, dtype=np.uint64) * _FACTOR) | np.uint64(1))


def _hashes(rows: Rows, chosen: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a hash of the bits of each of these rows."""
    hashes = np.zeros(len(chosen), np.uint64)
    for block in _blocks(rows, len(chosen)):
        mine = chosen[block]
        for part in rows.parts:
            counts, entries = part.counts[mine], _entries(part, mine)
            values = np.zeros(int(counts.sum()), np.uint64)
            for column, factor in zip(part.columns, _factors(len(part.columns)), strict=True):
                values += _numbers(column[entries]) * factor
            first = np.cumsum(counts) - counts
            place = np.arange(len(values)) - np.repeat(first, counts)
            values = _mixed(values) * _factors(int(counts.max(initial=0)))[place]
            sums = _over_rows(np.add, values, counts)
            hashes[block] = _mixed(hashes[block] * _FACTOR + sums + counts.astype(np.uint64) * _MIXERS[0])
    return hashes


def _numbers(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return bits, or strings, as numbers of 64 bits."""
    if values.dtype == object:
        return np.fromiter(map(hash, values.tolist()), np.int64, len(values)).view(np.uint64)
    return values.astype(np.uint64)
