"""Which numbers become which: the conversions that a user would make herself, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

__all__ = ["cast"]


def cast(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """The values in the declared data type, where that loses nothing but float64's precision.

    Raises
    ------
    InvalidInput
        The conversion would change values.
    """
    target = spec.dtype
    if values.dtype == target:
        return values
    kinds = values.dtype.kind + target.kind
    inexact = kinds in ("if", "uf") and values.dtype.itemsize == 8  # though numpy calls int64 -> float64 safe
    if not values.size or (np.can_cast(values.dtype, target, "safe") and not inexact):
        return values.astype(target)
    if kinds == "ff" and target.itemsize >= 4:
        with np.errstate(over="ignore"):
            result = values.astype(target)
        if np.array_equal(np.isfinite(result), np.isfinite(values)):
            return result
        why = "some values are beyond its range"
    elif values.dtype.kind in "bui" and target.kind in "uif" and _exact(values, target):
        return values.astype(target)
    else:
        why = "some values would change"
    raise InvalidInput(
        f"Input {spec.name!r} has dtype {values.dtype} and shape {values.shape}, which does not convert to the "
        f"model's {spec.datatype}: {why}. Convert it yourself if that is what you want (ak.values_astype, astype)."
    )


def _exact(values: NDArray[Any], target: np.dtype[Any]) -> bool:
    """Whether every integer has itself as its image (compared as Python integers at the ends of the range)."""
    low, high = int(values.min()), int(values.max())
    if target.kind in "ui":
        info = np.iinfo(target)
        return info.min <= low and high <= info.max
    largest = 1 << (np.finfo(target).nmant + 1)  # every integer up to here is a float
    if -largest <= low and high <= largest:
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        there = values.astype(target)
        if not np.isfinite(there).all() or there.max() > np.iinfo(values.dtype).max:
            return False
        return bool(np.array_equal(there.astype(values.dtype), values))
