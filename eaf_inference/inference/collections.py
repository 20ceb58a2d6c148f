"""Group a model's inputs into collections: jagged inputs whose rows have the same constituents.

A tagger that takes candidates, secondary vertices and jet variables has two collections, ``pf`` and ``sv``, and a
row-level input, ``jet``, with one value of each variable per row. Every collection has its own lengths and padding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.lengths import Declared
from eaf_inference.inference.recipe import is_mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eaf_inference.inference.recipe import Recipe

__all__ = ["Axes", "CollectionSpec", "axes_of", "collections_of", "declared_of"]

# Prefixes that say nothing: `input_cpf` and `input_sv` are different collections.
_EMPTY_PREFIXES = ("input", "inputs", "in", "x")


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """Inputs whose rows have the same constituents.

    Attributes
    ----------
    name : str
    inputs : tuple of str
        Their names, in the model's order.
    declared : Declared
        The lengths that they declare together.
    sort_by : str
        The variable whose largest values decide which constituents of a long row are kept, with a leading ``-`` its
        smallest; empty if the recipe names none.
    per_row : bool
        Its variables have one value per row instead.
    """

    name: str
    inputs: tuple[str, ...]
    declared: Declared = field(default_factory=Declared)
    sort_by: str = ""
    per_row: bool = False

    @property
    def single(self) -> bool:
        """Whether every row has exactly one constituent, so that a number per row is enough."""
        return (self.declared.minimum, self.declared.maximum) == (1, 1)

    def __str__(self) -> str:
        few, most = self.declared.minimum, self.declared.maximum
        if self.per_row or self.single:
            lengths = "one value per row"
        elif most:
            lengths = f"{few} to {most}" if few else f"up to {most}"
        else:
            lengths = f"at least {few}" if few else ""
        return f"{self.name} ({', '.join(self.inputs)}{f'; {lengths}' if lengths else ''})"


@dataclass(frozen=True, slots=True)
class Axes:
    """What the axes of an input mean, if it holds a number of variables of each constituent or row.

    Attributes
    ----------
    length : int or None
        The axis of the constituents; None for a row-level input.
    size : int or None
        Its size; None if it is variable.
    """

    length: int | None = None
    size: int | None = None


def axes_of(shape: Sequence[int], variables: int) -> Axes | None:
    """Return what the axes of a shape mean for this number of variables; None if they do not fit.

    ``[C, -1]``, ``[-1, C]``, ``[C, L]`` and ``[L, C]`` have one value of each variable per constituent, and so have
    ``[-1]`` and ``[L]`` for one variable. ``[C]`` and ``[1]`` have one per row. Axes of size 1 do not matter.
    """
    wide = [(axis, size) for axis, size in enumerate(shape) if size != 1]
    if (not wide and variables == 1) or (len(wide) == 1 and wide[0][1] == variables):
        return Axes()
    if len(wide) == 1 and variables == 1:
        axis, size = wide[0]
    elif len(wide) == 2 and variables in (wide[0][1], wide[1][1]):
        axis, size = wide[1] if wide[0][1] == variables else wide[0]
    else:
        return None
    return Axes(axis, None if size == -1 else size)


def declared_of(name: str, shape: Sequence[int], recipe: Recipe | None) -> Declared | None:
    """Return the lengths that an input declares; None if its rows all have one size."""
    if recipe is None or name not in recipe.inputs:
        return Declared() if shape.count(-1) == 1 else None
    axes = axes_of(shape, len(recipe.inputs[name]))
    if axes is None or axes.length is None:
        return None
    return recipe.lengths[name] if axes.size is None else Declared(axes.size, axes.size)


def collections_of(
    model: str, shapes: Mapping[str, Sequence[int]], recipe: Recipe | None, text: str | None = None
) -> tuple[CollectionSpec, ...]:
    """Group the inputs that certainly belong together.

    The parameter ``collections`` of the model's configuration decides. For other inputs it is the part of the name
    before the first underscore, if the recipe declares equal lengths or one of the inputs is a mask; and one mask
    for all inputs without such a part. Jagged inputs that are in no collection after that are grouped anew in every
    array, by the lengths that their rows have there.

    Parameters
    ----------
    model : str
    shapes : mapping of str to sequence of int
        By input name, without the batch axis (-1: variable).
    recipe : Recipe or None
    text : str or None
        The parameter: JSON, collection name -> list of input names.

    Raises
    ------
    ConfigurationError
        The parameter is not what is expected.
    """
    declared = {name: declared_of(name, shape, recipe) for name, shape in shapes.items()}
    jagged = {name: each for name, each in declared.items() if each is not None}
    per_row = [name for name in declared if name not in jagged and recipe is not None and name in recipe.inputs]
    groups = {} if text is None else _parsed(model, text, jagged, per_row)
    named = {name for names in groups.values() for name in names}
    for kind in (jagged, per_row):
        free = [name for name in kind if name not in named]
        for prefix in dict.fromkeys(map(prefix_of, free)):
            alike = [name for name in free if prefix_of(name) == prefix]
            parts = [alike] if recipe is None or kind is per_row else _by_lengths(alike, jagged)
            for names in parts:
                certain = len(names) == 1 or any(map(is_mask, names)) or bool(prefix)
                if (recipe is None and not any(map(is_mask, names))) or not certain:
                    continue
                free_name = prefix and len(parts) == 1 and prefix not in groups
                groups[prefix if free_name else names[0]] = names
    sort_by = {} if recipe is None else recipe.sort_by
    return tuple(
        CollectionSpec(
            name,
            tuple(names),
            Declared.of_all(jagged[each] for each in names if each in jagged),
            next((sort_by[each] for each in names if each in sort_by), ""),
            per_row=names[0] not in jagged,
        )
        for name, names in groups.items()
    )


def prefix_of(name: str) -> str:
    """Return the part of an input's name that names its collection, or an empty text."""
    first, underscore, rest = name.partition("_")
    if underscore and first.lower() in _EMPTY_PREFIXES:
        return rest.partition("_")[0]
    return first if underscore else ""


