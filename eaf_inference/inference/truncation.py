"""Choose the constituents to keep of a row with more than its model takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout
from eaf_inference.inference.inputs import RaggedInput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.collections import CollectionSpec
    from eaf_inference.inference.inputs import AnyInput
    from eaf_inference.inference.nesting import Nested, Outer

__all__ = ["Truncation", "hardest", "order_of", "orders", "within_lengths"]

# Fields that order constituents by hardness, in order of preference: pt, a function that grows with it within a jet,
# or the two components of the momentum.
PT = (
    *(("pt",), ("part_pt",), ("pfcand_pt",), ("cand_pt",)),
    *(("part_pt_log",), ("part_logptrel",), ("pfcand_pt_log",), ("pfcand_logptrel",)),
    *(("px", "py"), ("part_px", "part_py")),
)
# Endings of other names for such variables, as in CMS's recipes.
_PT_ENDINGS = ("_pt", "_pt_log", "_pt_log_nopuppi", "_ptrel", "_logptrel")


@dataclass(frozen=True, slots=True)
class Truncation:
    """Which constituents of long rows were kept.

    Attributes
    ----------
    collection : str
        Empty if the model has only one.
    most : int
        The constituents that it takes.
    rule : str
        What the kept ones have, such as ``largest pt``; empty if the leading ones were kept.
    """

    collection: str
    most: int
    rule: str

    def remark(self, rows: int, model: str) -> str:
        """Return a sentence about the rows of a model that were cut."""
        where = f" of {self.collection!r}" if self.collection else ""
        jets, its, they = ("jet has", "its", "it has") if rows == 1 else ("jets have", "their", "they have")
        kept = (
            f"{its} {self.most} of {self.rule} were used"
            if self.rule
            else f"{its} leading {self.most} were used, in the order given, as {they} no field pt"
        )
        return f"{rows:,} {jets} more than the {self.most} constituents{where} that {model!r} takes; {kept}."


def hardest(pt: NDArray[np.generic], counts: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Mark the constituents of largest pt in each jet; their order stays.

    Of constituents with equal pt the leading ones are kept; those whose pt is NaN are dropped first.

    Parameters
    ----------
    pt : numpy.ndarray, shape (total,)
        The pt of all constituents, or anything that grows with it.
    counts : array of int64, shape (jets,)
    most : int
        The constituents that a jet keeps.

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
    order = np.lexsort((softness, np.repeat(jets, own)))  # stable: equals keep their order
    kept[at[order[place >= most]]] = False
    return kept


def orders(group: CollectionSpec, variables: Collection[str], *, alone: bool) -> list[tuple[tuple[str, ...], str]]:
    """Return the fields that may decide which constituents are kept, in order of preference, and each one's rule.

    Parameters
    ----------
    group : CollectionSpec
    variables : collection of str
        The recipe's variables of this collection.
    alone : bool
        Whether the records hold this collection only. A pt beside several collections may be another one's.
    """
    if group.sort_by:
        name = group.sort_by.removeprefix("-")
        return [((name,), f"{'smallest' if name != group.sort_by else 'largest'} {name}")]
    own = [name for name in variables if name.endswith(_PT_ENDINGS)]
    fields = [((f"{group.name}_pt",), "largest pt"), *(((name,), f"largest {name}") for name in own)]
    return [*((names, "largest pt") for names in PT if alone or set(names) <= set(variables)), *fields]


def order_of(
    records: Any, group: CollectionSpec, fields: Mapping[str, NDArray[Any]], nested: Nested, *, alone: bool
) -> tuple[NDArray[Any] | None, str]:
    """Return what decides which constituents are kept, the largest first, and the rule; None for the leading ones.

    Parameters
    ----------
    records : awkward.Array
        ``… × jets × constituents``.
    group : CollectionSpec
    fields : mapping of str to numpy.ndarray, shape (total,)
        Variables that were already read or computed.
    nested : Nested
        Their lists.
    alone : bool

    Raises
    ------
    InvalidInput
        The records lack the variable by which the recipe sorts.
    """
    for names, rule in orders(group, fields, alone=alone):
        missing = [name for name in names if name not in fields]
        found = dict(fields)
        if missing:
            try:
                more, own = layout.flatten_fields(records, missing)
            except InvalidInput:  # missing, or something else, such as the jet's own pt
                continue
            if not own.outer.same_as(nested.outer) or not np.array_equal(own.counts, nested.counts):
                continue
            found |= more
        values = [found[name] for name in names]
        value = values[0] if len(values) == 1 else np.hypot(*values)
        return (-value.astype(np.float64) if group.sort_by.startswith("-") else value), rule
    if group.sort_by:
        raise InvalidInput(
            f"The recipe keeps the constituents of long rows by {group.sort_by!r}, which the records lack. Add this "
            "field, or pass shorter rows."
        )
    return None, ""


def within_lengths(
    flat: Sequence[tuple[AnyInput, Outer]], collections: Sequence[CollectionSpec]
) -> tuple[list[tuple[AnyInput, Outer]], list[tuple[Truncation, int]]]:
    """Cut arrays that were passed by name to the greatest length that the model takes: the leading values are kept.

    Parameters
    ----------
    flat : sequence of (input, Outer)
    collections : sequence of CollectionSpec
        Of the model.

    Returns
    -------
    flat : list of (input, Outer)
    truncations : list of (Truncation, int)
        Rows that were cut.
    """
    named = {name: each.name for each in collections for name in each.inputs}
    several = sum(isinstance(each, RaggedInput) for each, _ in flat) > 1
    cut: list[tuple[AnyInput, Outer]] = []
    found: dict[Truncation, int] = {}
    for each, outer in flat:
        if isinstance(each, RaggedInput) and each.spec.lengths:
            most = each.spec.lengths[-1]
            if long := int(np.count_nonzero(each.counts > most)):
                name = named.get(each.spec.name, each.spec.name) if several else ""
                found[Truncation(name, most, "")] = long
                each = replace(each, counts=np.minimum(each.counts, most))
        cut.append((each, outer))
    return cut, list(found.items())
