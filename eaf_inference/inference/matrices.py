"""Inputs of several variable axes, such as pair matrices: flatten them, and group the rows that share a batch.

A matrix has no padding that leaves scores alone: zeros in a P × P interaction term are pairs of particles. So only
rows of equal sizes travel together, and beside them no other input is padded beyond what the row alone needs. Pure
functions of arrays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout, nesting
from eaf_inference.inference.conversion import cast
from eaf_inference.inference.inputs import DenseInput, MatrixInput
from eaf_inference.inference.strings import dense_strings, peeled_strings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.inputs import AnyInput, Inputs
    from eaf_inference.inference.lengths import Lengths
    from eaf_inference.inference.nesting import Outer, Peeled
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["alike", "matrix_of"]

_LARGEST = 4 << 20  # bytes of a request of several rows
_SHOWN = 5  # lengths in a message


def matrix_of(value: Any, spec: TensorSpec, *, batched: bool) -> tuple[AnyInput, Outer]:
    """Flatten an input whose rows may differ in their sizes along several axes.

    Parameters
    ----------
    value : awkward.Array, or list of them
        ``… × rows × shape``; an axis of size 1 at the front of the shape may be left out of an array without outer
        lists. If the first or last axis of the shape is the only fixed one, also records or a list with one array for
        each of its places.
    spec : TensorSpec
    batched : bool
        Whether the model takes a batch axis; otherwise a single row needs none either.

    Raises
    ------
    InvalidInput
        The lists of a row differ in length along an axis, or the sizes are not the declared ones.
    """
    name = f"Input {spec.name!r}"
    if isinstance(value, list | tuple):
        return _stacked(value, value, spec)
    if value.fields:
        return _stacked([value[field] for field in value.fields], value, spec)
    is_text = spec.datatype == "BYTES"
    peeled, strings = peeled_strings(value, spec) if is_text else (nesting.peel(value, name), None)
    if not batched and 1 + peeled.depth == len(spec.shape):
        dense = dense_strings if is_text else layout.dense_of
        rows, outer = dense(value, spec, batched=False)
        return DenseInput(spec, rows if is_text else cast(rows, spec)), outer
    outer, shapes = _shapes(peeled, spec.shape, spec, value)
    values = cast(peeled.content, spec) if strings is None else strings[peeled.content.astype(np.int64)]
    return MatrixInput(spec, values, shapes), outer


def alike(inputs: Inputs, lengths: Sequence[Lengths], cell_budget: int) -> Iterator[NDArray[np.int64]]:
    """Cut rows with matrices into batches of rows of equal sizes.

    Parameters
    ----------
    inputs : Inputs
    lengths : sequence of Lengths
        One for each collection.
    cell_budget : int
        The most rows × padded length of a batch of several rows.
    """
    padded = [rule.padded(each.counts) for rule, each in zip(lengths, inputs.collections, strict=True)]
    sizes = np.column_stack([*padded, *(each.shapes for each in inputs.matrices)])
    row_bytes = np.full(inputs.rows, sum(each.row_bytes for each in inputs.arrays if isinstance(each, DenseInput)))
    for each in inputs.matrices:
        row_bytes += each.numbers * each.values.itemsize
    longest = np.max(padded, axis=0, initial=1) if padded else np.ones(inputs.rows, np.int64)
    most = inputs.most_rows(np.minimum(_LARGEST // np.maximum(row_bytes, 1), cell_budget // longest))
    _, group = np.unique(sizes, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    ends = np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1
    for rows in np.split(order, ends):
        size = int(most[rows[0]]) if len(rows) else 1
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _shapes(peeled: Peeled, shape: Sequence[int], spec: TensorSpec, value: Any) -> tuple[Outer, NDArray[np.int64]]:
    """Return the outer lists, and the shape of each row."""
    if peeled.depth == len(shape) - 1 and shape[0] == 1:
        peeled = replace(peeled, levels=(1, *peeled.levels))
    if peeled.depth < len(shape):
        raise layout.misfit(spec, value, "it has too few axes")
    outer, inner = peeled.split(len(shape))
    rows = outer.rows
    shapes = np.zeros((rows, len(shape)), np.int64)
    lists = np.ones(rows, np.int64)  # of each row at this axis
    row_of = np.arange(rows)  # of each list
    for axis, (level, declared) in enumerate(zip(inner, shape, strict=True)):
        lengths = np.full(len(row_of), level, np.int64) if isinstance(level, int) else level
        size = np.full(rows, max(declared, 0), np.int64)  # of a row without lists, as far as it is known
        filled = lists > 0
        size[filled] = lengths[(np.cumsum(lists) - lists)[filled]]
        differing = np.flatnonzero(lengths != size[row_of])
        if len(differing):
            row = row_of[differing[0]]
            found = np.unique(lengths[row_of == row]).tolist()
            shown = ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")
            raise InvalidInput(
                f"Input {spec.name!r} has no single shape in row {row}: its lists along axis {axis} of the model's "
                f"{list(spec.shape)} have the lengths {shown}. Expected lists of equal length inside each row, such "
                "as P lists of P numbers."
            )
        if declared != -1 and np.any(size != declared):
            raise layout.misfit(spec, value, f"its axis {axis - len(shape)} is not {declared} long in every row")
        shapes[:, axis] = size
        row_of = np.repeat(row_of, lengths)
        lists = lists * size
    return outer, shapes


def _stacked(parts: Sequence[Any], value: Any, spec: TensorSpec) -> tuple[MatrixInput, Outer]:
    """Flatten the places of the first or last axis of the shape, which are one array each."""
    fixed = [axis for axis, size in enumerate(spec.shape) if size != -1]
    if fixed not in ([0], [len(spec.shape) - 1]) or spec.datatype == "BYTES":
        raise layout.misfit(spec, value, "its values belong in one array")
    [axis] = fixed
    channels = spec.shape[axis]
    if len(parts) != channels:
        raise layout.misfit(spec, value, f"it has {len(parts)} channels")
    inner = tuple(size for size in spec.shape if size == -1)
    contents: list[NDArray[Any]] = []
    first: tuple[Outer, NDArray[np.int64]] | None = None
    for place, part in enumerate(parts):
        if not isinstance(part, ak.Array):
            raise layout.misfit(spec, part, f"channel {place} is not an awkward array")
        peeled = nesting.peel(part, f"Input {spec.name!r}, channel {place}")
        outer, shapes = _shapes(peeled, inner, spec, part)
        first = first or (outer, shapes)
        if not (first[0].same_as(outer) and np.array_equal(first[1], shapes)):
            raise InvalidInput(
                f"Input {spec.name!r}: channel {place} has other sizes than channel 0. Expected the same in each."
            )
        contents.append(cast(peeled.content, spec))
    assert first is not None  # noqa: S101  (an axis has a place)
    outer, shapes = first
    return MatrixInput(
        spec, _joined(contents, shapes, last=axis > 0), np.insert(shapes, axis, channels, axis=1)
    ), outer


def _joined(contents: Sequence[NDArray[Any]], shapes: NDArray[np.int64], *, last: bool) -> NDArray[Any]:
    """Put the channels of each row one after the other, or those of each value if they are the last axis."""
    if last:
        return np.stack(contents, axis=1).reshape(-1)
    numbers = shapes.prod(axis=1)
    total = len(contents[0])
    values = np.empty(len(contents) * total, contents[0].dtype)
    before = np.cumsum(numbers) - numbers
    at = np.repeat((len(contents) - 1) * before, numbers) + np.arange(total)
    for place, content in enumerate(contents):
        values[at + np.repeat(place * numbers, numbers)] = content
    return values