def _by_lengths(names: Sequence[str], jagged: Mapping[str, Declared]) -> list[list[str]]:
    found: dict[Declared, list[str]] = {}
    for name in names:
        found.setdefault(jagged[name], []).append(name)
    return list(found.values())


def _parsed(model: str, text: str, jagged: Mapping[str, Declared], per_row: Sequence[str]) -> dict[str, list[str]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(model, f"it is not JSON: {error}") from error
    if not isinstance(data, dict) or not all(data):
        raise _wrong(model, "it is not an object of collection names")
    known, seen = (*jagged, *per_row), set[str]()
    for collection, names in data.items():
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise _wrong(model, f"the collection {collection[:200]!r} is not a list of input names")
        for name in names:
            if name not in known:
                raise _wrong(
                    model,
                    f"{name[:200]!r} is not an input with constituents or of the recipe; these are "
                    f"{', '.join(known) or 'none'}",
                )
            if name in seen:
                raise _wrong(model, f"the input {name!r} is in it twice")
            seen.add(name)
        if len({name in jagged for name in names}) > 1:
            raise _wrong(model, f"{collection[:200]!r} mixes inputs with constituents and others")
        together = Declared.of_all(jagged[name] for name in names if name in jagged)
        if together.maximum is not None and together.minimum > together.maximum:
            raise _wrong(
                model,
                f"the least length of {collection[:200]!r}, {together.minimum}, is above its greatest, "
                f"{together.maximum}",
            )
    return data


def _wrong(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The parameter 'collections' of {model!r} cannot be used: {why}. Expected JSON: collection name -> list of "
        "input names. Ask the model's owner to correct its config.pbtxt."
    )
