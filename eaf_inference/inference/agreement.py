"""Decide whether scores that should be equal are, apart from rounding. Pure functions of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

    Outputs: TypeAlias = Mapping[str, NDArray[Any]]

__all__ = ["agree", "largest_scores"]

_SHARE = 0.1  # of the largest score of a channel: a larger change is no rounding, however small the scores are
_ENOUGH = 3  # scores that show how large they are


def largest_scores(scores: Iterable[Outputs | None], outputs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """Return the largest score of each output, for each position on its last axis if that has a fixed size.

    Parameters
    ----------
    scores : iterable of mapping of str to numpy.ndarray, or None
        Of several rows or graphs, without a batch axis.
    outputs : sequence of TensorSpec

    Returns
    -------
    dict of str to numpy.ndarray
        Infinite where all are zero or too few are known.
    """
    known = [each for each in scores if each is not None]
    found: dict[str, NDArray[Any]] = {}
    for spec in outputs:
        if spec.dtype.kind != "f" or len(known) < _ENOUGH:
            continue
        axis = tuple(range(len(spec.shape) - 1)) if spec.shape and spec.shape[-1] != -1 else None
        own = [each[spec.name] for each in known if spec.name in each]
        sizes = [np.abs(np.where(np.isfinite(each), each, 0)).max(axis=axis, initial=0.0) for each in own]
        largest = np.max(sizes, axis=0) if sizes else np.zeros(())
        found[spec.name] = np.where(largest > 0, largest, np.inf)
    return found


def agree(right: NDArray[Any], other: NDArray[Any], tolerance: float, largest: NDArray[Any] | None) -> bool:
    """Whether scores equal the right ones. NaN equals only NaN, and integers and strings only themselves.

    Parameters
    ----------
    right, other : numpy.ndarray
        Of one output, of equal shape.
    tolerance : float
        The largest difference, relative to a score, to the largest of `right`, and to 1.
    largest : numpy.ndarray, optional
        From `largest_scores`: a difference that is large beside it counts even if it is small beside 1.
    """
    if right.dtype.kind != "f":
        return np.array_equal(right, other)
    if right.shape != other.shape:
        return False
    size = np.abs(right[np.isfinite(right)])
    noise = np.minimum(
        tolerance * max(1.0, float(size.max(initial=0.0))), np.inf if largest is None else largest * _SHARE
    )
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(other - right) <= noise + tolerance * np.abs(right)
    same = (other == right) | (np.isnan(other) & np.isnan(right))
    return bool(np.all(same | (near & np.isfinite(other) & np.isfinite(right))))
