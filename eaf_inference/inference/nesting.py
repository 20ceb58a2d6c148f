"""Take the lists around rows apart, and put them together again around other content.

Pure functions of arrays. A jagged array becomes one flat array, the sizes of each level of its lists, and the places
of its missing values. Content that is flat already is not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Missing", "Nested", "Outer", "Peeled", "counts_of", "is_tracer", "lists", "nest", "peel", "wrap"]


@dataclass(frozen=True, slots=True, eq=False)
class Missing:
    """Items of which some are None."""

    mask: NDArray[np.bool_]  # where an item is None

    @property
    def any(self) -> bool:
        return bool(self.mask.any())


# The sizes of the lists of one level: one size for all (regular), or the count of each.
Sizes: TypeAlias = "int | NDArray[np.int64]"
Level: TypeAlias = "Sizes | Missing"


@dataclass(frozen=True, slots=True, eq=False)
class Outer:
    """The lists around the rows of a batch (events around jets), outermost first, and where None stands in them.

    `length` is None if the user passed a single row without a batch axis.
    """

    length: int | None
    levels: tuple[Level, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows that are present."""
        total = 1 if self.length is None else self.length
        for level in self.levels:
            total = _items(level, total)
        return total

    @property
    def depth(self) -> int:
        """The number of levels of lists."""
        return _depth(self.levels)

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """Where None stands, for each level that has any."""
        return [level.mask for level in self.levels if isinstance(level, Missing) and level.any]

    def same_masks(self, other: Outer) -> bool:
        """Whether None stands in the same places."""
        mine, theirs = self.masks, other.masks
        return len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))

    def same_as(self, other: Outer) -> bool:
        mine, theirs = (
            [level for level in each.levels if not isinstance(level, Missing) or level.any] for each in (self, other)
        )
        return self.length == other.length and len(mine) == len(theirs) and all(map(_same, mine, theirs))


@dataclass(frozen=True, slots=True, eq=False)
class Nested:
    """Outer lists, and the number of constituents of each row inside them."""

    outer: Outer
    counts: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """The place of each row's first constituent among all constituents."""
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True, slots=True, eq=False)
class Peeled:
    """A flattened array.

    Attributes
    ----------
    length : int
    levels : tuple of Level
        The lists and missing values inside, outermost first.
    content : numpy.ndarray, shape (total,)
    what : str
        Its name in messages.
    source : awkward.Array or numpy.ndarray, optional
    unknown : bool
        It is empty at some level, so that awkward knows neither the lists nor the numbers inside.
    """

    length: int
    levels: tuple[Level, ...]
    content: NDArray[Any]
    what: str = "The array"
    source: ak.Array | NDArray[Any] | None = None
    unknown: bool = False

    @property
    def kind(self) -> str:
        """Its type, for messages."""
        return f" has type {self.source.type} and" if isinstance(self.source, ak.Array) else ""

    @property
    def depth(self) -> int:
        """The number of levels of lists."""
        return _depth(self.levels)

    def deepened(self, depth: int) -> Peeled:
        """Add levels of no lists, which an array of unknown type may have, up to a depth."""
        more = (np.zeros(0, np.int64),) * (depth - self.depth)
        return replace(self, levels=(*self.levels, *more))

    def split(self, inner: int) -> tuple[Outer, tuple[Sizes, ...]]:
        """Separate the outer lists from the innermost `inner` levels of lists.

        Raises
        ------
        InvalidInput
            Values are missing inside these.
        """
        at = len(self.levels)
        while inner:
            at -= 1
            inner -= not isinstance(self.levels[at], Missing)
        return Outer(self.length, self.levels[:at]), self.sizes(self.levels[at:])

    def sizes(self, levels: tuple[Level, ...]) -> tuple[Sizes, ...]:
        """Return the sizes of the lists of some levels inside a row.

        Raises
        ------
        InvalidInput
            Values are missing at one of them.
        """
        if any(isinstance(level, Missing) and level.any for level in levels):
            raise InvalidInput(
                f"{self.what}{self.kind} holds missing values inside its rows. Expected None only in place "
                "of a whole row: drop what is missing with ak.drop_none, fill it with ak.fill_none, or mask the rows."
            )
        return tuple(level for level in levels if not isinstance(level, Missing))


def is_tracer(value: Any) -> bool:
    """Whether any of these arrays is a typetracer: a type without data, with which dask-awkward builds graphs."""
    if isinstance(value, Mapping):
        return any(map(is_tracer, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_tracer, value))
    return isinstance(value, ak.Array) and value.layout.backend.name == "typetracer"  # ak.backend takes 40 µs


