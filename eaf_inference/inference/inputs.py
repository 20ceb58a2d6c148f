"""The inputs of one array's rows, flat as they are prepared for batching.

A row is one inference: a jet, or an event. The arrays are shared, never copied, until a batch is filled.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eaf_inference.inference.wire import sent_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

__all__ = ["AnyInput", "CallerValues", "Collection", "DenseInput", "Inputs", "MatrixInput", "RaggedInput"]

_CELL = 64  # bytes of a cell, if the shape of a row is fixed


@dataclass(frozen=True, slots=True, eq=False)
class CallerValues:
    """The caller's own numbers, before a recipe is applied: they distinguish bad data from a bad model."""

    columns: Sequence[NDArray[Any]]  # each (total,), or (rows, …) if there are no counts
    counts: NDArray[np.int64] | None = None

    def finite(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of these rows have only finite numbers."""
        found = np.ones(len(rows), np.bool_)
        ends = None if self.counts is None else np.cumsum(self.counts)
        for column in self.columns:
            if column.dtype.kind != "f":
                continue
            if ends is None:
                found &= np.isfinite(column[rows]).reshape(len(rows), math.prod(column.shape[1:])).all(axis=1)
            else:
                wrong = np.append(0, np.cumsum(~np.isfinite(column)))
                found &= wrong[ends[rows]] == wrong[ends[rows] - self.counts[rows]]  # type: ignore[index]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class RaggedInput:
    """A jagged input: flat channels that share one set of lengths."""

    spec: TensorSpec
    columns: Sequence[NDArray[Any]]  # each (total,), of the input's dtype
    pads: Sequence[float]
    starts: NDArray[np.int64]  # of each row in the columns
    counts: NDArray[np.int64]
    axis: int | None = None  # of the constituents in the input's shape, if it is not the one of variable size

    @property
    def caller_values(self) -> CallerValues:
        """The input as the caller's own numbers."""
        return CallerValues(self.columns, self.counts)

    def shape(self, length: int) -> tuple[int, ...]:
        """Return the shape of a row of this length."""
        return tuple(length if at == self.length_axis else size for at, size in enumerate(self.spec.shape))

    @property
    def length_axis(self) -> int:
        """The axis of the constituents in the input's shape."""
        variable = self.spec.variable_axis
        if variable is not None:
            return variable
        return len(self.spec.shape) - 1 if self.axis is None else self.axis


@dataclass(frozen=True, slots=True, eq=False)
class DenseInput:
    """An input whose rows all have the declared shape."""

    spec: TensorSpec
    rows: NDArray[Any]  # (rows, *shape), of the input's dtype

    @property
    def caller_values(self) -> CallerValues:
        """The input as the caller's own numbers."""
        return CallerValues([self.rows])

    @property
    def row_bytes(self) -> int:
        """The bytes of a row as it travels, on average if rows are strings."""
        if self.spec.datatype == "BYTES":
            return sent_size(self.rows) // max(len(self.rows), 1)
        return self.rows[:1].nbytes


@dataclass(frozen=True, slots=True, eq=False)
class MatrixInput:
    """An input whose rows differ in their shapes, such as pair matrices; only rows of one shape share a batch."""

    spec: TensorSpec
    values: NDArray[Any]  # (total,), of the input's dtype: row after row, each in C order
    shapes: NDArray[np.int64]  # (rows, axes of the input)

    numbers: NDArray[np.int64] = field(init=False)  # values of each row
    starts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", self.shapes.prod(axis=1))
        object.__setattr__(self, "starts", np.cumsum(self.numbers) - self.numbers)

    @property
    def caller_values(self) -> CallerValues:
        """The input as the caller's own numbers."""
        return CallerValues([self.values], self.numbers)

    def gathered(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the dense tensor of some rows of one shape."""
        shape = self.shapes[rows[0]].tolist()
        tensor: NDArray[Any] = self.values[self.starts[rows, None] + np.arange(math.prod(shape))]
        return tensor.reshape(len(rows), *shape)


AnyInput: TypeAlias = RaggedInput | DenseInput | MatrixInput


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """Jagged inputs whose rows have the same lengths."""

    inputs: tuple[RaggedInput, ...]
    counts: NDArray[np.int64]

    @property
    def channels(self) -> int:
        """The numbers that are sent for each constituent."""
        return sum(len(each.columns) for each in self.inputs)


class Inputs:
    """All inputs of some rows.

    Parameters
    ----------
    arrays : sequence of RaggedInput, DenseInput or MatrixInput
        In the order of the request.
    rows : int
    max_batch_size : int
        0: the model has no batch axis, and each row is a request of its own.
    batch_sizes : sequence of int
        The only sizes of batches that the model takes, in order; empty if it takes any.
    merged : sequence of int or None
        The sizes that the server's dynamic batcher prefers, in order; None if it merges no requests.
    groups : sequence of sequence of str
        Names of inputs that are known to share their lengths. The others are grouped by the lengths of these rows.

    Attributes
    ----------
    names : tuple of str
        In the order of a batch's tensors.
    collections : tuple of Collection
        Rules about lengths come in this order.
    weights : array of float64, shape (collections,)
        The numbers sent for a constituent of each, in units of the largest.
    cell_bytes : float
        The bytes of a cell: of one constituent of the collection with the most channels.
    """

    def __init__(
        self,
        arrays: Sequence[AnyInput],
        *,
        rows: int,
        max_batch_size: int,
        batch_sizes: Sequence[int] = (),
        merged: Sequence[int] | None = None,
        groups: Sequence[Sequence[str]] = (),
    ) -> None:
        self.arrays = arrays
        self.rows = rows
        self.max_batch_size = max_batch_size
        self.batch_sizes = batch_sizes
        self.merged = merged
        self.names = tuple(each.spec.name for each in arrays)
        ragged = [each for each in arrays if isinstance(each, RaggedInput)]
        self.collections = _collections(ragged, groups)
        channels = np.array([each.channels for each in self.collections], np.float64)
        self.weights: NDArray[np.float64] = channels / max(channels.max(initial=1.0), 1.0)
        self.cell_bytes = _cell_bytes(self.collections, arrays)

    @property
    def is_ragged(self) -> bool:
        """Whether rows of different lengths can share a batch."""
        return bool(self.collections) and not self.matrices and self.max_batch_size > 0

    @property
    def matrices(self) -> list[MatrixInput]:
        """The inputs whose rows differ in their shapes. Beside one, no row is padded beyond what it needs alone."""
        return [each for each in self.arrays if isinstance(each, MatrixInput)]

    def replaced(self, arrays: Sequence[AnyInput], rows: int) -> Inputs:
        """Return other rows of the same inputs."""
        same = [[each.spec.name for each in collection.inputs] for collection in self.collections]
        return Inputs(
            arrays,
            rows=rows,
            max_batch_size=self.max_batch_size,
            batch_sizes=self.batch_sizes,
            merged=self.merged,
            groups=same,
        )

    def most_rows(self, fitting: NDArray[Any] | int) -> NDArray[np.int64]:
        """Return the rows of a full batch, at least one, if this number of rows fits into the budget."""
        most = np.minimum(np.maximum(fitting, 1), self.max_batch_size).astype(np.int64)
        known = self.batch_sizes or self.merged
        if not known:
            return np.asarray(most)
        sizes = np.array(known)
        at = np.searchsorted(sizes, most, side="right") - 1
        least = sizes[0] if self.batch_sizes else most  # of a preferred size too large for the budget, fewer rows
        return np.asarray(np.where(at < 0, least, sizes[np.maximum(at, 0)]))

    def filled(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Fill up a batch of these rows with copies of the last, to the next size that the model takes."""
        size = next((size for size in self.batch_sizes if size >= len(rows)), len(rows))
        return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))]) if size > len(rows) else rows

    def copy(self) -> Inputs:
        """Return a copy, in which inputs share the arrays that they share here."""
        return self.replaced(copy.deepcopy(list(self.arrays)), self.rows)

    def take(self, rows: NDArray[np.int64]) -> Inputs:
        """Return a copy of some rows."""
        places: dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = {}
        columns: dict[tuple[int, int], NDArray[Any]] = {}
        arrays: list[AnyInput] = []
        for each in self.arrays:
            if isinstance(each, DenseInput):
                arrays.append(DenseInput(each.spec, each.rows[rows]))
                continue
            if isinstance(each, MatrixInput):
                at, *_ = _taken(each.starts, each.numbers, rows)
                arrays.append(MatrixInput(each.spec, each.values[at], each.shapes[rows]))
                continue
            place = id(each.counts)
            if place not in places:
                places[place] = _taken(each.starts, each.counts, rows)
            at, starts, counts = places[place]
            for column in each.columns:
                if (place, id(column)) not in columns:
                    columns[place, id(column)] = column[at]
            own = [columns[place, id(column)] for column in each.columns]
            arrays.append(RaggedInput(each.spec, own, each.pads, starts, counts, each.axis))
        return self.replaced(arrays, len(rows))


