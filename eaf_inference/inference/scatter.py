"""Scatter replies to the caller's rows, and cut off their padding.

If an axis of variable length had the padded length of a collection in every batch, it has one value per constituent,
and its padding is cut off. Other axes of variable length are kept whole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference import nesting, strings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.batching import Batch
    from eaf_inference.inference.inputs import Collection, Inputs
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["Scatter", "ragged", "regular"]


class Scatter:
    """The outputs of one array's rows, while their batches come back in any order."""

    def __init__(self, specs: Sequence[TensorSpec], inputs: Inputs) -> None:
        self._left = inputs.rows
        alike = not (inputs.collections or inputs.matrices)
        self._outputs = {spec.name: _Output(spec, inputs.rows, inputs.collections, alike=alike) for spec in specs}

    @property
    def complete(self) -> bool:
        """Whether every row is back."""
        return self._left == 0

    def follow(self, followers: Sequence[frozenset[tuple[str, int]] | None]) -> None:
        """Restrict which outputs may have one value per constituent.

        Parameters
        ----------
        followers : sequence of frozenset of (str, int) or None
            For each collection, the outputs and axes whose length may be the collection's; None if unknown.
        """
        for at, known in enumerate(followers):
            if known is not None:
                for output in self._outputs.values():
                    output.restrict(at, known)

    def put(self, batch: Batch, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Put a batch's outputs, (size, *shape) each, in the places of its rows."""
        for name, values in outputs.items():
            self._outputs[name].put(batch, values)
        self._left -= batch.size

    def take_over(self, rows: NDArray[np.int64], other: Scatter, places: NDArray[np.int64]) -> None:
        """Give these rows the outputs of the rows of another array in these places.

        Parameters
        ----------
        rows : array of int64
        other : Scatter
            Of the same inputs of the same model, complete.
        places : array of int64
            One for each of the rows.
        """
        for name, output in self._outputs.items():
            output.take_over(rows, other._outputs[name], places)
        self._left -= len(rows)

    def not_finite(self) -> NDArray[np.int64]:
        """Return the rows with a NaN or an infinity in any output, apart from padding."""
        return np.flatnonzero(np.any([each.not_finite() for each in self._outputs.values()], axis=0))

    def dense(self, name: str) -> NDArray[Any]:
        """Return an output as one array, (rows, *shape)."""
        return self._outputs[name].dense()

    def nested(self, name: str) -> ak.contents.Content:
        """Return an output as the content of the outer lists, one entry per row."""
        return self._outputs[name].nested()


class _Output:
    """One output, while its batches come back; `alike`: all rows of the inputs have one shape."""

    def __init__(self, spec: TensorSpec, rows: int, collections: Sequence[Collection], *, alike: bool) -> None:
        self.spec = spec
        self._rows = rows
        self._collections = collections
        # for each axis, the collections whose padded length it had in every batch
        self._follows = {axis: set(range(len(collections))) for axis in spec.variable_axes}
        self._jagged = bool(self._follows) and not alike
        self._parts: list[tuple[NDArray[np.int64], NDArray[Any]]] = []
        self._values: NDArray[Any] | None = None if self._follows else self._allocate(spec.shape)

    def _allocate(self, shape: tuple[int, ...]) -> NDArray[Any]:
        try:
            return np.empty((self._rows, *shape), self.spec.dtype)
        except (MemoryError, ValueError) as error:
            raise InvalidInput(
                f"Output {self.spec.name!r} of {self._rows:,} rows does not fit into memory: {list(shape)} "
                f"{self.spec.datatype} per row. Pass fewer rows at a time: model.map(chunks)."
            ) from error

    def restrict(self, collection: int, known: frozenset[tuple[str, int]]) -> None:
        """Let only these outputs and axes have the length of a collection."""
        for axis, follows in self._follows.items():
            if (self.spec.name, axis) not in known:
                follows.discard(collection)

    def put(self, batch: Batch, values: NDArray[Any]) -> None:
        """Put a batch's values, (size, *shape), in the places of its rows."""
        if self._jagged:
            assert isinstance(batch.rows, np.ndarray)  # noqa: S101  (slices are for dense inputs alone)
            for axis, follows in self._follows.items():
                replied = values.shape[1 + axis]
                follows &= {position for position, length in enumerate(batch.lengths) if length == replied}
            self._parts.append((batch.rows, values))
            return
        self._fill(batch.rows, values)

    def take_over(self, rows: NDArray[np.int64], other: _Output, places: NDArray[np.int64]) -> None:
        """Give these rows the values of another's rows in these places."""
        if not self._jagged:
            if len(rows):
                self._fill(rows, other.dense()[places])
            return
        for axis, follows in self._follows.items():
            follows &= other._follows[axis]
        part_of, place_in = np.zeros((2, other._rows), np.int64)
        for number, (own, _) in enumerate(other._parts):
            part_of[own], place_in[own] = number, np.arange(len(own))
        order = np.argsort(part_of[places], kind="stable")
        ends = np.searchsorted(part_of[places][order], np.arange(len(other._parts)), side="right")
        for (_, values), chosen in zip(other._parts, np.split(order, ends)[:-1], strict=True):
            if len(chosen):
                self._parts.append((rows[chosen], values[place_in[places[chosen]]]))

    def _fill(self, rows: NDArray[np.int64] | slice, values: NDArray[Any]) -> None:
        """Put values of one shape in the places of their rows."""
        if self._values is None:
            self._values = self._allocate(values.shape[1:])
        if self._values.shape[1:] != values.shape[1:]:
            raise BadReply(
                f"Output {self.spec.name!r} came in batches of different shapes, {self._values.shape[1:]} and "
                f"{values.shape[1:]}, for inputs of one shape. Pass the inputs as awkward arrays."
            )
        self._values[rows] = values

    def not_finite(self) -> NDArray[np.bool_]:
        """Return which rows have a NaN or an infinity, apart from padding."""
        found = np.zeros(self._rows, np.bool_)
        if self.spec.dtype.kind != "f" or not self._rows:
            return found
        if not self._jagged:
            found[:] = ~np.isfinite(self.dense()).reshape(self._rows, -1).all(axis=1)
        lengths = self._lengths() if self._jagged else {}
        for rows, values in self._parts:
            wrong = ~np.isfinite(values)
            for axis, counts in lengths.items():
                kept = np.arange(values.shape[1 + axis]) < counts[rows][:, None]
                wrong &= np.expand_dims(kept, tuple(at for at in range(1, wrong.ndim) if at != 1 + axis))
            found[rows] = wrong.reshape(len(rows), -1).any(axis=1)
        return found

    def dense(self) -> NDArray[Any]:
        """Return all rows as one array."""
        if self._values is None:  # no rows, or a shape that only a reply shows
            return np.empty((0, *(max(size, 0) for size in self.spec.shape)), self.spec.dtype)
        return self._values

    def nested(self) -> ak.contents.Content:
        """Return all rows as the content of the outer lists."""
        if not self._jagged:
            return regular(self.dense())
        lengths = self._lengths()
        parts = [
            self._cut(values, {axis: counts[rows] for axis, counts in lengths.items()})
            for rows, values in self._parts
        ]
        if not parts:
            empty = np.empty((0, *(max(size, 0) for size in self.spec.shape)), self.spec.dtype)
            return self._cut(empty, {}).layout
        order = np.argsort(np.concatenate([rows for rows, _ in self._parts]))
        return ak.to_packed(ak.concatenate(parts)[order]).layout

    def _cut(self, values: NDArray[Any], lengths: Mapping[int, NDArray[np.int64]]) -> ak.Array:
        """Cut off the rows' padding, which leaves lists along the axes of variable length."""
        axes = list(self._follows)
        counts = [lengths.get(axis, np.full(len(values), values.shape[1 + axis])) for axis in axes]
        return _trimmed(values, counts[0], 1 + axes[0]) if len(axes) == 1 else _cut_each(values, axes, counts)

    def _lengths(self) -> dict[int, NDArray[np.int64]]:
        """Return the lengths of all rows for each axis with one value per constituent."""
        found = {}
        for axis, follows in self._follows.items():
            followed = [self._collections[position] for position in sorted(follows)]
            if len(followed) > 1:
                names = " and ".join(repr(each.inputs[0].spec.name) for each in followed)
                raise BadReply(
                    f"Output {self.spec.name!r} has the padded lengths of {names}, so its rows' lengths are unknown. "
                    "Pass these inputs as numpy arrays, padded as the model expects."
                )
            if followed:
                found[axis] = followed[0].counts
        return found


def regular(values: NDArray[Any]) -> ak.contents.Content:
    """Make regular lists; ak.from_numpy loses the sizes of several empty axes."""
    shape = nesting.Outer(len(values), values.shape[1:])
    return nesting.wrap(_flat(values), shape)


def _flat(values: NDArray[Any]) -> ak.contents.Content:
    """Make a flat content of numbers or strings."""
    flat = values.reshape(-1)
    return strings.as_content(flat) if flat.dtype == object else ak.contents.NumpyArray(flat)


def _trimmed(values: NDArray[Any], counts: NDArray[np.int64], axis: int) -> ak.Array:
    """Cut the rows of a padded output to their lengths along one axis."""
    inside = values.shape[1:axis]  # lists between the row and the variable axis
    each = np.repeat(counts, int(np.prod(inside)))
    flat = values.reshape(len(each), *values.shape[axis:])
    kept = flat[np.arange(values.shape[axis]) < each[:, None]]
    content = nesting.lists(regular(kept), each)
    for size in reversed(inside):
        content = ak.contents.RegularArray(content, size)
    return ak.Array(content)


def _cut_each(values: NDArray[Any], axes: Sequence[int], counts: Sequence[NDArray[np.int64]]) -> ak.Array:
    """Cut them along several axes, row by row."""
    rows = []
    for row, own in zip(values, zip(*counts, strict=True), strict=True):
        for axis, count in zip(axes, own, strict=True):
            row = row.take(range(count), axis=axis)
        rows.append(row)
    return ak.Array(ragged(rows, values))


def ragged(rows: Sequence[NDArray[Any]], empty: NDArray[Any]) -> ak.contents.Content:
    """Make lists of rows of different shapes; `empty` is what no rows at all are."""
    flat = np.concatenate([row.reshape(-1) for row in rows]) if rows else empty.reshape(-1)
    content = _flat(flat)
    for level in reversed(range(empty.ndim - 1)):
        sizes = [np.full(math.prod(row.shape[:level]), row.shape[level]) for row in rows]
        content = nesting.lists(content, np.concatenate(sizes) if rows else np.zeros(0, np.int64))
    return content
