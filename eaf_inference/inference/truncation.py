"""Which constituents stay where a jet has more than its model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from eaf_inference.inference.layout import Nested

__all__ = ["PT", "hardest", "pt_of"]

# The fields that tell which constituents are hard, the first that are there: pt, what grows with it within a jet, or
# the two whose hypotenuse it is.
PT = (
    *(("pt",), ("part_pt",), ("pfcand_pt",), ("cand_pt",)),
    *(("part_pt_log",), ("part_logptrel",), ("pfcand_pt_log",), ("pfcand_logptrel",)),
    *(("px", "py"), ("part_px", "part_py")),
)


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


def pt_of(records: Any, fields: Mapping[str, NDArray[Any]], nested: Nested) -> NDArray[Any] | None:
    """The pt of all constituents, or what grows with it; None where nothing tells it.

    Parameters
    ----------
    records : awkward.Array
        ``… × jets × constituents``.
    fields : mapping of str to numpy.ndarray, shape (total,)
        Those that have been read of them, or computed.
    nested : Nested
        Their lists.
    """
    for names in PT:
        missing = [name for name in names if name not in fields]
        found = dict(fields)
        if missing:
            try:
                more, own = layout.flatten_fields(records, missing)
            except InvalidInput:  # not there, or something else of that name, such as the jet's own
                continue
            if not own.outer.same_as(nested.outer) or not np.array_equal(own.counts, nested.counts):
                continue
            found |= more
        values = [found[name] for name in names]
        return values[0] if len(values) == 1 else np.hypot(*values)
    return None