def _taken(
    starts: NDArray[np.int64], counts: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of some rows' values, and their new starts and counts."""
    own = counts[rows]
    new = np.cumsum(own) - own
    return np.repeat(starts[rows] - new, own) + np.arange(own.sum()), new, own


def _cell_bytes(collections: Sequence[Collection], arrays: Sequence[AnyInput]) -> float:
    sizes = [sum(len(each.columns) * each.spec.dtype.itemsize for each in one.inputs) for one in collections]
    if not collections:  # of a model that also takes rows of variable length, the same unit
        fixed = (each.spec for each in arrays if each.spec.variable_axes and each.spec.datatype != "BYTES")
        sizes += [spec.dtype.itemsize * math.prod(size for size in spec.shape if size > 0) for spec in fixed]
    return float(max(sizes, default=_CELL)) or 1.0


def _collections(inputs: Sequence[RaggedInput], groups: Sequence[Sequence[str]]) -> tuple[Collection, ...]:
    """Group the inputs as they are known to belong together, and the others by the lengths of their rows."""
    found: list[list[RaggedInput]] = []
    known: dict[int, list[RaggedInput]] = {}
    free: list[list[RaggedInput]] = []
    for each in inputs:
        at = next((at for at, names in enumerate(groups) if each.spec.name in names), None)
        if at is not None:
            group = known.setdefault(at, [])
        else:
            lengths = each.spec.lengths
            alike = (
                group
                for group in free
                if group[0].spec.lengths == lengths and np.array_equal(group[0].counts, each.counts)
            )
            group = next(alike, [])
            if not group:
                free.append(group)
        if not group:
            found.append(group)
        group.append(each)
    return tuple(Collection(tuple(group), group[0].counts) for group in found)
