"""Between what users hold and flat arrays: lists taken off, checked, and put back.

Pure functions of arrays. A jagged array becomes one flat array and the size of each level of its lists;
nothing is copied that already lies flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.wrong_input import field_with, kind_of, lacking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

__all__ = ["Nested", "Outer", "Peeled", "flatten_fields", "is_tracer", "nest", "peel", "wrap"]


# The sizes of the lists of one level: one size for all (regular), or the count of each.
Level: TypeAlias = "int | NDArray[np.int64]"


@dataclass(frozen=True, slots=True, eq=False)
class Outer:
    """The lists around the rows of a batch (events around jets), outermost first.

    `length` is None where the user gave one row alone, without a batch axis.
    """

    length: int | None
    levels: tuple[Level, ...] = ()

    @property
    def rows(self) -> int:
        total = 1 if self.length is None else self.length
        for level in self.levels:
            total = _items(level, total)
        return total

    def same_as(self, other: Outer) -> bool:
        return (
            self.length == other.length
            and len(self.levels) == len(other.levels)
            and all(_same(mine, theirs) for mine, theirs in zip(self.levels, other.levels, strict=True))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Nested:
    """Outer lists, and the number of constituents of each row inside."""

    outer: Outer
    counts: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each row begins among all constituents."""
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True, slots=True, eq=False)
class Peeled:
    """An array taken apart: its length, the levels of lists inside, and the flat numbers."""

    length: int
    levels: tuple[Level, ...]
    content: NDArray[Any]

    def split(self, inner: int) -> tuple[Outer, tuple[Level, ...]]:
        """The outer lists, and the innermost `inner` levels."""
        at = len(self.levels) - inner
        return Outer(self.length, self.levels[:at]), self.levels[at:]


def is_tracer(value: Any) -> bool:
    """Whether awkward arrays among these have a type alone (typetracers): what dask-awkward builds graphs with."""
    if isinstance(value, Mapping):
        return any(map(is_tracer, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_tracer, value))
    return isinstance(value, ak.Array) and ak.backend(value) == "typetracer"


def peel(array: ak.Array | NDArray[Any], what: str) -> Peeled:
    """Take an array's lists off.

    Parameters
    ----------
    array : awkward.Array or numpy.ndarray
        Numbers or booleans at any depth of lists. A typetracer is peeled as an array of its type without entries.
    what : str
        How a message calls it.

    Raises
    ------
    InvalidInput
        It holds missing values, records, strings, several types, or is a scalar.
    """
    if isinstance(array, np.ndarray):
        if array.ndim == 0:
            raise InvalidInput(f"{what} is a single number. Expected an array with one row per inference.")
        return Peeled(len(array), array.shape[1:], _numbers(array, what).reshape(-1))
    array = ak.typetracer.length_zero_if_typetracer(array)
    layout = ak.to_packed(array).layout
    found: list[Level] = []
    while True:
        if layout.is_option:  # as most files have it, whether or not something is missing
            if layout.mask_as_bool(valid_when=False).any():
                raise InvalidInput(
                    f"{what} has type {array.type} and holds missing values. Expected none: "
                    "drop them with ak.drop_none, or fill them with ak.fill_none."
                )
            layout = layout.project()
            continue
        if layout.is_union:
            raise InvalidInput(f"{what} mixes types: {array.type}. Expected lists of one kind of number.")
        if layout.is_record:
            raise InvalidInput(
                f"{what} holds records with the fields {layout.fields}. Expected numbers: pass one field."
            )
        if layout.parameter("__array__") in ("string", "bytestring"):
            raise InvalidInput(f"{what} holds strings. Expected numbers.")
        if layout.is_numpy:
            data = layout.data
            found.extend(data.shape[1:])
            break
        if layout.is_regular:
            found.append(layout.size)
            layout = layout.content
        elif layout.is_list:
            layout = layout.to_ListOffsetArray64(True)  # noqa: FBT003  (awkward takes it by position)
            found.append(np.diff(layout.offsets.data))
            layout = layout.content
        elif layout.is_unknown:  # empty all the way down: no type was ever seen
            data = np.zeros(0, np.float32)
            break
        else:
            raise InvalidInput(f"{what} has type {array.type}. Expected lists of numbers.")
    return Peeled(len(array), tuple(found), _numbers(np.asarray(data), what).reshape(-1))


