"""Cut jagged inputs into dense batches of rows of similar length.

Rows are sorted by length inside a window and cut where that pads least, within a budget of cells. Each batch is
padded to its own longest row, rounded up, and never to a global maximum. Pure functions of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.inference.inputs import DenseInput, MatrixInput
from eaf_inference.inference.matrices import alike
from eaf_inference.inference.wire import sent_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.inputs import Inputs, RaggedInput
    from eaf_inference.inference.lengths import Lengths
    from eaf_inference.inference.tuning import Shape, Sizes

__all__ = ["Batch", "batch_of", "batches"]

_WINDOW = 1024, 1 << 14  # the fewest and the most rows sorted together


@dataclass(slots=True, eq=False)
class Batch:
    """Some rows as they go to the server."""

    inputs: Inputs
    rows: NDArray[np.int64] | slice
    size: int
    tensors: list[NDArray[Any]]
    lengths: tuple[int, ...]  # one for each collection of the inputs
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = sum(map(sent_size, self.tensors))

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' names, in the order of the tensors."""
        return self.inputs.names

    @property
    def remark(self) -> str:
        """What a message says besides the model's name."""
        empty = [
            repr(each.spec.name)
            for length, collection in zip(self.lengths, self.inputs.collections, strict=True)
            for each in collection.inputs
            if length == 0
        ]
        return f", rows of length 0 in {', '.join(empty)}" if empty else ""

    @property
    def cells(self) -> float:
        """Rows × padded length, summed over collections."""
        if not self.lengths:
            return self.nbytes / self.inputs.cell_bytes
        return self.size * float(self.inputs.weights @ self.lengths)

    def halves(self) -> tuple[Batch, ...]:
        """Return two batches with half the rows each; none of one row, or if the model takes no other size."""
        middle = self.size // 2
        if not middle or self.inputs.max_batch_size == 0 or self.inputs.batch_sizes:
            return ()
        rows: tuple[NDArray[np.int64] | slice, NDArray[np.int64] | slice]
        if isinstance(self.rows, slice):
            start, stop = self.rows.start, self.rows.stop
            rows = (slice(start, start + middle), slice(start + middle, stop))
        else:
            rows = (self.rows[:middle], self.rows[middle:])
        first = [tensor[:middle] for tensor in self.tensors]
        last = [tensor[middle:] for tensor in self.tensors]
        return (
            Batch(self.inputs, rows[0], middle, first, self.lengths),
            Batch(self.inputs, rows[1], self.size - middle, last, self.lengths),
        )


def batches(inputs: Inputs, lengths: Sequence[Lengths], shape: Sizes) -> Iterator[Batch]:
    """Put each row into one batch, and make the batches one at a time.

    Parameters
    ----------
    inputs : Inputs
    lengths : sequence of Lengths
        One for each collection.
    shape : callable
        Returns how to cut the next rows.
    """
    if inputs.max_batch_size == 0:
        for row in range(inputs.rows):
            yield batch_of(inputs, np.array([row]), lengths)
    elif inputs.matrices:
        for rows in alike(inputs, lengths, shape(inputs.cell_bytes).cells):
            yield batch_of(inputs, rows, lengths)
    elif not inputs.collections:
        row_bytes = sum(each.row_bytes for each in inputs.arrays if isinstance(each, DenseInput))
        start = 0
        while start < inputs.rows:
            cells = shape(inputs.cell_bytes, dense=True).cells
            stop = min(start + int(inputs.most_rows(int(cells * inputs.cell_bytes / max(row_bytes, 1)))), inputs.rows)
            yield batch_of(inputs, slice(start, stop), lengths)
            start = stop
    else:
        start = 0
        while start < inputs.rows:
            now = shape(inputs.cell_bytes)
            rules = _mergeable(inputs, start, lengths, now)
            stop = _end_of_window(inputs, start, rules, now)
            for rows in _cut(inputs, start, stop, rules, now):
                yield batch_of(inputs, rows, rules)
            start = stop


def _end_of_window(inputs: Inputs, start: int, lengths: Sequence[Lengths], shape: Shape) -> int:
    """Return the end of the rows that are sorted together: enough for some batches, each of similar lengths."""
    fewest, most = _WINDOW
    batch = shape.cells / _cells_of_next(inputs, start, lengths)
    rows = int(shape.batches * min(batch, inputs.max_batch_size))
    if not shape.first:
        rows = max(rows, fewest)
    rows = min(max(rows, 1), most)
    if inputs.merged:  # whole batches of a preferred size
        size = int(inputs.most_rows(int(batch)))
        rows = max(rows - rows % size, size)
    return min(start + rows, inputs.rows)


def _cells_of_next(inputs: Inputs, start: int, lengths: Sequence[Lengths]) -> float:
    """Return the mean cells of the next rows, each padded as if it were alone."""
    rows = slice(start, start + _WINDOW[0])
    padded = [rule.padded(each.counts[rows]) for rule, each in zip(lengths, inputs.collections, strict=True)]
    return max(float((inputs.weights @ np.stack(padded)).mean()), 1.0)


