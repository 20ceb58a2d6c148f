"""Read the values of inputs from users' nested arrays, and check them.

Pure functions of arrays. Rows may be missing (None), and an array may be empty and of unknown type.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.nesting import Missing, Nested, Outer, Peeled, counts_of, peel
from eaf_inference.inference.wrong_input import field_with, kind_of, lacking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.nesting import Sizes
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["columns_of", "dense_of", "flatten_fields"]


def flatten_fields(
    records: ak.Array, names: Iterable[str], *, what: str = "The record array", per_row: bool = False
) -> tuple[dict[str, NDArray[Any]], Nested]:
    """Flatten the fields of ``… × rows × constituents`` of records.

    Parameters
    ----------
    records : awkward.Array
    names : iterable of str
    what : str
        The records' name in messages.
    per_row : bool
        The records are ``… × rows`` instead, and each field has one number per row.

    Returns
    -------
    fields : dict of str to numpy.ndarray, shape (total,)
    nested : Nested
        With counts of 1 if there is one number per row.

    Raises
    ------
    InvalidInput
        It is not a record array, lacks a field, or its fields are not lists of numbers of equal lengths.
    """
    names = tuple(names)
    if not isinstance(records, ak.Array) or not set(names) <= set(records.fields):
        raise lacking(records, names, what, per_row=per_row)
    if not per_row and all(records[name].ndim == 1 for name in names) and (inside := field_with(records, [names])):
        raise InvalidInput(
            f"{what} has one {names[0]} per row, not a list per row (jets × constituents). Did you mean its field "
            f"{inside!r}? Pass jets.{inside}."
        )
    contents, nested = _flat([(f"The field {name!r}", records[name]) for name in names], per_row=per_row)
    return dict(zip(names, contents, strict=True)), nested


def columns_of(value: Any, spec: TensorSpec) -> tuple[list[NDArray[Any]], Nested]:
    """Flatten each channel of a jagged input.

    Parameters
    ----------
    value : awkward.Array, or list of them
        For a shape ``[C, -1]``: ``… × rows × C × var``, records of C fields ``… × rows × var``, or a list of C
        arrays ``… × rows × var``. For ``[-1, C]``: ``… × rows × var × C``, or records likewise. For ``[-1]``:
        ``… × rows × var``.
    spec : TensorSpec
        With one variable axis.

    Returns
    -------
    columns : list of numpy.ndarray, shape (total,)
    nested : Nested

    Raises
    ------
    InvalidInput
        The value is none of these.
    """
    if len(spec.shape) > 2:
        raise misfit(spec, value, "a jagged array has one axis of channels and one of constituents")
    channels = next((size for size in spec.shape if size != -1), 1)
    name = f"Input {spec.name!r}"
    if len(spec.shape) == 1:
        parts = [value]
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif value.fields:
        parts = [value[field] for field in value.fields]
    elif channels == 1 and value.ndim == 2:
        parts = [value]  # a single channel, without an axis for it
    else:
        axis = spec.shape.index(channels) - len(spec.shape)
        peeled = peel(value, name)
        fits = peeled.depth >= len(spec.shape) and _has_size(peeled, axis, channels)
        if not fits and peeled.unknown:  # no rows, as their type shows in none
            outer, (counts,) = peeled.deepened(peeled.depth + 1).split(1)
            return [peeled.content] * channels, Nested(outer, counts_of(counts, 0))
        if not fits:
            raise misfit(spec, value, f"its axis {axis} is not {channels} long")
        parts = [value[..., channel, :] if axis == -2 else value[..., channel] for channel in range(channels)]
    if len(parts) != channels:
        rows = " (a list of rows is passed as ak.Array(rows))" if len(parts) > channels else ""
        raise misfit(spec, value, f"it has {len(parts)} channels{rows}")
    for position, part in enumerate(parts):
        if not isinstance(part, ak.Array):
            raise misfit(spec, part, f"channel {position} is {kind_of(part)}, not an awkward array")
    labels = [name] if len(parts) == 1 else [f"{name}, channel {position}" for position in range(len(parts))]
    return _flat(list(zip(labels, parts, strict=True)))


def _flat(parts: Sequence[tuple[str, ak.Array]], *, per_row: bool = False) -> tuple[list[NDArray[Any]], Nested]:
    """Flatten labelled arrays, which must all have the same lists, or one number per row."""
    contents: list[NDArray[Any]] = []
    unknown: list[Peeled] = []
    nested: Nested | None = None
    inner = 0 if per_row else 1
    for label, part in parts:
        peeled = peel(part, label)
        contents.append(peeled.content)
        if peeled.unknown:  # the others show how many lists it has
            unknown.append(peeled)
        else:
            nested = _agreed(nested, peeled, parts[0][0], inner)
    depth = inner if nested is None else inner + nested.outer.depth
    for peeled in unknown:
        nested = _agreed(nested, peeled.deepened(depth), parts[0][0], inner)
    assert nested is not None  # noqa: S101  (a recipe has a variable, a shape has a channel)
    return contents, nested


def _agreed(nested: Nested | None, peeled: Peeled, first: str, inner: int) -> Nested:
    """Return the lists of an array, after checking that they are those of the ones before."""
    label = peeled.what
    if peeled.depth < inner:
        raise InvalidInput(
            f"{label}{peeled.kind} has one number per row. Expected a list per row (jets × constituents). Was a "
            "jet's own variable passed instead of its constituents'?"
        )
    outer, inside = peeled.split(inner)
    counts = counts_of(inside[0] if inner else 1, outer.rows)
    if nested is None or (nested.outer.same_as(outer) and np.array_equal(nested.counts, counts)):
        return nested or Nested(outer, counts)
    first = f"{first[0].lower()}{first[1:]}"
    if not nested.outer.same_masks(outer):
        raise InvalidInput(
            f"{label} is missing (None) in other places than {first}. Expected None in the same places of all: mask "
            "the records as a whole, ak.mask(records, …)."
        )
    raise InvalidInput(
        f"{label} has lists of other lengths than {first}. Expected one value per "
        f"{'constituent' if inner else 'row'} in each."
    )


def dense_of(
    value: Any, spec: TensorSpec, *, batched: bool, peeled: Peeled | None = None
) -> tuple[NDArray[Any], Outer]:
    """Flatten an input of fixed shape into rows.

    Parameters
    ----------
    value : numpy.ndarray or awkward.Array
        ``… × rows × shape``. An axis for the shape ``[1]`` may be left out.
    spec : TensorSpec
    batched : bool
        Whether the model takes a batch axis; otherwise a single row needs none either.
    peeled : Peeled, optional
        The value flattened; made here if not given.

    Returns
    -------
    rows : numpy.ndarray, shape (rows, *shape)
    outer : Outer

    Raises
    ------
    InvalidInput
        The sizes differ from the declared ones.
    """
    if not isinstance(value, np.ndarray | ak.Array):
        raise misfit(spec, value, "its shape is fixed, so its channels belong in one array")
    peeled = peeled or peel(value, f"Input {spec.name!r}")
    inner = len(spec.shape)
    if not batched and peeled.depth + 1 == inner:
        outer, sizes = Outer(None), [len(value), *map(_size_of_all, peeled.sizes(peeled.levels))]
    else:
        outer, sizes = _sized(_with_axis(peeled) if spec.shape == (1,) else peeled, spec)
    if peeled.unknown and _unfit(sizes, spec):  # no rows, as their type shows in none
        outer, sizes = _sized(peeled.deepened(peeled.depth + inner), spec)
    if why := _unfit(sizes, spec):
        raise misfit(spec, value, why)
    return peeled.content.reshape(outer.rows, *(max(size or 0, 0) for size in sizes)), outer


def _with_axis(peeled: Peeled) -> Peeled:
    """Add an axis of length 1, unless the innermost one is that."""
    *around, last = peeled.levels or (0,)
    before = around[-1] if around else 0
    if isinstance(last, int) and last == 1:
        return peeled
    if isinstance(last, Missing) and isinstance(before, int) and before == 1:  # missing numbers are missing rows
        return replace(peeled, levels=(*around[:-1], last, 1))
    return replace(peeled, levels=(*peeled.levels, 1))


def _sized(peeled: Peeled, spec: TensorSpec) -> tuple[Outer, list[int | None]]:
    """Return the lists around the rows and the sizes of all rows; None where they differ."""
    if peeled.depth < len(spec.shape):
        return Outer(peeled.length), []
    outer, inside = peeled.split(len(spec.shape))
    sizes = [_size_of_all(level) for level in inside]
    if outer.rows == 0:  # without rows the sizes are unknown
        sizes = [declared if got is None else got for got, declared in zip(sizes, spec.shape, strict=True)]
    return outer, sizes


def _unfit(sizes: Sequence[int | None], spec: TensorSpec) -> str:
    """Say why rows of these sizes do not fit an input."""
    if len(sizes) < len(spec.shape):
        return "it has too few axes"
    for got, declared in zip(sizes, spec.shape, strict=True):
        if got is None:
            return "its lists differ in length"
        if declared not in (-1, got):
            return "its sizes differ"
    return ""


def misfit(spec: TensorSpec, value: Any, why: str) -> InvalidInput:
    """Make the error for a value that does not fit an input."""
    sizes = " × ".join("var" if size == -1 else str(size) for size in spec.shape)
    return InvalidInput(
        f"Input {spec.name!r} does not fit: {why}. Got {kind_of(value)}. "
        f"Expected {spec.datatype} of shape … × rows × {sizes}."
    )


def _has_size(peeled: Peeled, axis: int, size: int) -> bool:
    """Whether all lists at this axis, counted from the innermost, have the size; true if there are none."""
    _, inside = peeled.split(-axis)
    return bool(np.all(np.equal(inside[0], size)))


def _size_of_all(level: Sizes) -> int | None:
    """Return the size of all lists, or None if they differ."""
    if isinstance(level, int):
        return level
    return int(level[0]) if len(level) and np.all(level == level[0]) else None
