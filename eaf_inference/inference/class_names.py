"""The names of the classes of a model's outputs: from the recipe, or from the parameter ``labels``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["declared_classes", "recipe_classes"]

_MOST_CLASSES = 10_000
_SHOWN = 200  # characters of a name in a message


def recipe_classes(
    names: tuple[str, ...], shapes: Mapping[str, Sequence[int]], left_out: Collection[str]
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Return the classes that a recipe's ``output_names`` gives to an output, and why they are not used.

    Parameters
    ----------
    names : tuple of str
    shapes : mapping of str to sequence of int
        Of the outputs that are numbers.
    left_out : collection of str
        The other outputs.
    """
    taken = {*shapes, *left_out}
    if not names or taken.issuperset(names):
        return {}, ""
    fitting = [name for name, shape in shapes.items() if tuple(shape[-1:]) == (len(names),)]
    if len(names) in (1, len(taken)) and len(fitting) != 1:  # output names from the export, since renamed
        return {}, ""
    if len(fitting) != 1 or len(set(names)) != len(names):
        why = "because they do not name the values of exactly one output"
        return {}, f"its recipe's {len(names)} output_names are not used, {why}"
    return {fitting[0]: names}, ""


def declared_classes(
    model: str, text: str | None, shapes: Mapping[str, Sequence[int]], left_out: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the classes of each output by the parameter ``labels``.

    Raises
    ------
    ConfigurationError
        It is not what is expected, or does not fit the outputs.
    """
    if text is None:
        return {}
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(model, f"they are not JSON: {error}") from error
    if not isinstance(labels, dict):
        raise _wrong(model, "they are not an object")
    labels = {name: classes for name, classes in labels.items() if name not in left_out}
    for name, classes in labels.items():
        if name not in shapes:
            raise _wrong(model, f"there is no output {name[:_SHOWN]!r}")
        is_names = isinstance(classes, list) and all(isinstance(label, str) and label for label in classes)
        if not is_names or len(set(classes)) != len(classes) or len(classes) > _MOST_CLASSES:
            raise _wrong(model, f"those of {name!r} are not a list of different names")
        if not shapes[name] or shapes[name][-1] != len(classes):
            raise _wrong(model, f"{len(classes)} names for {name!r} of shape {list(shapes[name])}")
    return {name: tuple(classes) for name, classes in labels.items()}


def _wrong(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The labels of {model!r} cannot be used: {why}. Expected JSON: output name -> list of class names."
    )
