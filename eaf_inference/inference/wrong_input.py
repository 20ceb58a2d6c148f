"""What is wrong with an input, in a user's words, with the shortest cure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["field_with", "kind_of", "lacking"]

_DEEPEST = 3  # records in records that are looked through
_BUILTINS = {"int": "a number", "float": "a number", "bool": "a truth value", "str": "a string", "NoneType": "None"}
_OTHER_NAMES = {"energy": ("e",), "pt": ("p_t", "transverse_momentum"), "mass": ("m",)}
_ENERGY = 'records["energy"] = np.hypot(records.mass, records.pt * np.cosh(records.eta))'


def kind_of(value: Any) -> str:
    """What a value is, with its article: ``an awkward array of type 3 * var * float32``, ``a list``."""
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, ak.Array):
        return f"an awkward array of type {_short(str(value.type))}"
    if isinstance(value, ak.Record):
        return "a single awkward record"
    kind = type(value)
    if kind.__name__ in _BUILTINS:
        return _BUILTINS[kind.__name__]
    library = kind.__module__.partition(".")[0]
    name = kind.__name__ if library in ("builtins", "__main__") else f"{library} {kind.__name__}"
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def field_with(records: ak.Array, choices: Sequence[Collection[str]]) -> str:
    """The path of the field, or field's field, whose records have all names of one of the choices; or nothing."""
    level = [("", records)]
    for _ in range(_DEEPEST):
        level = [
            (f"{path}.{name}".lstrip("."), inner)
            for path, array in level
            for name in array.fields
            if (inner := array[name]).fields
        ]
        for path, array in level:
            if any(set(choice) <= set(array.fields) for choice in choices):
                return path
    return ""


def lacking(
    records: Any, wanted: Sequence[str], what: str, *, sources: Sequence[str] = (), computed: Sequence[str] = ()
) -> InvalidInput:
    """The error for records that lack some of the fields that are wanted.

    Parameters
    ----------
    records : object
        Whatever was given in their place.
    wanted : sequence of str
    what : str
        How a message calls the records.
    sources : sequence of str
        The fields of which the missing ones could be computed, all of them.
    computed : sequence of str
        The wanted fields that are computed of these.
    """
    present = tuple(records.fields) if isinstance(records, ak.Array) else ()
    if not present:
        return InvalidInput(
            f"{what} is {kind_of(records)}, without fields. Expected an awkward record array of … × jets × "
            f"constituents with the fields {_either(wanted, sources)}, as ak.zip makes it; not one field of it alone."
        )
    missing = [name for name in wanted if name not in present]
    why = ""
    if sources and not set(sources).isdisjoint(present):  # the shorter way
        missing = [name for name in sources if name not in present]
        first = ", ".join(computed) if len(computed) < 3 else f"{computed[0]} and {len(computed) - 1} others"
        why = f", of which {first} are computed"
    lacks = f"{what} lacks {', '.join(missing)}{why}"
    if not why and sources:
        lacks = f"{what} lacks {', '.join(missing)}; or {', '.join(sources)}, of which they are computed"
    wanted = sources if why else wanted
    return InvalidInput(f"{lacks}. {_cure(records, missing, wanted, sources)} The records have {', '.join(present)}.")


def _cure(records: ak.Array, missing: Sequence[str], wanted: Sequence[str], sources: Sequence[str]) -> str:
    """What to do about missing fields."""
    path = field_with(records, [each for each in (wanted, sources) if each])
    if path:
        return f"Did you mean its field {path!r}? Pass {'events' if '.' in path else 'jets'}.{path}."
    renames = {name: near for name in missing if (near := _nearest(name, records.fields, wanted))}
    if renames:
        meant = ", ".join(f"{near!r} for {name!r}" for name, near in renames.items())
        return f"Did you mean {meant}? Rename {'it' if len(renames) == 1 else 'them'}."
    if list(missing) == ["energy"] and {"mass", "pt", "eta"} <= set(records.fields):
        return f"Add `energy`: {_ENERGY}."
    return f"Add {', '.join(f'`{name}`' for name in missing)}."


def _nearest(name: str, present: Collection[str], wanted: Collection[str]) -> str:
    """The field that was probably meant, among those that are not wanted themselves."""
    free = {each.lower(): each for each in present if each not in wanted}
    known = next((free[other] for other in (name.lower(), *_OTHER_NAMES.get(name, ())) if other in free), "")
    close = get_close_matches(name.lower(), free, n=1, cutoff=0.7)
    return known or (free[close[0]] if close else "")


def _either(wanted: Sequence[str], sources: Sequence[str]) -> str:
    return ", ".join(wanted) + (f" (or {', '.join(sources)}, of which they are computed)" if sources else "")


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