def _mergeable(inputs: Inputs, start: int, lengths: Sequence[Lengths], shape: Shape) -> Sequence[Lengths]:
    """Pad to fewer lengths where many wait for a server that merges requests: it merges those of equal shape only.

    That pays if a batch leaves room for others, and as long as the padding costs less than half a request.
    """
    if not shape.crowded or inputs.merged is None:
        return lengths
    rows = min(shape.cells / _cells_of_next(inputs, start, lengths), inputs.rows - start)
    if 2 * rows > inputs.max_batch_size:
        return lengths
    return [rule.coarser(shape.request / max(2 * rows, 1)) for rule in lengths]


def batch_of(inputs: Inputs, rows: NDArray[np.int64] | slice, lengths: Sequence[Lengths]) -> Batch:
    """Make one batch of these rows, padded, with copies of the last row if the model takes no batch of this size."""
    size = len(rows) if isinstance(rows, np.ndarray) else rows.stop - rows.start
    own = rows
    if inputs.batch_sizes:
        rows = inputs.filled(np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows)
    padded = tuple(
        int(rule.padded(int(each.counts[rows].max(initial=0))))
        for rule, each in zip(lengths, inputs.collections, strict=True)
    )
    length_of = {
        each.spec.name: length
        for length, collection in zip(padded, inputs.collections, strict=True)
        for each in collection.inputs
    }
    shared = _Shared()
    tensors = []
    for each in inputs.arrays:
        if isinstance(each, DenseInput):
            chosen = each.rows[rows]  # of a slice a view; a retry sends it again, and callers reuse their arrays
            tensors.append(np.array(chosen, order="C") if isinstance(rows, slice) else np.ascontiguousarray(chosen))
            continue
        assert isinstance(rows, np.ndarray)  # noqa: S101  (slices are for dense inputs alone)
        if isinstance(each, MatrixInput):
            tensors.append(each.gathered(rows))
        else:
            tensors.append(_filled(each, rows, length_of[each.spec.name], shared))
    if inputs.max_batch_size == 0:
        tensors = [tensor[0] for tensor in tensors]
    return Batch(inputs, own, size, tensors, padded)


@dataclass(slots=True, eq=False)
class _Shared:
    """What the inputs of one batch have in common, by the identity of the arrays it is made of."""

    places: dict[tuple[int, int, int], tuple[NDArray[np.int64], int, NDArray[np.bool_]]] = field(default_factory=dict)
    channels: dict[tuple[tuple[int, int, int], int, float], NDArray[Any]] = field(default_factory=dict)


def _filled(ragged: RaggedInput, rows: NDArray[np.int64], length: int, shared: _Shared) -> NDArray[Any]:
    """Fill the dense tensor of some rows."""
    place = (id(ragged.starts), id(ragged.counts), length)
    if place not in shared.places:
        counts = ragged.counts[rows]
        shortest = int(counts.min(initial=length))
        shared.places[place] = ragged.starts[rows], shortest, np.arange(shortest, length) >= counts[:, None]
    starts, shortest, padding = shared.places[place]  # no row is padded before the shortest row's end
    end = int(starts.max(initial=0)) + length
    spec = ragged.spec
    buffer = np.empty((len(rows), *ragged.shape(length)), spec.dtype)
    # a view of the same memory: besides the constituents, at most one axis is longer than 1
    last = buffer.swapaxes(1 + ragged.length_axis, -1)
    channels = last.reshape(len(rows), len(ragged.columns), length)
    for channel, (column, pad) in enumerate(zip(ragged.columns, ragged.pads, strict=True)):
        target = channels[:, channel]
        key = (place, id(column), pad)
        if key in shared.channels:
            target[...] = shared.channels[key]
            continue
        if end <= len(column):
            target[...] = _windows(column, length)[starts]  # whole rows; values past their ends are padded over
        elif len(column):  # the column ends before the padded length does
            target[...] = column.take(starts[:, None] + np.arange(length), mode="clip")
        np.copyto(target[:, shortest:], spec.dtype.type(pad), where=padding)
        shared.channels[key] = target
    return buffer


def _windows(column: NDArray[Any], length: int) -> NDArray[Any]:
    """Return all runs of `length` values, each starting one value later, without a copy."""
    column = np.ascontiguousarray(column)
    starts = len(column) - length + 1
    windows: NDArray[Any] = np.ndarray((starts, length), column.dtype, column, strides=column.strides * 2)
    return windows


def _cut(
    inputs: Inputs, start: int, stop: int, lengths: Sequence[Lengths], shape: Shape
) -> Iterator[NDArray[np.int64]]:
    """Cut a window of rows into groups that keep the budget, each of rows that may share a batch."""
    counts = np.stack([each.counts[start:stop] for each in inputs.collections])
    apart = np.stack([rule.apart(own) for rule, own in zip(lengths, counts, strict=True)])
    padded = np.stack([rule.padded(own) for rule, own in zip(lengths, counts, strict=True)])
    cells = padded * inputs.weights[:, None]  # of each row in each collection
    order = np.lexsort(apart)
    groups = np.flatnonzero(np.any(np.diff(apart[:, order], axis=1) != 0, axis=0)) + 1
    for first, last in pairwise((0, *groups.tolist(), len(order))):
        rows = order[first:last]
        for part in _cut_alike(cells[:, rows], counts[:, rows], shape, inputs):
            yield start + rows[part]


