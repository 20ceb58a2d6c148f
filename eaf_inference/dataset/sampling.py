"""Draw chunks of a data set at random, so that any number of them is spread evenly over files of all sizes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

__all__ = ["places", "range_at"]

_SEED = 20231206  # the same sample each time


def places(sizes: ArrayLike) -> Iterator[tuple[int, float]]:
    """Yield places in a data set without end: the number of a file, and how far into it, from 0 to 1.

    A file comes as often as its size says. With files sorted by size, every beginning of the sequence is spread
    evenly over the whole (a van der Corput sequence that starts at random).

    Parameters
    ----------
    sizes : array of float
        Of the files, none negative, in any unit; not all 0.
    """
    size = np.asarray(sizes, float)
    rng = np.random.default_rng(_SEED)
    shuffled = rng.permutation(len(size))  # files of one size come in no order
    order = shuffled[np.argsort(size[shuffled], kind="stable")]
    ends = np.cumsum(size[order])
    start = rng.random()
    for number in itertools.count():
        at = (start + _reversed_bits(number)) % 1.0 * ends[-1]
        place = min(int(np.searchsorted(ends, at, side="right")), len(ends) - 1)
        width = size[order[place]]
        yield int(order[place]), float(1 - (ends[place] - at) / width) if width else 0.0


def _reversed_bits(number: int) -> float:
    """Return the number whose binary digits behind the point are those of `number` in reverse order."""
    value, digit = 0.0, 0.5
    while number:
        value += digit * (number & 1)
        number, digit = number >> 1, digit / 2
    return value


def range_at(first: int, last: int, cuts: Sequence[int], where: float, wanted: int) -> tuple[int, int]:
    """Return a range of entries, about as long as wanted.

    Parameters
    ----------
    first, last : int
        The first entry and the one after the last of those to choose from.
    cuts : sequence of int
        Where a range may begin; empty for anywhere. It ends at one too if one is near.
    where : float
        How far into them, from 0 to 1.
    wanted : int
        Entries, at least 1.
    """
    start = max(min(int(first + where * (last - first)), last - wanted), first)
    if cuts:
        start = max(first, *(cut for cut in cuts if cut <= start))
    near = [cut for cut in (*cuts, last) if start + wanted / 2 <= cut <= start + 2 * wanted]
    stop = min(near, key=lambda cut: abs(cut - start - wanted)) if near else start + wanted
    return start, min(stop, last)
