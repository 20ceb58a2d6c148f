"""Give fields to arrays of unknown type: they hold nothing, so that awkward knows nothing of what they would hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.inference.nesting import Outer, peel, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["is_unknown", "without_rows"]


def is_unknown(value: Any) -> bool:
    """Whether a value is an array without a type: ``ak.Array([])``, ``ak.Array([[], None])``."""
    if not isinstance(value, ak.Array):
        return False
    layout = value.layout
    while layout.is_list or layout.is_option or layout.is_indexed:
        layout = layout.content
    return bool(layout.is_unknown)


def without_rows(array: ak.Array, names: Sequence[str], depth: int) -> ak.Array:
    """Return an array of unknown type as records of these fields, none of them present.

    Parameters
    ----------
    array : awkward.Array
    names : sequence of str
    depth : int
        The lists around the numbers of a field; the array may show fewer.
    """
    peeled = peel(array, "The input").deepened(depth)
    numbers = [ak.contents.NumpyArray(np.zeros(0, np.float32)) for _ in names]
    records = ak.contents.RecordArray(numbers, list(names), length=0)
    return ak.Array(wrap(records, Outer(peeled.length, peeled.levels)))
