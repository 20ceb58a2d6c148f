"""What comes back: replies read and checked, their rows put in place, padding cut off.

An output with an axis of variable length has one value a constituent there, if the axis had the length of a
collection whenever something was sent; its padding is dropped. Other axes of variable length are kept whole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference import layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.batching import Batch, Collection
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["Collected", "read_outputs"]

_LARGEST_EMPTY = 64 << 20  # bytes that an output without any would have, if its empty axes had one element


class Collected:
    """One output of one job, while its batches come in."""

    def __init__(self, spec: TensorSpec, rows: int, collections: Sequence[Collection]) -> None:
        self.spec = spec
        self._rows = rows
        self._collections = collections
        # of each axis, the collections whose lengths it has had in every batch
        self._follows = {axis: set(range(len(collections))) for axis in spec.variable_axes}
        self._jagged = bool(self._follows and collections)
        self._parts: list[tuple[NDArray[np.int64], NDArray[Any]]] = []
        self._values: NDArray[Any] | None = None if self._follows else self._room(spec.shape)

    def _room(self, shape: tuple[int, ...]) -> NDArray[Any]:
        try:
            return np.empty((self._rows, *shape), self.spec.dtype)
        except (MemoryError, ValueError) as error:
            raise InvalidInput(
                f"Output {self.spec.name!r} of {self._rows:,} rows does not fit into memory: {list(shape)} "
                f"{self.spec.datatype} a row. Pass fewer rows at a time: model.map(chunks)."
            ) from error

    def restrict(self, collection: int, known: frozenset[tuple[str, int]]) -> None:
        """Take what is known: a collection's length is that of these outputs' axes alone."""
        for axis, follows in self._follows.items():
            if (self.spec.name, axis) not in known:
                follows.discard(collection)

    def put(self, batch: Batch, values: NDArray[Any]) -> None:
        """Take a batch's values, (size, *shape)."""
        if self._jagged:
            assert isinstance(batch.rows, np.ndarray)  # noqa: S101  (slices are for jobs without ragged inputs)
            for axis, follows in self._follows.items():
                replied = values.shape[1 + axis]
                follows &= {position for position, length in enumerate(batch.lengths) if length == replied}
            self._parts.append((batch.rows, values))
            return
        if self._values is None:
            self._values = self._room(values.shape[1:])
        if self._values.shape[1:] != values.shape[1:]:
            raise BadReply(
                f"Output {self.spec.name!r} came in batches of different shapes, {self._values.shape[1:]} and "
                f"{values.shape[1:]}, for inputs of one shape. Pass the inputs as awkward arrays."
            )
        self._values[batch.rows] = values

    def not_finite(self) -> NDArray[np.bool_]:
        """Which rows have a NaN or an infinity that is not padding's."""
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
        """All rows as one array."""
        if self._values is None:  # no row at all, or a shape that only a reply tells
            return np.empty((0, *(max(size, 0) for size in self.spec.shape)), self.spec.dtype)
        return self._values

    def nested(self) -> ak.contents.Content:
        """All rows as the content of the outer lists."""
        if not self._jagged:
            return _regular(self.dense())
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
        """Rows without their padding, lists along the axes of variable length."""
        axes = list(self._follows)
        counts = [lengths.get(axis, np.full(len(values), values.shape[1 + axis])) for axis in axes]
        return _trimmed(values, counts[0], 1 + axes[0]) if len(axes) == 1 else _cut_each(values, axes, counts)

    def _lengths(self) -> dict[int, NDArray[np.int64]]:
        """Of each axis with one value a constituent, the lengths of all rows."""
        found = {}
        for axis, follows in self._follows.items():
            followed = [self._collections[position] for position in sorted(follows)]
            if len(followed) > 1:
                names = " and ".join(repr(each.inputs[0].spec.name) for each in followed)
                raise BadReply(
                    f"Output {self.spec.name!r} has the padded lengths of {names}, so that its rows' own lengths are "
                    "not known. Pass these inputs as numpy arrays, padded as the model expects."
                )
            if followed:
                found[axis] = followed[0].counts
        return found


def _regular(values: NDArray[Any]) -> ak.contents.Content:
    """Lists of one size each; ak.from_numpy cannot tell the sizes of several empty axes."""
    shape = layout.Outer(len(values), values.shape[1:])
    return layout.wrap(ak.contents.NumpyArray(values.reshape(-1)), shape)


def _trimmed(values: NDArray[Any], counts: NDArray[np.int64], axis: int) -> ak.Array:
    """Rows of a padded output, cut to their lengths along one axis."""
    inside = values.shape[1:axis]  # lists between the row and the variable axis
    each = np.repeat(counts, int(np.prod(inside)))
    flat = values.reshape(len(each), *values.shape[axis:])
    kept = flat[np.arange(values.shape[axis]) < each[:, None]]
    content = layout.lists(_regular(kept), each)
    for size in reversed(inside):
        content = ak.contents.RegularArray(content, size)
    return ak.Array(content)


def _cut_each(values: NDArray[Any], axes: Sequence[int], counts: Sequence[NDArray[np.int64]]) -> ak.Array:
    """The same along several axes, row by row."""
    rows = []
    for row, own in zip(values, zip(*counts, strict=True), strict=True):
        for axis, count in zip(axes, own, strict=True):
            row = row.take(range(count), axis=axis)
        rows.append(row)
    flat = np.concatenate([row.reshape(-1) for row in rows]) if rows else values.reshape(-1)
    content: ak.contents.Content = ak.contents.NumpyArray(flat)
    for level in reversed(range(values.ndim - 1)):
        sizes = [np.full(math.prod(row.shape[:level]), row.shape[level]) for row in rows]
        content = layout.lists(content, np.concatenate(sizes) if rows else np.zeros(0, np.int64))
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
    if len(contents) != len(reply.outputs):
        raise BadReply(
            f"The reply of {model!r} has {len(reply.outputs)} outputs and the contents of {len(contents)}. "
            "The fault is the server's: tell the model's owner."
        )
    for raw, output in zip(contents, reply.outputs, strict=True):
        spec = specs.get(output.name)
        if spec is None:
            continue
        if output.name in found:
            raise BadReply(f"The reply of {model!r} has the output {output.name!r} twice. Tell the model's owner.")
        declared = (size, *spec.shape) if batched else spec.shape
        shape = tuple(output.shape[: len(declared) + 1])  # enough to see that there are too many
        agree = len(shape) == len(declared) and all(
            got >= 0 and want in (got, -1) for got, want in zip(shape, declared, strict=True)
        )
        # no other axis of an empty output may be of any size
        agree &= math.prod(max(each, 1) for each in shape) * spec.dtype.itemsize <= max(len(raw), _LARGEST_EMPTY)
        expected = math.prod(shape) * spec.dtype.itemsize if agree else None
        if output.datatype != spec.datatype or len(raw) != expected:
            bytes_ = "" if expected is None else f" in {expected} bytes"
            raise BadReply(
                f"The reply of {model!r} is not what the model declares: output {output.name!r} came as "
                f"{output.datatype[:20]} {list(shape)} in {len(raw)} bytes. Expected {spec.datatype} "
                f"{list(declared)}{bytes_}. The fault is the server's: tell the model's owner."
            )
        values = np.frombuffer(raw, spec.dtype).reshape(shape)
        found[output.name] = values if batched else values[None]
    missing = [name for name in specs if name not in found]
    if missing:
        raise BadReply(f"The reply of {model!r} lacks the outputs {missing}. Tell the model's owner.")
    return found
