"""Strings as arrays: flatten users' strings for BYTES inputs, and make awkward strings of BYTES outputs.

Inputs are held as bytes, as they travel; outputs as text. Text and bytes convert as UTF-8 in which every byte that is
not valid becomes one surrogate, so nothing is lost. Pure functions of arrays.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout, nesting
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eaf_inference.inference.nesting import Outer, Peeled
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["as_content", "dense_strings", "peeled_strings"]

_KINDS = ("string", "bytestring")  # awkward's
_SHOWN = 60  # characters of a value in a message


def dense_strings(value: Any, spec: TensorSpec, *, batched: bool) -> tuple[NDArray[Any], Outer]:
    """Flatten an input of strings into rows.

    Parameters
    ----------
    value : numpy.ndarray or awkward.Array
        Strings or bytestrings, ``… × rows × shape``. An axis for the shape ``[1]`` may be left out.
    spec : TensorSpec
    batched : bool
        Whether the model takes a batch axis.

    Returns
    -------
    rows : numpy.ndarray of object, shape (rows, *shape)
        Bytes.
    outer : Outer

    Raises
    ------
    InvalidInput
        Values are missing or no strings, or the sizes differ from the declared ones.
    """
    if not isinstance(value, np.ndarray | ak.Array):
        raise layout.misfit(spec, value, "its strings belong in one array")
    peeled, strings = peeled_strings(value, spec)
    places, outer = layout.dense_of(value, spec, batched=batched, peeled=peeled)
    return strings[places.astype(np.int64)], outer


def as_text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def as_content(strings: NDArray[Any]) -> ak.contents.Content:
    """Make awkward strings of flat text."""
    encoded = [text.encode("utf-8", "surrogateescape") for text in strings]
    characters = ak.contents.NumpyArray(np.frombuffer(b"".join(encoded), np.uint8), parameters={"__array__": "char"})
    offsets = np.append(0, np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), dtype=np.int64))
    return ak.contents.ListOffsetArray(ak.index.Index64(offsets), characters, parameters={"__array__": "string"})


def peeled_strings(value: NDArray[Any] | ak.Array, spec: TensorSpec) -> tuple[Peeled, NDArray[Any]]:
    """Flatten an array of strings: the place of each among all strings, in its lists, and all strings as bytes."""
    name = f"Input {spec.name!r}"
    if isinstance(value, np.ndarray):
        places = np.arange(value.size).reshape(value.shape)
        return nesting.peel(places, name), _encoded(value.reshape(-1), name)
    found: list[NDArray[Any]] = []

    def number(content: ak.contents.Content, **_: Any) -> ak.contents.Content | None:
        if content.parameter("__array__") in _KINDS:
            found.append(_pieces(content))
            return ak.contents.NumpyArray(np.arange(len(content)))
        if content.is_option and content.content.parameter("__array__") in _KINDS:
            if content.mask_as_bool(valid_when=False).any():
                raise InvalidInput(
                    f"{name} is {kind_of(value)} and holds missing values. Expected none: drop them with "
                    "ak.drop_none, or fill them with ak.fill_none."
                )
        elif content.is_numpy:
            raise InvalidInput(f"{name} is {kind_of(value)}. Expected strings.")
        return None

    packed = ak.to_packed(ak.from_categorical(ak.typetracer.length_zero_if_typetracer(value)))
    peeled = nesting.peel(ak.transform(number, packed), name)
    return peeled, found[0] if found else np.zeros(0, object)


def _pieces(content: ak.contents.Content) -> NDArray[Any]:
    """Return the bytes of flat awkward strings."""
    content = content.to_ListOffsetArray64(True)  # noqa: FBT003  (a positional argument of awkward)
    offsets, characters = content.offsets.data.tolist(), np.asarray(content.content.data).tobytes()
    strings = np.empty(len(content), object)
    strings[:] = [characters[start:stop] for start, stop in pairwise(offsets)]
    return strings


def _encoded(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the bytes of flat numpy strings."""
    strings = np.empty(len(values), object)
    for place, value in enumerate(values.astype(object).tolist()):
        if isinstance(value, str):
            strings[place] = value.encode("utf-8", "surrogateescape")
        elif isinstance(value, bytes):
            strings[place] = value
        else:
            raise InvalidInput(
                f"{name} has {repr(value)[:_SHOWN]} at position {place}. Expected strings only: fill in what is "
                "missing, and convert numbers with .astype(str)."
            )
    return strings
