"""Compare two sets of scores of the same rows: served ones with those computed here. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Comparison", "compared"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much two sets of scores differ.

    Attributes
    ----------
    values : int
        Numbers that were compared.
    largest : float
        The largest difference, relative for numbers above 1; inf where one is NaN and the other is not.
    beyond : int
        Numbers that differ by more than the tolerance.
    where : str
        The output with the largest difference, and the place of that number in it.
    tolerance : float
    unlike : str
        Why they cannot be compared, such as different shapes; empty if they can.
    """

    values: int
    largest: float
    beyond: int
    where: str
    tolerance: float
    unlike: str = ""

    @property
    def agree(self) -> bool:
        return not self.unlike and self.beyond == 0

    def __str__(self) -> str:
        if self.unlike:
            return self.unlike
        if not self.values:
            return "there was nothing to compare"
        found = f"largest difference {self.largest:.2g} in {self.values:,} numbers"
        if self.beyond:
            share = f"{self.beyond:,} of them differ by more than {self.tolerance:g}"
            return f"{found}, {self.where}; {share}"
        return f"{found} (tolerance {self.tolerance:g})"


def compared(ours: Any, theirs: Any, tolerance: float) -> Comparison:
    """Compare two results of a model, as `Model.__call__` returns them.

    Parameters
    ----------
    ours, theirs : awkward.Array, numpy.ndarray or dict of them
    tolerance : float
        For floating-point numbers; others must be equal.
    """
    left, right = dict(_leaves(ours)), dict(_leaves(theirs))
    if left.keys() != right.keys():
        return _unlike(f"one has the outputs {_names(left)}, the other {_names(right)}", tolerance)
    values, largest, beyond, where = 0, 0.0, 0, ""
    for name, (one, one_lists) in left.items():
        other, other_lists = right[name]
        if one.shape != other.shape or not _equal_lists(one_lists, other_lists):
            shapes = f"{list(one.shape)} and {list(other.shape)}"
            return _unlike(f"{name or 'the scores'} have different shapes or lists, {shapes}", tolerance)
        if not one.size:
            continue
        differences = _differences(one, other)
        values += one.size
        beyond += int(np.count_nonzero(differences > tolerance))
        worst = int(np.argmax(differences))
        if not where or differences[worst] > largest:
            largest = float(differences[worst])
            where = f"at number {worst:,} of {name}" if name else f"at number {worst:,}"
    return Comparison(values, largest, beyond, where, tolerance)


def _unlike(why: str, tolerance: float) -> Comparison:
    return Comparison(0, np.inf, 0, "", tolerance, unlike=why)


def _names(leaves: Mapping[str, Any]) -> str:
    return ", ".join(name or "(one)" for name in leaves) or "none"


def _leaves(result: Any, name: str = "") -> Iterator[tuple[str, tuple[NDArray[Any], list[NDArray[Any]]]]]:
    """Yield each output or class by name: its numbers, and the lengths of the lists around them."""
    if isinstance(result, Mapping):
        for key in sorted(result):
            yield from _leaves(result[key], f"{name}.{key}".lstrip("."))
    elif isinstance(result, ak.Array) and result.fields:
        for key in sorted(result.fields):
            yield from _leaves(result[key], f"{name}.{key}".lstrip("."))
    elif isinstance(result, ak.Array):
        lists = []
        while result.ndim > 1 and not _is_text(result):
            counts = ak.num(result, axis=1)
            lists.append(np.asarray(ak.to_numpy(ak.flatten(counts, axis=None))))
            result = ak.flatten(result, axis=1)
        result = ak.fill_none(result, "" if _is_text(result) else np.nan)
        numbers = np.array(result.to_list(), dtype=object) if _is_text(result) else ak.to_numpy(result)
        yield name, (np.asarray(numbers), lists)
    else:
        array = np.asarray(result)
        yield name, (array.reshape(-1), [np.array(array.shape)])


def _is_text(array: ak.Array) -> bool:
    return "string" in str(array.type)


def _equal_lists(ours: list[NDArray[Any]], theirs: list[NDArray[Any]]) -> bool:
    return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def _differences(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the differences, relative above 1; equal infinities do not differ, nor do two NaN."""
    if one.dtype.kind != "f" or other.dtype.kind != "f":
        return np.where(np.asarray(one != other), np.inf, 0.0)
    ours, theirs = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        differences = np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))
    differences[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0
    differences[np.isnan(differences)] = np.inf
    return differences
