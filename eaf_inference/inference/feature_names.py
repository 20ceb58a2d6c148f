"""The names of an input's features, which the model's owner declares in the parameter ``features``.

It is JSON: a list of names if the model has one input that can have them, or ``{input name: list of names}``. An
input can have names if one of its axes has a fixed size: one name for each position on this axis.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from eaf_inference._text import shortened
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["parsed", "source_of", "width_of"]

_SHOWN = 60  # characters of a name in a message


def parsed(model: str, text: str | None, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the features of each input.

    Parameters
    ----------
    model : str
    text : str, optional
        The parameter's text, which is only data.
    shapes : mapping of str to tuple of int
        The model's inputs.

    Raises
    ------
    ConfigurationError
        The text is no such JSON, or does not fit the inputs.
    """
    if text is None:
        return {}
    try:
        features = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(model, f"they are not JSON: {error}") from error
    if isinstance(features, list):
        able = [name for name, shape in shapes.items() if width_of(shape) is not None]
        if len(able) != 1:
            raise _bad(model, f"they are one list, and {len(able)} inputs can have features")
        features = {able[0]: features}
    if not isinstance(features, dict):
        raise _bad(model, "they are neither a list nor an object")
    for name, own in features.items():
        if name not in shapes:
            raise _bad(model, f"there is no input {shortened(name, _SHOWN)!r}")
        is_names = isinstance(own, list) and all(isinstance(each, str) and each for each in own)
        if not is_names or len(set(own)) != len(own):
            raise _bad(model, f"those of {name!r} are not a list of different names")
        if len(own) != width_of(shapes[name]):
            raise _bad(model, f"{len(own):,} names for {name!r} of shape {list(shapes[name])}")
    return {name: tuple(own) for name, own in features.items()}


def width_of(shape: tuple[int, ...]) -> int | None:
    """Return the number of features of an input of this shape; None if its features cannot have names."""
    fixed = [size for size in shape if size != -1]
    return fixed[0] if len(fixed) == 1 and len(shape) <= 2 else None


def source_of(
    name: str, features: Mapping[str, tuple[str, ...]], present: Collection[object], *, optional: bool
) -> tuple[str, ...]:
    """Return the columns from which an input is read: its features, or one with its own name that holds them all.

    If columns are missing, the expected ones are returned; for an optional input without any column, nothing. A
    column with the name of an input never stands for its only feature: it may be another one, such as a vertex's x.
    """
    own = features.get(name, ())
    if not own or (len(own) > 1 and name in present and not set(own) <= set(present)):
        own = (name,)
    return () if optional and set(own).isdisjoint(present) else own


def _bad(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The features of {model!r} cannot be used: {why}. Expected JSON: a list of names, or input name -> list of "
        "names, with one for each position on the input's fixed axis."
    )
