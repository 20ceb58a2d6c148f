"""From flat, jagged inputs to dense batches of similar lengths, and back to the user's order.

Rows are sorted by length inside a window, cut into batches within a budget of cells where that pads least, and each
batch padded to its own longest row, rounded up: nothing is padded to a global maximum. Pure functions of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.inference.outputs import Collected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import awkward as ak
    from numpy.typing import NDArray

    from eaf_inference.inference.layout import Outer
    from eaf_inference.inference.lengths import Lengths
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["Batch", "Collection", "DenseInput", "Given", "Job", "RaggedInput"]

_WINDOW = 1024  # rows sorted together: as good as 8,192, and it streams
_REQUEST = 1 / 8  # of the cell budget: what one more request must save in padding
_LARGEST_DENSE = 4 << 20  # bytes of a request whose shape is fixed


@dataclass(slots=True, eq=False)
class _Shared:
    """What the inputs of one batch have in common, by the identity of the arrays that it is made of."""

    places: dict[tuple[int, int, int], tuple[NDArray[np.int64], int, NDArray[np.bool_]]] = field(default_factory=dict)
    channels: dict[tuple[tuple[int, int, int], int, float], NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class RaggedInput:
    """A jagged input: flat channels that share one set of lengths."""

    spec: TensorSpec
    columns: Sequence[NDArray[Any]]  # each (total,), of the input's dtype
    pads: Sequence[float]
    starts: NDArray[np.int64]  # of each row in the columns
    counts: NDArray[np.int64]

    def fill(self, rows: NDArray[np.int64], length: int, shared: _Shared) -> NDArray[Any]:
        """The dense tensor of some rows."""
        place = (id(self.starts), id(self.counts), length)
        if place not in shared.places:
            counts = self.counts[rows]
            shortest = int(counts.min(initial=length))
            shared.places[place] = self.starts[rows], shortest, np.arange(shortest, length) >= counts[:, None]
        starts, shortest, padding = shared.places[place]  # nothing is padded before the shortest row's end
        end = int(starts.max(initial=0)) + length
        shape = tuple(length if size == -1 else size for size in self.spec.shape)
        buffer = np.empty((len(rows), *shape), self.spec.dtype)
        if len(shape) == 1:
            channels = buffer[:, None]
        else:
            channels = buffer.swapaxes(1, 2) if self.spec.variable_axis == 0 else buffer
        for channel, (column, pad) in enumerate(zip(self.columns, self.pads, strict=True)):
            target = channels[:, channel]
            key = (place, id(column), pad)
            if key in shared.channels:
                target[...] = shared.channels[key]
                continue
            if end <= len(column):
                target[...] = _windows(column, length)[starts]  # whole rows; what is behind their ends is padded over
            elif len(column):  # the column's last row ends before the padding does
                target[...] = column.take(starts[:, None] + np.arange(length), mode="clip")
            np.copyto(target[:, shortest:], self.spec.dtype.type(pad), where=padding)
            shared.channels[key] = target
        return buffer


def _windows(column: NDArray[Any], length: int) -> NDArray[Any]:
    """All runs of so many values, one value apart, without a copy."""
    column = np.ascontiguousarray(column)
    starts = len(column) - length + 1
    windows: NDArray[Any] = np.ndarray((starts, length), column.dtype, column, strides=column.strides * 2)
    return windows


@dataclass(frozen=True, slots=True, eq=False)
class DenseInput:
    """An input whose rows all have the declared shape."""

    spec: TensorSpec
    rows: NDArray[Any]  # (rows, *shape), of the input's dtype


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """The jagged inputs of a job whose rows have the same lengths."""

    inputs: tuple[RaggedInput, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The caller's own numbers, before a recipe: what tells whose fault a score is that is not finite."""

    columns: Sequence[NDArray[Any]]  # each (total,), or (rows, …) where there are no counts
    counts: NDArray[np.int64] | None = None

    def finite(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows have finite numbers alone."""
        found = np.ones(len(rows), np.bool_)
        ends = None if self.counts is None else np.cumsum(self.counts)
        for column in self.columns:
            if column.dtype.kind != "f":
                continue
            if ends is None:
                found &= np.isfinite(column[rows].reshape(len(rows), -1)).all(axis=1)
            else:
                wrong = np.append(0, np.cumsum(~np.isfinite(column)))
                found &= wrong[ends[rows]] == wrong[ends[rows] - self.counts[rows]]  # type: ignore[index]
        return found


@dataclass(slots=True, eq=False)
class Batch:
    """Some rows of a job, as they go to the server."""

    job: Job
    rows: NDArray[np.int64] | slice
    size: int
    tensors: list[NDArray[Any]]
    lengths: tuple[int, ...]  # of the job's collections
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors)


class Job:
    """One array of a caller's: its inputs cut into batches, its outputs collected.

    Parameters
    ----------
    inputs : sequence of RaggedInput or DenseInput
        In the order of the request.
    outputs : sequence of TensorSpec
    outer : Outer
        The lists around the rows.
    max_batch_size : int
        0: no batch axis, one request a row.
    given : sequence of Given, optional
        The caller's numbers, where the inputs were computed from them.
    part_of : Job, optional
        Whose collections this job has too, also where a few rows happen to have the same lengths.

    Attributes
    ----------
    collections : tuple of Collection
        The jagged inputs by their lengths; rules about lengths come in this order.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[RaggedInput | DenseInput],
        outputs: Sequence[TensorSpec],
        outer: Outer,
        max_batch_size: int,
        given: Sequence[Given] | None = None,
        part_of: Job | None = None,
    ) -> None:
        self.inputs = inputs
        self.names = tuple(each.spec.name for each in inputs)  # in the order of a batch's tensors
        self.outputs = outputs
        self.outer = outer
        self.rows = outer.rows
        ragged = [each for each in inputs if isinstance(each, RaggedInput)]
        self.collections = _collections(ragged) if part_of is None else _same_collections(ragged, part_of)
        self.max_batch_size = max_batch_size
        self._given = _given(inputs) if given is None else given
        self._left = self.rows
        self._collected = {spec.name: Collected(spec, self.rows, self.collections) for spec in outputs}

    @property
    def complete(self) -> bool:
        return self._left == 0

    @property
    def is_ragged(self) -> bool:
        return bool(self.collections) and self.max_batch_size > 0

    def batches(self, lengths: Sequence[Lengths], cell_budget: int) -> Iterator[Batch]:
        """The job's rows, each in one batch, made one at a time.

        Parameters
        ----------
        lengths : sequence of Lengths
            Of each collection.
        cell_budget : int
            The most rows × padded length of a batch of several rows.
        """
        if self.max_batch_size == 0:
            for row in range(self.rows):
                yield self.batch(np.array([row]), lengths)
        elif not self.collections:
            row_bytes = sum(each.rows[:1].nbytes for each in self.inputs if isinstance(each, DenseInput))
            size = min(self.max_batch_size, max(1, _LARGEST_DENSE // max(row_bytes, 1)))
            for start in range(0, self.rows, size):
                yield self.batch(slice(start, min(start + size, self.rows)), lengths)
        else:
            for start in range(0, self.rows, _WINDOW):
                for rows in self._cut(start, min(start + _WINDOW, self.rows), lengths, cell_budget):
                    yield self.batch(rows, lengths)

    def _cut(
        self, start: int, stop: int, lengths: Sequence[Lengths], cell_budget: int
    ) -> Iterator[NDArray[np.int64]]:
        """A window's rows in order of length, in groups that hold the budget and share what has to be shared."""
        counts = np.stack([each.counts[start:stop] for each in self.collections])
        apart = np.stack([rule.apart(own) for rule, own in zip(lengths, counts, strict=True)])
        order = np.lexsort((counts.sum(axis=0), *apart))
        counts, apart = counts[:, order], apart[:, order]
        groups = np.flatnonzero(np.any(np.diff(apart, axis=1) != 0, axis=0)) + 1
        order += start
        for first, last in pairwise((0, *groups.tolist(), len(order))):
            for rows in self._cut_alike(counts[:, first:last], lengths, cell_budget):
                yield order[first:last][rows]

    def _cut_alike(self, counts: NDArray[np.int64], lengths: Sequence[Lengths], cell_budget: int) -> Iterator[slice]:
        """The same for rows, shortest first, that may all share a batch."""
        padded = np.stack([rule.padded(own) for rule, own in zip(lengths, counts, strict=True)])
        cells = np.maximum.accumulate(padded, axis=1).sum(axis=0)
        ends = np.append(np.flatnonzero(np.diff(cells)) + 1, len(cells))
        most = np.clip(cell_budget // np.maximum(cells[ends - 1], 1), 1, self.max_batch_size)
        first = 0
        for run in _joined(ends, cells[ends - 1], most, _REQUEST * cell_budget):
            rows = int(ends[run]) - first
            number = -(-rows // int(most[run]))
            for part in range(number):
                yield slice(first + rows * part // number, first + rows * (part + 1) // number)
            first += rows

    def batch(self, rows: NDArray[np.int64] | slice, lengths: Sequence[Lengths]) -> Batch:
        """These rows, padded."""
        padded = tuple(
            int(rule.padded(int(each.counts[rows].max(initial=0))))
            for rule, each in zip(lengths, self.collections, strict=True)
        )
        length_of = {
            each.spec.name: length
            for length, collection in zip(padded, self.collections, strict=True)
            for each in collection.inputs
        }
        shared = _Shared()
        tensors = []
        for each in self.inputs:
            if isinstance(each, DenseInput):
                tensors.append(np.ascontiguousarray(each.rows[rows]))
            else:
                assert isinstance(rows, np.ndarray)  # noqa: S101  (slices are for jobs without ragged inputs)
                tensors.append(each.fill(rows, length_of[each.spec.name], shared))
        size = len(tensors[0]) if tensors else 0
        if self.max_batch_size == 0:
            tensors = [tensor[0] for tensor in tensors]
        return Batch(self, rows, size, tensors, padded)

    def unexplained(self) -> int:
        """The number of rows with a NaN or an infinity in their scores and none in the caller's numbers."""
        rows = np.flatnonzero(np.any([each.not_finite() for each in self._collected.values()], axis=0))
        for given in self._given if len(rows) else ():
            rows = rows[given.finite(rows)]
        return len(rows)

    def expect(self, followers: Sequence[frozenset[tuple[str, int]] | None]) -> None:
        """Take what is known of the outputs that have one value a constituent.

        Parameters
        ----------
        followers : sequence of frozenset of (str, int) or None
            Of each collection, the outputs and their axes whose length may be its; None where nothing is known.
        """
        for at, known in enumerate(followers):
            if known is not None:
                for collected in self._collected.values():
                    collected.restrict(at, known)

    def collect(self, batch: Batch, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Put a batch's outputs, (size, *shape) each, to their rows."""
        for name, values in outputs.items():
            self._collected[name].put(batch, values)
        self._left -= batch.size

    def dense(self, name: str) -> NDArray[Any]:
        """An output as one array, (rows, *shape)."""
        return self._collected[name].dense()

    def nested(self, name: str) -> ak.contents.Content:
        """An output as the content of the outer lists, one entry a row."""
        return self._collected[name].nested()


def _collections(inputs: Sequence[RaggedInput]) -> tuple[Collection, ...]:
    """Inputs whose rows have the same lengths, together."""
    found: list[list[RaggedInput]] = []
    for each in inputs:
        known = next((group for group in found if np.array_equal(group[0].counts, each.counts)), None)
        if known is None:
            found.append([each])
        else:
            known.append(each)
    return tuple(Collection(tuple(group), group[0].counts) for group in found)


def _same_collections(inputs: Sequence[RaggedInput], job: Job) -> tuple[Collection, ...]:
    by_name = {each.spec.name: each for each in inputs}
    groups = [tuple(by_name[each.spec.name] for each in one.inputs) for one in job.collections]
    return tuple(Collection(group, group[0].counts) for group in groups)


def _given(inputs: Sequence[RaggedInput | DenseInput]) -> list[Given]:
    """The inputs as the caller's own numbers."""
    return [
        Given([each.rows]) if isinstance(each, DenseInput) else Given(each.columns, each.counts) for each in inputs
    ]


def _joined(ends: NDArray[np.int64], cells: NDArray[np.int64], most: NDArray[np.int64], request: float) -> list[int]:
    """The last run of each group of runs whose rows are best padded to one length.

    Dynamic programming over the runs' ends: the least cost of all rows before each is known from those before it.

    Parameters
    ----------
    ends, cells, most : array of int64
        Of each run of rows of equal length, shortest first: where it ends, the cells of a row, and how many such rows
        a batch may have.
    request : float
        What a request costs besides its cells, in cells.
    """
    rows = ends - np.append(0, ends[:-1])[:, None]  # of all runs from one to another
    cost = rows * cells + request * -(-rows // most)
    least = np.zeros(len(ends) + 1)  # of all runs before each
    previous = np.zeros(len(ends), np.int64)
    for run in range(len(ends)):
        costs = least[: run + 1] + cost[: run + 1, run]
        previous[run] = best = costs.argmin()
        least[run + 1] = costs[best]
    last = [len(ends) - 1]
    while previous[last[-1]] > 0:
        last.append(int(previous[last[-1]]) - 1)
    return last[::-1]
