"""From a sample to the whole: totals with their uncertainty, and the time of a run. Pure functions of numbers."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Quantity", "fitted", "makespan", "total"]

_ALIKE = 0.03  # columns that differ by less are not told apart, relative to their size
_LEAST = 0.1  # of the mean size: smaller chunks count as if they had it
_PER_COLUMN = 3  # groups for each column of a fit; with fewer, the last column alone is used


@dataclass(frozen=True, slots=True)
class Quantity:
    """An estimate and its uncertainty.

    Attributes
    ----------
    value : float
    error : float
        One standard deviation: ``value ± error`` is an interval of 68 %. It is 0 if the value is known, and infinite
        if the sample does not tell.
    """

    value: float
    error: float = 0.0

    @property
    def low(self) -> float:
        return max(self.value - self.error, 0.0)

    @property
    def high(self) -> float:
        return self.value + self.error

    def times(self, factor: float, error: float = 0.0) -> Quantity:
        """Return the product with a number and its error."""
        return Quantity(self.value * factor, math.hypot(self.error * factor, self.value * error))


def fitted(columns: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coefficients with which the columns add up to what was measured, as well as they can.

    Parameters
    ----------
    columns : array of float, (chunks, columns)
        The last one is the chunk's size: deviations count relative to it, as chunks are drawn in proportion to it.
    measured : array of float, (chunks,)
    """
    size = columns[:, -1]
    size = np.maximum(size, _LEAST * size.mean()) if size.any() else np.ones_like(size)
    scale = np.abs(columns).mean(axis=0)
    scale[scale == 0] = 1.0
    found = np.linalg.lstsq(columns / scale / size[:, None], measured / size, rcond=_ALIKE)[0] / scale
    return np.asarray(found, np.float64)


def total(
    columns: ArrayLike, measured: ArrayLike, totals: ArrayLike, groups: ArrayLike, whole: ArrayLike
) -> tuple[Quantity, NDArray[np.float64]]:
    """Return the total over a data set of what was measured in a sample, and the coefficients.

    The sample's own deviations from the fit are part of the total, so a sample of everything gives the exact total.
    The error comes from leaving out each group in turn (the jackknife).

    Parameters
    ----------
    columns : array of float, (chunks, columns)
        As `fitted` takes them.
    measured : array of float, (chunks,)
    totals : array of float, (columns,)
        Of the whole data set.
    groups : array of int, (chunks,)
        Chunks of one group may resemble each other more than others, such as those of one file.
    whole : array of bool, (chunks,)
        Whether the chunk is one of those that make up the data set, rather than a piece of one.
    """
    x, y, ends = np.asarray(columns, float), np.asarray(measured, float), np.asarray(totals, float)
    group, known = np.asarray(groups), np.asarray(whole, bool)
    names = np.unique(group)
    used = np.flatnonzero(ends * x.any(axis=0))  # not the size where it is not known, as of a list
    if not len(used):
        return Quantity(float(y[known].sum())), np.zeros(x.shape[1])
    if len(names) < _PER_COLUMN * len(used):
        used = used[-1:]
    if len(used) > 2 and fitted(x[:, used], y)[0] < 0:
        used = used[1:]  # a chunk does not cost less than its content
    x, ends = x[:, used], ends[used]

    def of(kept: NDArray[np.bool_]) -> float:
        coefficients = fitted(x[kept], y[kept])
        return float(ends @ coefficients + (y - x @ coefficients)[known].sum())

    value = of(np.ones(len(y), bool))
    coefficients = np.zeros(np.shape(columns)[1])
    coefficients[used] = fitted(x, y)
    seen = float(x[known, -1].sum() / ends[-1])
    if seen > 1 - 1e-9:
        return Quantity(float(y[known].sum())), coefficients
    freedom = len(names) - len(used)
    if freedom < 1:
        return Quantity(value, math.inf), coefficients
    without = np.array([of(group != name) for name in names])
    error = math.sqrt((len(names) - 1) / len(names) * ((without - without.mean()) ** 2).sum() / (1 - seen))
    return Quantity(value, error * _student(freedom)), coefficients


def _student(freedom: int) -> float:
    """Return Student's t for 68 %, to a percent."""
    return 1 + 0.5 / freedom + 0.35 / freedom**2


def makespan(works: Iterable[float], threads: int, speedup: float) -> float:
    """Return the seconds that threads need for chunks, which they take in order.

    Parameters
    ----------
    works : iterable of float
        Seconds that each chunk takes one thread that has the machines and the server for itself.
    threads : int
    speedup : float
        How much more all threads do together than one alone; fewer threads share less, so each is faster.
    """
    active: list[float] = []  # when each chunk ends, in the time of a thread that runs alone
    now = seconds = 0.0

    def finish() -> None:
        nonlocal now, seconds
        pace = max(len(active) / speedup, 1.0)
        end = heapq.heappop(active)
        seconds, now = seconds + (end - now) * pace, end

    for work in works:
        if len(active) == threads:
            finish()
        heapq.heappush(active, now + work)
    while active:
        finish()
    return seconds