def peel(array: ak.Array | NDArray[Any], what: str) -> Peeled:
    """Flatten an array, and note the sizes of its lists and its missing values.

    A type that allows missing values leaves no trace if none is missing, because most files declare it. A typetracer
    keeps it: its graph may find some.

    Parameters
    ----------
    array : awkward.Array or numpy.ndarray
        Numbers or booleans at any depth of lists. A typetracer counts as an empty array of its type.
    what : str
        The array's name in messages.

    Raises
    ------
    InvalidInput
        It holds records, strings or several types, or is a scalar.
    """
    if isinstance(array, np.ndarray):
        if array.ndim == 0:
            raise InvalidInput(f"{what} is a single number. Expected an array with one row per inference.")
        return Peeled(len(array), array.shape[1:], _numbers(array, what).reshape(-1), what, array)
    tracer = is_tracer(array)
    array = ak.typetracer.length_zero_if_typetracer(array)
    with _placeholders_named(what):
        layout = ak.to_packed(array).layout
    found: list[Level] = []
    while True:
        if layout.is_option:
            missing = Missing(layout.mask_as_bool(valid_when=False))
            if tracer or missing.any:
                found.append(missing)
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
            layout = layout.to_ListOffsetArray64(True)  # noqa: FBT003  (a positional argument of awkward)
            found.append(np.diff(layout.offsets.data))
            layout = layout.content[: layout.offsets[-1]]
        elif layout.is_unknown:
            data = np.zeros(0, np.float32)
            break
        else:
            raise InvalidInput(f"{what} has type {array.type}. Expected lists of numbers.")
    with _placeholders_named(what):
        data = np.asarray(data)
    content = _numbers(data, what).reshape(-1)
    return Peeled(len(array), tuple(found), content, what, array, unknown=bool(layout.is_unknown))


@contextmanager
def _placeholders_named(what: str) -> Iterator[None]:
    """Say which array has no numbers because they were not read, where awkward has a placeholder for them."""
    try:
        yield
    except RuntimeError as error:
        if "PlaceholderArray" not in str(error):
            raise
        raise InvalidInput(
            f"{what} was left out when its file was read. Expected its numbers: read this column too."
        ) from error


def _numbers(data: NDArray[Any], what: str) -> NDArray[Any]:
    if data.dtype.kind in "buif":
        return data
    if data.dtype.name == "bfloat16":  # from ml_dtypes, as JAX gives it
        return data.astype(np.float32)
    cure = ""
    if data.dtype.kind == "O":
        cure = (
            " Convert them with x.astype(np.float32). If x holds arrays: np.stack(x), or ak.Array(list(x)) if their "
            "lengths differ."
        )
    raise InvalidInput(f"{what} has dtype {data.dtype}. Expected real numbers or booleans.{cure}")


def nest(fields: Mapping[str, NDArray[Any]], nested: Nested) -> ak.Array:
    """Rebuild records from flat fields (total,), in their original lists."""
    record = ak.contents.RecordArray(
        [ak.contents.NumpyArray(values) for values in fields.values()],
        list(fields),
        length=int(nested.counts.sum()),
    )
    return ak.Array(wrap(lists(record, nested.counts), nested.outer))


def lists(content: ak.contents.Content, counts: NDArray[np.int64]) -> ak.contents.Content:
    """Cut content into lists of these lengths."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return ak.contents.ListOffsetArray(ak.index.Index64(offsets), content)


def wrap(content: ak.contents.Content, outer: Outer) -> ak.contents.Content:
    """Rebuild the outer lists around the rows that are present, with None in the places of the others."""
    length = [1 if outer.length is None else outer.length]  # of the content around each level
    for level in outer.levels:
        length.append(_items(level, length[-1]))
    for level, around in zip(reversed(outer.levels), reversed(length[:-1]), strict=True):
        if isinstance(level, Missing):
            places = np.where(level.mask, -1, np.cumsum(~level.mask) - 1)
            content = ak.contents.IndexedOptionArray(ak.index.Index64(places), content)
        elif isinstance(level, int):
            content = ak.contents.RegularArray(content, level, zeros_length=around)
        else:
            content = lists(content, level)
    return content


def counts_of(sizes: Sizes, lists: int) -> NDArray[np.int64]:
    """Return the size of each of `lists` lists."""
    return np.full(lists, sizes, np.int64) if isinstance(sizes, int) else sizes


def _depth(levels: tuple[Level, ...]) -> int:
    return sum(not isinstance(level, Missing) for level in levels)


def _items(level: Level, around: int) -> int:
    """Return the number of items present in `around` lists or places of this level."""
    if isinstance(level, Missing):
        return around - int(level.mask.sum())
    return around * level if isinstance(level, int) else int(level.sum())


def _same(mine: Level, theirs: Level) -> bool:
    if isinstance(mine, Missing) or isinstance(theirs, Missing):
        return isinstance(mine, Missing) and isinstance(theirs, Missing) and np.array_equal(mine.mask, theirs.mask)
    if isinstance(mine, int) is isinstance(theirs, int):
        return np.array_equal(mine, theirs)
    return bool(np.all(mine == theirs))