def _numbers(data: NDArray[Any], what: str) -> NDArray[Any]:
    if data.dtype.kind not in "buif":
        raise InvalidInput(f"{what} has dtype {data.dtype}. Expected real numbers or booleans.")
    return data


def flatten_fields(
    records: ak.Array, names: Iterable[str], *, what: str = "The record array"
) -> tuple[dict[str, NDArray[Any]], Nested]:
    """Take ``… × rows × constituents`` of records apart.

    Returns
    -------
    fields : dict of str to numpy.ndarray, shape (total,)
    nested : Nested

    Raises
    ------
    InvalidInput
        It is no record array, lacks a field, or its fields are not lists of numbers of the same lengths.
    """
    names = tuple(names)
    if not isinstance(records, ak.Array) or not set(names) <= set(records.fields):
        raise lacking(records, names, what)
    if all(records[name].ndim == 1 for name in names) and (inside := field_with(records, [names])):
        raise InvalidInput(
            f"{what} has one {names[0]} a row, not a list a row (jets × constituents). Did you mean its field "
            f"{inside!r}? Pass jets.{inside}."
        )
    contents, nested = _flat([(f"The field {name!r}", records[name]) for name in names])
    return dict(zip(names, contents, strict=True)), nested


def columns_of(value: Any, spec: TensorSpec) -> tuple[list[NDArray[Any]], Nested]:
    """The channels of a jagged input, each flat.

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
        It is none of these.
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
        parts = [value]  # the one channel, given as such
    else:
        axis = spec.shape.index(channels) - len(spec.shape)
        if value.ndim < len(spec.shape) + 1 or not _has_size(value, axis, channels, name):
            raise misfit(spec, value, f"its axis {axis} is not {channels} long")
        parts = [value[..., channel, :] if axis == -2 else value[..., channel] for channel in range(channels)]
    if len(parts) != channels:
        raise misfit(spec, value, f"it has {len(parts)} channels")
    for position, part in enumerate(parts):
        if not isinstance(part, ak.Array):
            raise misfit(spec, part, f"channel {position} is {kind_of(part)}, not an awkward array")
    labels = [name] if len(parts) == 1 else [f"{name}, channel {position}" for position in range(len(parts))]
    return _flat(list(zip(labels, parts, strict=True)))


def _flat(parts: Sequence[tuple[str, ak.Array]]) -> tuple[list[NDArray[Any]], Nested]:
    """Jagged arrays taken apart, which all have the same lists; a message calls each by its label."""
    contents: list[NDArray[Any]] = []
    nested: Nested | None = None
    first = parts[0][0]
    for label, part in parts:
        peeled = peel(part, label)
        if not peeled.levels:
            raise InvalidInput(
                f"{label} has type {part.type}: one number a row. Expected a list a row (jets × constituents); "
                "was a jet's own variable passed instead of its constituents'?"
            )
        outer, (inner,) = peeled.split(1)
        counts = _counts(inner, outer.rows)
        if nested is None:
            nested = Nested(outer, counts)
        elif not (nested.outer.same_as(outer) and np.array_equal(nested.counts, counts)):
            raise InvalidInput(
                f"{label} has lists of other lengths than {first[0].lower()}{first[1:]}. Expected one value of each "
                "for every constituent."
            )
        contents.append(peeled.content)
    assert nested is not None  # noqa: S101  (a recipe has a variable, a shape has a channel)
    return contents, nested


def dense_of(value: Any, spec: TensorSpec, *, batched: bool) -> tuple[NDArray[Any], Outer]:
    """The rows of an input whose lists all have the declared sizes.

    Parameters
    ----------
    value : numpy.ndarray or awkward.Array
        ``… × rows × shape``. A shape ``[1]`` may be left out.
    spec : TensorSpec
    batched : bool
        Whether the model takes a batch axis; without one, a single row needs none either.

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
    peeled = peel(value, f"Input {spec.name!r}")
    inner = len(spec.shape)
    sizes = [peeled.length, *(_size_of_all(level) for level in peeled.levels)]
    if not batched and len(sizes) == inner:
        outer, trailing = Outer(None), tuple(sizes)
    else:
        if spec.shape == (1,) and not (
            len(sizes) > 1 and isinstance(peeled.levels[-1], int) and peeled.levels[-1] == 1
        ):
            peeled = Peeled(peeled.length, (*peeled.levels, 1), peeled.content)
            sizes.append(1)
        if len(sizes) < inner + 1:
            raise misfit(spec, value, "it has too few axes")
        outer, _ = peeled.split(inner)
        trailing = tuple(sizes[len(sizes) - inner :])
    rows = outer.rows
    if rows == 0:  # lists that are not there have no size
        trailing = tuple(declared if got is None else got for got, declared in zip(trailing, spec.shape, strict=True))
    for got, declared in zip(trailing, spec.shape, strict=True):
        if got is None or (declared != -1 and got != declared):
            raise misfit(spec, value, "its sizes differ" if got is not None else "its lists differ in length")
    return peeled.content.reshape(rows, *(max(size or 0, 0) for size in trailing)), outer


