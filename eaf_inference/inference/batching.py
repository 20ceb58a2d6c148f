"""From flat, jagged inputs to dense batches of similar lengths, and back to the user's order.

Rows are sorted by length inside a window, cut into batches within a budget of cells where that pads least, and each
batch padded to its own longest row, rounded up: nothing is padded to a global maximum. Pure functions of arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import BadReply
from eaf_inference.inference import layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.layout import Outer
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["Batch", "DenseInput", "Job", "Lengths", "RaggedInput", "read_outputs"]

_WINDOW = 1024  # rows sorted together: as good as 8,192, and it streams
_MULTIPLE = 8  # padded lengths: a server merges only requests of equal length
_REQUEST = 1 / 8  # of the cell budget: what one more request must save in padding
_LARGEST_DENSE = 4 << 20  # bytes of a request whose shape is fixed


@dataclass(frozen=True, slots=True)
class Lengths:
    """To which length a row is padded.

    `exact` pads nothing beyond `minimum`: only rows of one length share a batch. For models whose scores depend
    on padding.
    """

    minimum: int = 1
    maximum: int | None = None
    exact: bool = False

    def padded(self, longest: int) -> int:
        """The length of a batch whose longest row has this many constituents."""
        least = max(longest, self.minimum)
        if self.exact:
            return least
        length = -(-least // _MULTIPLE) * _MULTIPLE
        return length if self.maximum is None else max(min(length, self.maximum), longest)  # never cut here


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


@dataclass(slots=True, eq=False)
class Batch:
    """Some rows of a job, as they go to the server."""

    job: Job
    rows: NDArray[np.int64] | slice
    size: int
    tensors: list[NDArray[Any]]
    lengths: tuple[int, ...]  # of the job's ragged inputs
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
    """

    def __init__(
        self,
        *,
        inputs: Sequence[RaggedInput | DenseInput],
        outputs: Sequence[TensorSpec],
        outer: Outer,
        max_batch_size: int,
    ) -> None:
        self.inputs = inputs
        self.names = tuple(each.spec.name for each in inputs)  # in the order of a batch's tensors
        self.outer = outer
        self.rows = outer.rows
        self._ragged = [each for each in inputs if isinstance(each, RaggedInput)]
        self._counts: list[NDArray[np.int64]] = []  # once each: the cells of a point are counted once
        for ragged in self._ragged:
            if not any(np.array_equal(ragged.counts, known) for known in self._counts):
                self._counts.append(ragged.counts)
        self.max_batch_size = max_batch_size
        self._left = self.rows
        self._collected = {spec.name: _Collected(spec, self.rows, self._ragged) for spec in outputs}

    @property
    def complete(self) -> bool:
        return self._left == 0

    @property
    def is_ragged(self) -> bool:
        return bool(self._ragged) and self.max_batch_size > 0

    def shortest_first(self) -> NDArray[np.int64]:
        """The rows that are not empty, by length."""
        counts = np.stack([each.counts for each in self._ragged])
        order = np.argsort(counts.sum(axis=0), kind="stable")
        filled: NDArray[np.int64] = order[counts.min(axis=0)[order] > 0]
        return filled

    def shortest_of(self, rows: NDArray[np.int64]) -> int:
        return min(int(each.counts[rows].min()) for each in self._ragged)

    def batches(self, lengths: Lengths, cell_budget: int) -> Iterator[Batch]:
        """The job's rows, each in one batch, made one at a time."""
        if self.max_batch_size == 0:
            alone = lengths if lengths.minimum == lengths.maximum else replace(lengths, exact=True)
            for row in range(self.rows):
                yield self.batch(np.array([row]), alone)
        elif not self._ragged:
            row_bytes = sum(each.rows[:1].nbytes for each in self.inputs if isinstance(each, DenseInput))
            size = min(self.max_batch_size, max(1, _LARGEST_DENSE // max(row_bytes, 1)))
            for start in range(0, self.rows, size):
                yield self.batch(slice(start, min(start + size, self.rows)), lengths)
        else:
            for start in range(0, self.rows, _WINDOW):
                for rows in self._cut(start, min(start + _WINDOW, self.rows), lengths, cell_budget):
                    yield self.batch(rows, lengths)

    def _cut(self, start: int, stop: int, lengths: Lengths, cell_budget: int) -> Iterator[NDArray[np.int64]]:
        """A window's rows in order of length, in groups that hold the budget."""
        counts = np.stack([each[start:stop] for each in self._counts])
        order = np.lexsort(counts) if lengths.exact else np.argsort(counts.sum(axis=0), kind="stable")
        counts = counts[:, order]
        padded = -(-np.maximum(counts, lengths.minimum) // _MULTIPLE) * _MULTIPLE
        cells = np.maximum.accumulate(padded, axis=1).sum(axis=0)
        alike = counts if lengths.exact else cells[None]
        ends = np.append(np.flatnonzero(np.any(np.diff(alike, axis=1) != 0, axis=0)) + 1, len(order))
        most = np.clip(cell_budget // np.maximum(cells[ends - 1], 1), 1, self.max_batch_size)
        joined = range(len(ends)) if lengths.exact else _joined(ends, cells[ends - 1], most, _REQUEST * cell_budget)
        order += start
        first = 0
        for run in joined:
            rows = int(ends[run]) - first
            number = -(-rows // int(most[run]))
            for part in range(number):
                yield order[first + rows * part // number : first + rows * (part + 1) // number]
            first += rows

    def batch(self, rows: NDArray[np.int64] | slice, lengths: Lengths) -> Batch:
        """These rows, padded."""
        padded = tuple(lengths.padded(int(each.counts[rows].max())) for each in self._ragged)
        shared = _Shared()
        position = iter(padded)
        tensors = []
        for each in self.inputs:
            if isinstance(each, DenseInput):
                tensors.append(np.ascontiguousarray(each.rows[rows]))
            else:
                assert isinstance(rows, np.ndarray)  # noqa: S101  (slices are for jobs without ragged inputs)
                tensors.append(each.fill(rows, next(position), shared))
        size = len(tensors[0]) if tensors else 0
        if self.max_batch_size == 0:
            tensors = [tensor[0] for tensor in tensors]
        return Batch(self, rows, size, tensors, padded)

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


class _Collected:
    """One output of one job, while its batches come in."""

    def __init__(self, spec: TensorSpec, rows: int, inputs: Sequence[RaggedInput]) -> None:
        self.spec = spec
        self._rows = rows
        self._axis = 0 if spec.variable_axis is None else 1 + spec.variable_axis  # of a batch's values
        self._jagged = self._axis > 0 and bool(inputs)
        self._inputs = inputs
        self._follows = set(range(len(inputs)))  # the inputs whose lengths it has had in every batch
        self._parts: list[tuple[NDArray[np.int64], NDArray[Any]]] = []
        self._values: NDArray[Any] | None = None
        if spec.variable_axis is None:
            self._values = np.empty((rows, *spec.shape), spec.dtype)

    def put(self, batch: Batch, values: NDArray[Any]) -> None:
        if self._jagged:
            assert isinstance(batch.rows, np.ndarray)  # noqa: S101  (slices are for jobs without ragged inputs)
            replied = values.shape[self._axis]
            self._follows &= {position for position, length in enumerate(batch.lengths) if length == replied}
            self._parts.append((batch.rows, values))
            return
        if self._values is None:
            self._values = np.empty((self._rows, *values.shape[1:]), self.spec.dtype)
        if self._values.shape[1:] != values.shape[1:]:
            raise BadReply(
                f"Output {self.spec.name!r} came in batches of different shapes, {self._values.shape[1:]} and "
                f"{values.shape[1:]}, for inputs of one shape. Pass the inputs as awkward arrays."
            )
        self._values[batch.rows] = values

    def dense(self) -> NDArray[Any]:
        if self._values is None:  # no row at all, or a shape that only a reply tells
            return np.empty((0, *(max(size, 0) for size in self.spec.shape)), self.spec.dtype)
        return self._values

    def nested(self) -> ak.contents.Content:
        if not self._jagged:
            return _regular(self.dense())
        if not self._parts:
            empty = np.empty((0, *(max(size, 0) for size in self.spec.shape)), self.spec.dtype)
            return _trimmed(empty, np.zeros(0, np.int64), self._axis).layout
        order = np.argsort(np.concatenate([rows for rows, _ in self._parts]))
        counts = self._lengths()
        parts = [
            _trimmed(
                values, np.full(len(rows), values.shape[self._axis]) if counts is None else counts[rows], self._axis
            )
            for rows, values in self._parts
        ]
        return ak.to_packed(ak.concatenate(parts)[order]).layout

    def _lengths(self) -> NDArray[np.int64] | None:
        """Of each row, where there is one value a constituent: those of padding are dropped."""
        followed = [self._inputs[position] for position in sorted(self._follows)]
        if any(not np.array_equal(each.counts, followed[0].counts) for each in followed):
            names = " and ".join(repr(each.spec.name) for each in followed)
            raise BadReply(
                f"Output {self.spec.name!r} has the padded lengths of {names}, so that its rows' own lengths are "
                "not known. Pass these inputs as numpy arrays, padded as the model expects."
            )
        return followed[0].counts if followed else None


def _regular(values: NDArray[Any]) -> ak.contents.Content:
    """Lists of one size each; ak.from_numpy cannot tell the sizes of several empty axes."""
    shape = layout.Outer(len(values), values.shape[1:])
    return layout.wrap(ak.contents.NumpyArray(values.reshape(-1)), shape)


def _trimmed(values: NDArray[Any], counts: NDArray[np.int64], axis: int) -> ak.Array:
    """Rows of a padded output, cut to their lengths along the variable axis."""
    inside = values.shape[1:axis]  # lists between the row and the variable axis
    each = np.repeat(counts, int(np.prod(inside)))
    flat = values.reshape(len(each), *values.shape[axis:])
    kept = flat[np.arange(values.shape[axis]) < each[:, None]]
    content = layout.lists(_regular(kept), each)
    for size in reversed(inside):
        content = ak.contents.RegularArray(content, size)
    return ak.Array(content)


def read_outputs(
    reply: Any, specs: Mapping[str, TensorSpec], *, size: int, batched: bool, model: str
) -> dict[str, NDArray[Any]]:
    """The arrays of a ``ModelInferResponse``, each (size, *shape), checked against what the model declares.

    Raises
    ------
    BadReply
        An output is missing, or its data type, shape or number of bytes is not the declared one.
    """
    found: dict[str, NDArray[Any]] = {}
    contents = reply.raw_output_contents
    for position, output in enumerate(reply.outputs):
        spec = specs.get(output.name)
        if spec is None:
            continue
        raw = contents[position] if position < len(contents) else b""
        shape = tuple(output.shape)
        declared = (size, *spec.shape) if batched else spec.shape
        agree = shape == declared or (
            len(shape) == len(declared) and all(want in (-1, got) for got, want in zip(shape, declared, strict=True))
        )
        expected = math.prod(shape) * spec.dtype.itemsize
        if output.datatype != spec.datatype or not agree or min(shape, default=0) < 0 or len(raw) != expected:
            raise BadReply(
                f"The reply of {model!r} is not what the model declares: output {output.name!r} came as "
                f"{output.datatype} {list(shape)} in {len(raw)} bytes. Expected {spec.datatype} {list(declared)} "
                f"in {expected} bytes. The fault is the server's: tell the model's owner."
            )
        values = np.frombuffer(raw, spec.dtype).reshape(shape)
        found[output.name] = values if batched else values[None]
    missing = [name for name in specs if name not in found]
    if missing:
        raise BadReply(f"The reply of {model!r} lacks the outputs {missing}. Tell the model's owner.")
    return found
