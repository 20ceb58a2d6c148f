"""Decide whether scores that should be equal are, apart from rounding. Pure functions of arrays.

A score is computed twice: for a row alone, and for the row padded or beside others. The two differ by rounding, as a
library sums in another order, or takes another kernel (TF32 or float32, say), for another shape. The difference that
is allowed is found for each output, and for each position on its last axis if that has a fixed size: one output may
hold a mass and a probability. It is the sum of three parts, where L is the largest magnitude of the scores that are
tried, and S their spread between rows:

- 16 · 2⁻²³ · L · max(1, -ln L): a few roundings of numbers of this size. A float32 network with correct masks stays
  below a fifth of it (4e-7 was measured). A small probability is exp(-z), and its relative error is that of z
  times z. Numbers below 2⁻¹²⁶, the smallest normal float32, count as zero. For FP16 and BF16, two
  units in the last place of the score as well.
- The smaller of 1e-5 · max(1, S) and 1e-4 · S. It is S and not L, as scores tell by how much they differ: for a
  probability near 1 that is the size of 1 - p, and for an energy with an offset the size of the energy without it.
  Fewer than three rows with finite scores, and equal scores, do not show S: then it is 1e-5 · max(1, L).
- 4 · N, at most a tenth of L and at most 1e-2 · max(1, L), where N is the largest of m changes of a score with the
  size of the batch alone. Such a change is noise, since nothing is padded. If changes with the padding are noise of
  the same normal distribution, one of 30 exceeds 4 · N with a probability of 4 % for m = 4, 3e-3 for m = 8 and 4e-5
  for m = 16 (from 2e5 simulated trials), so noise is measured again, with other sizes, before padding is refused. An
  effect of padding below 4 · N is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

    Outputs: TypeAlias = Mapping[str, NDArray[Any]]

__all__ = ["Limit", "Noise", "agree", "limits", "noise_of"]

_ROUNDINGS = 16 * 2.0**-23
_RELATIVE, _SMALL = 1e-5, 1e-4  # of the spread; the latter where that is less, as the spread is below 0.1
_TIMES = 4.0  # the noise
_LARGEST_NOISE, _SHARE = 1e-2, 0.1  # with more noise, a dependence on padding cannot be recognised
_ENOUGH = 3  # rows that show how much scores differ
_NORMAL = 2.0**-126  # the smallest normal float32
# two units in the last place: relative and absolute
_COARSE = {"FP16": (2.0**-9, 2.0**-23), "BF16": (2.0**-6, _NORMAL)}


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """The difference that is allowed between scores of one output.

    Attributes
    ----------
    absolute : numpy.ndarray
        For each position on the last axis, or one for all.
    relative : float
        To the score.
    """

    absolute: NDArray[np.float64]
    relative: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """How the scores of some rows change with the batch's size alone.

    Attributes
    ----------
    change : numpy.ndarray
        The largest change of any row, for each position on the last axis of an output, or one for all.
    spread : numpy.ndarray
        Between the scores of these rows.
    """

    change: NDArray[np.float64]
    spread: NDArray[np.float64]

    def at(self, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the noise of other rows, which is less if they have less spread, as probabilities near 1 do."""
        ratio = np.divide(spread, self.spread, out=np.ones_like(spread), where=self.spread > 0)
        return self.change * np.minimum(ratio, 1)