def nest(fields: Mapping[str, NDArray[Any]], nested: Nested) -> ak.Array:
    """Records of flat fields (total,), in the lists they came from."""
    record = ak.contents.RecordArray(
        [ak.contents.NumpyArray(values) for values in fields.values()],
        list(fields),
        length=int(nested.counts.sum()),
    )
    return ak.Array(wrap(lists(record, nested.counts), nested.outer))


def lists(content: ak.contents.Content, counts: NDArray[np.int64]) -> ak.contents.Content:
    """Content cut into lists of the given lengths."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return ak.contents.ListOffsetArray(ak.index.Index64(offsets), content)


def wrap(content: ak.contents.Content, outer: Outer) -> ak.contents.Content:
    """Rows put back into the lists they came from."""
    length = [1 if outer.length is None else outer.length]  # of the content around each level
    for level in outer.levels:
        length.append(_items(level, length[-1]))
    for level, around in zip(reversed(outer.levels), reversed(length[:-1]), strict=True):
        if isinstance(level, int):
            content = ak.contents.RegularArray(content, level, zeros_length=around)
        else:
            content = lists(content, level)
    return content


def misfit(spec: TensorSpec, value: Any, why: str) -> InvalidInput:
    """The error for a value that is not what an input takes."""
    sizes = " × ".join("var" if size == -1 else str(size) for size in spec.shape)
    return InvalidInput(
        f"Input {spec.name!r} does not fit: {why}. Got {kind_of(value)}. "
        f"Expected {spec.datatype} of shape … × rows × {sizes}."
    )


def _has_size(value: ak.Array, axis: int, size: int, what: str) -> bool:
    """Whether all lists at this axis, counted from the innermost, have the size; lists that are not there do."""
    level = peel(value, what).levels[axis]
    return level == size if isinstance(level, int) else bool(np.all(level == size))


def _items(level: Level, lists: int) -> int:
    """How many items so many lists of this level hold."""
    return lists * level if isinstance(level, int) else int(level.sum())


def _counts(level: Level, lists: int) -> NDArray[np.int64]:
    return np.full(lists, level, np.int64) if isinstance(level, int) else level


def _size_of_all(level: Level) -> int | None:
    """The one size that all lists have, or None."""
    if isinstance(level, int):
        return level
    return int(level[0]) if len(level) and np.all(level == level[0]) else None


def _same(mine: Level, theirs: Level) -> bool:
    if isinstance(mine, int) is isinstance(theirs, int):
        return np.array_equal(mine, theirs)
    return bool(np.all(mine == theirs))
