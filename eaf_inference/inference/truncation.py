"""Which constituents stay where a jet has more than its model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PT", "hardest"]

# The fields that tell which constituents are hard, the first that is there: any that grows with pt within a jet.
PT = ("pt", "part_pt", "part_pt_log", "part_logptrel")


def hardest(pt: NDArray[np.generic], counts: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """The constituents that stay when each jet keeps those of largest pt, in their order.

    Of constituents with equal pt the leading ones stay; one whose pt is NaN goes first.

    Parameters
    ----------
    pt : numpy.ndarray, shape (total,)
        Of all constituents, or anything that grows with it.
    counts : array of int64, shape (jets,)
    most : int
        How many a jet keeps.

    Returns
    -------
    array of bool, shape (total,)
    """
    kept = np.ones(len(pt), np.bool_)
    jets = np.flatnonzero(counts > most)
    starts = (np.cumsum(counts) - counts)[jets]
    own = counts[jets]
    first = np.cumsum(own) - own
    place = np.arange(own.sum()) - np.repeat(first, own)  # within its jet
    at = np.repeat(starts, own) + place
    softness = -pt[at].astype(np.float64)
    softness[np.isnan(softness)] = np.inf
    order = np.lexsort((softness, np.repeat(jets, own)))  # stable: of equals the leading ones come first
    kept[at[order[place >= most]]] = False
    return kept