def _cut_alike(
    cells: NDArray[np.float64], counts: NDArray[np.int64], shape: Shape, inputs: Inputs
) -> list[NDArray[np.int64]]:
    """Cut rows that may all share a batch.

    Rows with one collection are sorted by length and cut where that costs least. With several, no single order serves
    them all, so they are also split in two again and again; the cheaper of both is taken.
    """
    total = cells.sum(axis=0)
    by_length = np.lexsort((counts.sum(axis=0), total)) if len(cells) > 1 else np.argsort(counts[0], kind="stable")
    by_length_cut = _cut_sorted(by_length, cells, shape, inputs)
    if inputs.merged or len(cells) == 1 or np.count_nonzero(cells.std(axis=1)) < 2:
        return by_length_cut
    cuts = by_length_cut, _cut_in_two(cells, shape, inputs)
    return min(cuts, key=lambda cut: sum(shape.request + _cells_of(cells[:, rows]) for rows in cut))


def _cells_of(cells: NDArray[np.float64]) -> float:
    """Return the cells of a batch of these rows."""
    return float(cells.shape[1] * cells.max(axis=1).sum())


def _cut_in_two(cells: NDArray[np.float64], shape: Shape, inputs: Inputs) -> list[NDArray[np.int64]]:
    """Split rows by the collection and at the length where that saves most, until nothing is saved."""
    kind = np.zeros(cells.shape[1], np.int64)  # of each row: rows of one kind have the same padded lengths
    for own in cells:
        values, place = np.unique(own, return_inverse=True)
        kind = kind * len(values) + place
    _, example, kind, number = np.unique(kind, return_index=True, return_inverse=True, return_counts=True)

    def requests(rows: Any, length: Any) -> Any:
        return np.ceil(rows / inputs.most_rows(shape.cells // np.maximum(length, 1)))

    def cost(rows: Any, length: Any) -> Any:
        return rows * length + shape.request * requests(rows, length)

    parts: list[NDArray[np.int64]] = []
    left = [np.arange(len(example))]
    while left:
        kinds = left.pop()
        lengths, rows = cells[:, example[kinds]], number[kinds]
        whole = lengths.max(axis=1).sum()
        least, halves = cost(rows.sum(), whole), None
        for own in lengths if len(kinds) > 1 else ():
            order = np.argsort(own, kind="stable")
            sorted_lengths, before = lengths[:, order], np.cumsum(rows[order])
            below = np.maximum.accumulate(sorted_lengths, axis=1).sum(axis=0)[:-1]
            above = np.maximum.accumulate(sorted_lengths[:, ::-1], axis=1).sum(axis=0)[-2::-1]
            costs = cost(before[:-1], below) + cost(before[-1] - before[:-1], above)
            at = costs.argmin()
            if costs[at] < least:
                least, halves = costs[at], (kinds[order[: at + 1]], kinds[order[at + 1 :]])
        if halves is not None:
            left += halves
            continue
        here = np.zeros(len(example), np.bool_)
        here[kinds] = True
        parts += np.array_split(np.flatnonzero(here[kind]), int(requests(rows.sum(), whole)))
    return parts


def _cut_sorted(
    order: NDArray[np.int64], cells: NDArray[np.float64], shape: Shape, inputs: Inputs
) -> list[NDArray[np.int64]]:
    """Cut rows in this order, and return the rows of each batch."""
    own = np.maximum.accumulate(cells[:, order], axis=1).sum(axis=0)
    if inputs.merged:  # to exactly the sizes that the server prefers, the longest rows first
        exact, stop = [], len(order)
        while stop:
            size = int(inputs.most_rows(int(shape.cells // max(own[stop - 1], 1))))
            exact.append(order[max(stop - size, 0) : stop])
            stop = max(stop - size, 0)
        return exact
    ends = np.append(np.flatnonzero(np.diff(own)) + 1, len(own))
    most = inputs.most_rows(shape.cells // np.maximum(own[ends - 1], 1))
    first = 0
    parts: list[NDArray[np.int64]] = []
    for run in _joined(ends, own[ends - 1], most, shape.request):
        rows = int(ends[run]) - first
        number = -(-rows // int(most[run]))
        parts += [order[first + rows * at // number : first + rows * (at + 1) // number] for at in range(number)]
        first += rows
    return parts


def _joined(
    ends: NDArray[np.int64], cells: NDArray[np.float64], most: NDArray[np.int64], request: float
) -> list[int]:
    """Join runs of rows that are best padded to one length, and return the last run of each group.

    Dynamic programming over the runs' ends: the least cost of all rows before each follows from those before it.

    Parameters
    ----------
    ends, cells, most : array
        For each run of rows of equal length, shortest first: where it ends, the cells of a row, and the most
        such rows in a batch.
    request : float
        The cost of a request besides its cells, in cells.
    """
    rows = ends - np.append(0, ends[:-1])[:, None]  # from the start of one run to the end of another
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
