"""Whether `select` keeps one element for each entry.

As many scores as entries do not show it: two entries with two jets and none have two jets, which belong to neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.inference.named_inputs import NamedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["keeps_entries"]

_FIRST = 8  # entries, each of which is checked


def keeps_entries(select: Callable[[Any], Any], array: ak.Array) -> bool:
    """Whether `select` makes one element of each entry of an array, as far as some of its beginnings show.

    The number for the whole array is left to the caller. First the function is called without data: most keep the
    length whatever the data. A function that cannot be called in these ways is trusted.
    """
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
