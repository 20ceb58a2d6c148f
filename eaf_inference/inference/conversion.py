"""Conversion of data types that loses at most the precision of floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.wire import rounded
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

__all__ = ["as_numpy", "cast", "narrowed", "native"]

_BEYOND = "some values are beyond its range"
_CHANGED = "some values would change"
_CUTS = {"fi": "floats may have fractions", "fu": "floats may have fractions", "ff": "it has fewer digits"}


def cast(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Convert values to the declared data type if only the precision of float64 is lost, or of floats for BF16.

    Raises
    ------
    InvalidInput
        The conversion would change values.
    """
    result, why = _converted(values, spec.dtype)
    if spec.datatype == "BF16" and not why:  # numpy has no such type, so it is float32 until it is sent
        sent = rounded(result, spec.datatype)
        if not np.array_equal(np.isfinite(sent), np.isfinite(result)):
            why = _BEYOND
        elif values.dtype.kind in "ui" and not np.array_equal(sent, result):
            why = _CHANGED
    if why:
        raise InvalidInput(
            f"Input {spec.name!r} has dtype {values.dtype} and shape {values.shape}, which does not convert to the "
            f"model's {spec.datatype}: {why}. Convert it yourself if that is what you want (ak.values_astype, "
            "astype)."
        )
    return result


def narrowed(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Convert floats to an input's float type, with its precision.

    Raises
    ------
    FloatingPointError
        Values are beyond its range.
    """
    with np.errstate(over="raise"):
        result = values.astype(spec.dtype, copy=False)
    if spec.datatype == "BF16" and not np.array_equal(np.isfinite(rounded(result, "BF16")), np.isfinite(result)):
        raise FloatingPointError(_BEYOND)
    return result


def as_numpy(value: Any, what: str) -> NDArray[Any]:
    """Return an array of another library, such as torch, as numpy has it.

    Raises
    ------
    InvalidInput
        numpy cannot read it, because it is on a GPU, sparse, part of a gradient's graph, or of a type numpy lacks.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        why = str(error).rstrip(".")
        raise InvalidInput(
            f"{what} is {kind_of(value)} that numpy cannot read: {why}. Expected numbers in this machine's memory: "
            "of torch, x.detach().cpu().float().numpy()."
        ) from error


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values in this machine's byte order; awkward takes no other."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _converted(values: NDArray[Any], target: np.dtype[Any]) -> tuple[NDArray[Any], str]:
    """Return the values as this type, and why they would not be the same; empty if they are."""
    if values.dtype == target:
        return values, ""
    kinds = values.dtype.kind + target.kind
    inexact = kinds in ("if", "uf") and values.dtype.itemsize == 8  # though numpy calls int64 -> float64 safe
    if not values.size or (np.can_cast(values.dtype, target, "safe") and not inexact):
        return values.astype(target), ""
    if kinds == "ff" and target.itemsize >= 4:
        with np.errstate(over="ignore"):
            result = values.astype(target)
        return result, "" if np.array_equal(np.isfinite(result), np.isfinite(values)) else _BEYOND
    if values.dtype.kind in "bui" and target.kind in "buif" and _exact(values, target):
        return values.astype(target), ""
    return values, _CUTS.get(kinds, _CHANGED)


def _exact(values: NDArray[Any], target: np.dtype[Any]) -> bool:
    """Whether every integer converts to an equal number."""
    low, high = int(values.min()), int(values.max())
    if target.kind == "b":
        return low >= 0 and high <= 1
    if target.kind in "ui":
        info = np.iinfo(target)
        return info.min <= low and high <= info.max
    largest = 1 << (np.finfo(target).nmant + 1)  # every integer up to here is exact
    if -largest <= low and high <= largest:
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        there = values.astype(target)
        if not np.isfinite(there).all() or there.max() > np.iinfo(values.dtype).max:
            return False
        return bool(np.array_equal(there.astype(values.dtype), values))
