"""Whether `select` keeps one element for each entry, in the order of the entries.

As many scores as entries do not show it: two entries with two jets and none have two jets, which belong to neither,
and sorted entries are as many as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.dataset.score_columns import canonical
from eaf_inference.inference.named_inputs import NamedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["keeps_entries"]

_FIRST = 8  # entries, each of which is checked
_MIXED = 100  # entries, for which the order is checked


def keeps_entries(select: Callable[[Any], Any], array: ak.Array) -> bool:
    """Whether `select` makes one element of each entry of an array, in order, as far as some of its entries show.

    The number for the whole array is left to the caller. A function that cannot be called with some of the entries is
    trusted.
    """
    return _keeps_number(select, array) and not _reorders(select, array)


def _keeps_number(select: Callable[[Any], Any], array: ak.Array) -> bool:
    """First the function is called without data: most keep the length whatever the data."""
    entries = len(array)
    with suppress(Exception):  # the user's function may need data
        layout = _without_inner_lengths(array.layout.to_typetracer(forget_length=False))
        if all(length == entries for length in _lengths(select(ak.Array(layout, behavior=array.behavior)))):
            return True
    with suppress(Exception):  # or more entries than these
        for some in sorted({*range(1, min(entries, _FIRST + 1)), entries // 2}):
            if any(length != some for length in _lengths(select(array[:some]))):
                return False
    return True


def _reorders(select: Callable[[Any], Any], array: ak.Array) -> bool:
    """Whether mixed entries give the same elements as before, but in another order than that of the entries.

    Elements that are not the same say nothing: they may depend on a mean over all entries, or on random numbers.
    """
    places = np.linspace(0, len(array) - 1, min(len(array), _MIXED)).astype(np.int64)
    order = np.random.default_rng(0).permutation(len(places))
    with suppress(Exception):  # the user's function may need all entries
        before, after = _variations(select(array[places])), _variations(select(array[places[order]]))
        return any(_in_another_order(*each, order) for each in zip(before, after, strict=True))
    return False


def _variations(made: Any) -> list[Any]:
    return [each for _, each in made] if isinstance(made, NamedInputs) else [made]


def _in_another_order(before: Any, after: Any, order: NDArray[np.int64]) -> bool:
    if _bits(before, order) == _bits(after, slice(None)):
        return False
    before, after = (sorted(repr(_bits(made, [n])) for n in range(len(order))) for made in (before, after))
    return bool(before == after)


def _bits(made: Any, which: Any) -> Any:
    """Return some elements of the model's input in a form that is equal for equal elements alone."""
    if isinstance(made, Mapping):
        return [(name, _bits(each, which)) for name, each in made.items()]
    if isinstance(made, list | tuple):
        return [_bits(each, which) for each in made]
    if hasattr(made, "iloc"):
        return repr(made.iloc[which].to_numpy().tolist())
    form, _, buffers = ak.to_buffers(canonical(ak.to_layout(made[which])))
    return str(form.type), {name: buffer.tobytes() for name, buffer in buffers.items()}


def _without_inner_lengths(layout: ak.contents.Content) -> ak.contents.Content:
    """Forget all lengths but that of the array: what comes from inside of lists must not seem to fit by chance."""
    if layout.is_record:
        return layout.copy(contents=[_without_inner_lengths(each) for each in layout.contents])
    if layout.is_regular and not layout.is_numpy:
        return layout.copy(content=_without_inner_lengths(layout.content))
    if layout.is_list or layout.is_option or layout.is_indexed:
        return layout.copy(content=layout.content.to_typetracer(forget_length=True))
    return layout


def _lengths(made: Any) -> Iterator[Any]:
    """Return the lengths of all arrays of the model's input; of arrays without data they may be unknown."""
    if isinstance(made, ak.Array):
        length = made.layout.length
        yield None if length is ak.typetracer.unknown_length else length
    elif isinstance(made, Mapping):
        for each in made.values():
            yield from _lengths(each)
    elif isinstance(made, NamedInputs):
        for _, each in made:
            yield from _lengths(each)
    elif isinstance(made, list | tuple):
        for each in made:
            yield from _lengths(each)
    elif isinstance(made, np.ndarray) or hasattr(made, "columns"):
        yield len(made)
