"""Errors for wrong inputs, in the user's terms, with the shortest cure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference._text import shortened
from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

__all__ = ["field_with", "kind_of", "lacking", "nearest", "refuse_jets_for_constituents"]

_LINKS = "pFCandsIdxG"  # what coffea adds to the jets of PFNano, and to the links between jets and candidates
_CANDIDATES = "Pass the candidates: jets.constituents.pf."
_SHOWN = 200  # characters of a type
_DEEPEST = 3  # levels of nested records to search
_BUILTINS = {"int": "a number", "float": "a number", "bool": "a truth value", "str": "a string", "NoneType": "None"}
_OTHER_NAMES = {"energy": ("e", "t"), "pt": ("p_t", "rho", "transverse_momentum"), "mass": ("m", "tau")}


def kind_of(value: Any) -> str:
    """Describe a value, with its article: ``an awkward array of type 3 * var * float32``, ``a list``."""
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, ak.Array):
        return f"an awkward array of type {shortened(str(value.type), _SHOWN)}"
    if isinstance(value, ak.Record):
        return "a single awkward record"
    kind = type(value)
    if kind.__name__ in _BUILTINS:
        return _BUILTINS[kind.__name__]
    library = kind.__module__.partition(".")[0]
    name = kind.__name__ if library in ("builtins", "__main__") else f"{library} {kind.__name__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def field_with(records: ak.Array, choices: Sequence[Collection[str]]) -> str:
    """Return the path of a nested field whose records have all names of one of the choices, or an empty text.

    Of several the one with the most lists around it: of events, the constituents of jets rather than the jets.
    """
    found = _nested_fields(records, lambda present: any(set(choice) <= set(present) for choice in choices))
    return max(found, key=lambda path: found[path], default="")


def _nested_fields(records: ak.Array, suffice: Callable[[Collection[str]], bool]) -> dict[str, int]:
    """Return the paths of nested fields whose records have fields that suffice, and how many axes they have."""
    found: dict[str, int] = {}
    level = [("", records.layout)]
    for _ in range(_DEEPEST):
        level = [
            (f"{path}.{name}".lstrip("."), inner)
            for path, layout in level
            for name in layout.fields
            if (inner := layout[name]).fields and not inner.is_tuple
        ]
        found |= {path: _axes(layout, layout.fields) for path, layout in level if suffice(layout.fields)}
    return found


def _holds_records(layout: ak.contents.Content) -> bool:
    """Whether a field of these records may have records of its own; fast, as most have none."""
    while not layout.is_record and hasattr(layout, "content"):
        layout = layout.content
    return not layout.is_record or any(each.fields for each in layout.contents)


def _axes(layout: ak.contents.Content, names: Iterable[str]) -> int:
    """Return the smallest number of axes of these fields; those that are records do not count."""
    plain = (field.purelist_depth for name in names if not (field := layout[name]).fields)
    return min(plain, default=int(layout.purelist_depth))


def lacking(
    records: Any,
    wanted: Sequence[str],
    what: str,
    *,
    sources: Sequence[str] = (),
    computed: Sequence[str] = (),
    per_row: bool = False,
    used: Collection[str] = (),
) -> InvalidInput:
    """Make the error for records that lack some of the wanted fields.

    Parameters
    ----------
    records : object
        The records, or whatever was passed instead.
    wanted : sequence of str
        The fields that are neither there nor computed.
    what : str
        The name of the records in messages.
    sources : sequence of str
        The fields from which the missing ones could be computed.
    computed : sequence of str
        The wanted fields that would be computed from these.
    per_row : bool
        The fields have one number per row, not one per constituent.
    used : collection of str
        Fields of the records that hold other variables already.
    """
    present = tuple(records.fields) if isinstance(records, ak.Array) else ()
    if isinstance(records, np.ndarray) and records.dtype.names:
        return InvalidInput(
            f"{what} is a structured array of shape {records.shape}, which may hold padding. Expected a boolean "
            "field 'valid' that is False for padding, or awkward records without it: "
            "ak.zip({name: ak.from_regular(x[name])[ak.from_regular(real)] for name in x.dtype.names})."
        )
    if not present:
        return InvalidInput(
            f"{what} is {kind_of(records)}, without fields. Expected an awkward record array of … × jets"
            f"{'' if per_row else ' × constituents'} with the fields {_either(wanted, sources)}, as ak.zip makes it, "
            "not one of its fields."
        )
    missing = [name for name in wanted if name not in present]
    others = [name for name in sources if name not in (*present, *wanted)]
    lacks = ", ".join(missing)
    if others and (
        len(others) <= len(computed) or not set(sources).isdisjoint(present)
    ):  # fewer are missing this way
        plain = [name for name in missing if name not in computed]
        first = ", ".join(computed) if len(computed) < 3 else f"{computed[0]} and {len(computed) - 1} others"
        lacks = f"{', '.join(others)}, from which {first} {'is' if len(computed) == 1 else 'are'} computed"
        lacks = f"{', '.join(plain)}; and {lacks}" if plain else lacks
        wanted, missing = sources, [*plain, *others]
    elif others:
        lacks += f"; or {', '.join(others)}, from which they are computed"
    cure = _cure(records, missing, wanted, sources, used)
    return InvalidInput(f"{what} lacks {lacks}. {cure} The records have {', '.join(present)}.")


def refuse_jets_for_constituents(
    records: ak.Array,
    read: Iterable[str],
    computed: Iterable[str],
    what: str,
    suffice: Callable[[Collection[str]], bool],
) -> None:
    """Refuse jets where their constituents are expected: both have momenta, so the scores would be of events.

    Jets may be the constituents of an event, but not if `computed` has variables of particles in a jet.

    Parameters
    ----------
    records : awkward.Array
    read : iterable of str
        The fields that would be read.
    computed : iterable of str
        The variables that would be computed.
    what : str
        The name of the records in messages.
    suffice : callable
        Returns whether all variables could be read or computed from fields of these names.

    Raises
    ------
    InvalidInput
        The records are jets that have constituents.
    """
    if not any(name.startswith("part_") for name in computed):
        return
    refused = f"{what} is an array of jets. Expected the jets' constituents."
    if _LINKS in records.fields:
        raise InvalidInput(f"{refused} {_CANDIDATES}")
    if not _holds_records(records.layout):
        return
    own = max((records.layout[name].purelist_depth for name in read), default=1)  # jet_pt and the like have fewer
    if inside := next((path for path, axes in _nested_fields(records, suffice).items() if axes > own), ""):
        raise InvalidInput(
            f"{refused} Pass jets.{inside}, or the records without {inside.partition('.')[0]!r} if each of them is "
            "one particle for the model."
        )


def _cure(
    records: ak.Array,
    missing: Sequence[str],
    wanted: Sequence[str],
    sources: Sequence[str],
    used: Collection[str],
) -> str:
    """Suggest what to do about missing fields."""
    with_mass = ["mass" if name == "energy" else name for name in sources]
    if sources and _LINKS in records.fields:
        return _CANDIDATES
    path = field_with(records, [each for each in (wanted, sources, with_mass) if each])
    if path:
        owner = "events" if "." in path or "jet" in path.lower() else "jets"
        return f"Did you mean its field {path!r}? Pass {owner}.{path}."
    renames = {name: near for name in missing if (near := nearest(name, records.fields, (*wanted, *used)))}
    if renames:
        meant = ", ".join(f"{near!r} for {name!r}" for name, near in renames.items())
        return f"Did you mean {meant}? Rename {'it' if len(renames) == 1 else 'them'}."
    other = {"energy": " or `mass`", "mass": " or `energy`"} if sources else {}
    return f"Add {', '.join(f'`{name}`' + other.get(name, '') for name in missing)}."


def nearest(name: str, present: Collection[str], wanted: Collection[str]) -> str:
    """Return the field that was probably meant, among those that are not wanted themselves."""
    free = {each.lower(): each for each in present if each not in wanted}
    known = next((free[other] for other in (name.lower(), *_OTHER_NAMES.get(name, ())) if other in free), "")
    close = get_close_matches(name.lower(), free, n=1, cutoff=0.7)
    return known or (free[close[0]] if close else "")


def _either(wanted: Sequence[str], sources: Sequence[str]) -> str:
    return ", ".join(wanted) + (f" (or {', '.join(sources)}, from which they are computed)" if sources else "")