def limits(
    scores: Sequence[Outputs], outputs: Sequence[TensorSpec], noise: Sequence[Mapping[str, Noise]] = ()
) -> dict[str, Limit]:
    """Return the difference that is allowed for each output with floats.

    Parameters
    ----------
    scores : sequence of mapping of str to numpy.ndarray
        Of several rows or graphs, without a batch axis.
    outputs : sequence of TensorSpec
    noise : sequence of mapping of str to Noise, optional
        Of these rows, and of others.
    """
    found = {}
    for spec in outputs:
        if spec.dtype.kind != "f":
            continue
        low, high = _extremes(scores, spec)
        largest, spread = np.maximum(np.abs(low), np.abs(high)), high - low
        unknown = (spread == 0) | (_known(scores, spec) < _ENOUGH)
        least = _RELATIVE * np.maximum(1, np.where(unknown, largest, spread))
        least = np.where(unknown, least, np.minimum(least, _SMALL * spread))
        most = np.minimum(_LARGEST_NOISE * np.maximum(1, largest), np.where(unknown, np.inf, _SHARE * largest))
        change = np.max([each[spec.name].at(spread) for each in noise if spec.name in each] or [0 * spread], axis=0)
        step, smallest = _COARSE.get(spec.datatype, (0.0, _NORMAL))
        rounding = _ROUNDINGS * largest * np.maximum(1, -np.log(np.maximum(largest, _NORMAL)))
        found[spec.name] = Limit(rounding + least + np.minimum(_TIMES * change, most) + smallest, step)
    return found


def noise_of(
    pairs: Iterable[tuple[Outputs, Outputs]], scores: Sequence[Outputs], outputs: Sequence[TensorSpec]
) -> dict[str, Noise]:
    """Return how the scores of each output with floats change.

    Parameters
    ----------
    pairs : iterable of pairs of mappings
        The scores of a row alone, and in a larger batch without more padding.
    scores : sequence of mapping of str to numpy.ndarray
        Of all rows alone.
    outputs : sequence of TensorSpec
    """
    several = list(pairs)
    found = {}
    for spec in outputs:
        if spec.dtype.kind != "f":
            continue
        changes = [
            {spec.name: _change(right[spec.name], other[spec.name])}
            for right, other in several
            if spec.name in right and spec.name in other
        ]
        low, high = _extremes(scores, spec)
        found[spec.name] = Noise(_extremes(changes, spec)[1], high - low)
    return found


def _change(right: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    if right.shape != other.shape:
        return np.zeros((0,) * right.ndim)
    with np.errstate(invalid="ignore"):
        change = np.abs(other.astype(np.float64) - right)
    return np.where(np.isfinite(change), change, 0)


def _known(scores: Sequence[Outputs], spec: TensorSpec) -> NDArray[np.int64]:
    """Return how many rows have a finite score, for each position on a last axis of fixed size."""
    kept = spec.shape[-1:] if spec.shape and spec.shape[-1] != -1 else ()
    own = [each[spec.name] for each in scores if each.get(spec.name, np.empty(0)).size]
    finite = [np.isfinite(each.reshape(-1, *kept)).any(axis=0) for each in own]
    return np.asarray(np.sum(finite or [np.zeros(kept, np.bool_)], axis=0))


def _extremes(scores: Sequence[Outputs], spec: TensorSpec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest finite scores, for each position on a last axis of fixed size."""
    kept = spec.shape[-1:] if spec.shape and spec.shape[-1] != -1 else ()
    own = [each[spec.name].astype(np.float64) for each in scores if each.get(spec.name, np.empty(0)).size]
    rows = [each.reshape(-1, *kept) for each in own] or [np.full((1, *kept), np.nan)]
    values = np.concatenate(rows)
    finite = np.isfinite(values)
    none = ~finite.any(axis=0)
    low = np.where(finite, values, np.inf).min(axis=0)
    high = np.where(finite, values, -np.inf).max(axis=0)
    return np.where(none, 0, low), np.where(none, 0, high)


def agree(right: NDArray[Any], other: NDArray[Any], limit: Limit | None) -> bool:
    """Whether scores of one output are equal. NaN equals only NaN, and integers and strings only themselves.

    Parameters
    ----------
    right, other : numpy.ndarray
    limit : Limit, optional
        From `limits`; needed for floats.
    """
    if right.dtype.kind != "f" or limit is None:
        return np.array_equal(right, other)
    if right.shape != other.shape:
        return False
    with np.errstate(invalid="ignore"):
        change = np.abs(other.astype(np.float64) - right)
        near = change <= limit.absolute + limit.relative * np.abs(right.astype(np.float64))
    same = (other == right) | (np.isnan(other) & np.isnan(right))
    return bool(np.all(same | (near & np.isfinite(other) & np.isfinite(right))))
