"""Encode tensors as Triton's protocol sends them, where they differ from numpy's arrays: bfloat16 and strings.

numpy has no bfloat16, so the client holds such tensors as float32. Strings are arrays of objects: bytes in requests,
text in replies. In a tensor each follows its length in 4 bytes. Pure functions of arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

__all__ = ["MOST_STRINGS", "decode", "encode", "least_size", "rounded", "sent_size"]

MOST_STRINGS = 1 << 22  # in one output of a reply; each takes up to 60 bytes more in memory than on its way
_QUIET = np.uint32(0x0040)  # the bit that keeps a NaN a NaN if its other bits are cut off
_PREFIX = 4  # bytes of a string's length
_LONGEST_STRING = (1 << 32) - 1  # bytes


def least_size(spec: TensorSpec) -> int:
    """Return the least bytes of one value as it travels; only strings may have more."""
    return {"BF16": 2, "BYTES": _PREFIX}.get(spec.datatype, spec.dtype.itemsize)


def sent_size(values: NDArray[Any]) -> int:
    """Return the bytes of a tensor of a request, about twice as many for bfloat16."""
    if values.dtype != object:
        return values.nbytes
    return sum(map(len, values.reshape(-1).tolist())) + _PREFIX * values.size


def encode(values: NDArray[Any], datatype: str) -> NDArray[Any]:
    """Return a tensor as it travels: float32 becomes the bits of the nearest bfloat16, ties to even.

    Parameters
    ----------
    values : numpy.ndarray
        C-contiguous, of the data type's dtype.
    datatype : str
        Triton's name.
    """
    if datatype == "BYTES":
        return np.frombuffer(_joined(values.reshape(-1).tolist()), np.uint8)
    if datatype != "BF16":
        return values
    bits: NDArray[np.uint32] = values.view("<u4")
    kept = bits >> 16
    nearest = (bits + (0x7FFF + (kept & 1))) >> 16  # overflows for NaNs alone
    return np.where(np.isnan(values), kept | _QUIET, nearest).astype("<u2")


def decode(raw: bytes, spec: TensorSpec, shape: Sequence[int]) -> NDArray[Any] | None:
    """Return a tensor that came as these bytes: bfloat16 as float32, strings as text; None if they do not fit."""
    number = math.prod(shape)
    if spec.datatype == "BYTES":
        strings = _split(raw, number)
        return None if strings is None else strings.reshape(shape)
    if len(raw) != number * least_size(spec):
        return None
    if spec.datatype == "BF16":
        return _widened(np.frombuffer(raw, "<u2")).reshape(shape)
    if spec.datatype == "BOOL":  # any other byte than 0 means true, and sums count what it holds
        return np.frombuffer(raw, np.uint8).astype(np.bool_).reshape(shape)
    return np.frombuffer(raw, spec.dtype).reshape(shape)


def _joined(strings: list[bytes]) -> bytes:
    if max(map(len, strings), default=0) > _LONGEST_STRING:
        raise InvalidInput("A string is longer than 4 GiB. Expected shorter ones: Triton takes no longer request.")
    return b"".join(piece for each in strings for piece in (len(each).to_bytes(_PREFIX, "little"), each))


def _split(raw: bytes, number: int) -> NDArray[Any] | None:
    """Return this number of strings; None if the bytes are anything else."""
    if number * _PREFIX > len(raw) or number > MOST_STRINGS:  # before memory is taken for them
        return None
    strings = np.empty(number, object)
    position = 0
    for place in range(number):
        start = position + _PREFIX
        position = start + int.from_bytes(raw[position:start], "little")
        if position > len(raw):
            return None
        strings[place] = raw[start:position].decode("utf-8", "surrogateescape")
    return strings if position == len(raw) else None


def rounded(values: NDArray[Any], datatype: str) -> NDArray[Any]:
    """Return the values that arrive if these are sent."""
    return _widened(encode(np.ascontiguousarray(values), datatype)) if datatype == "BF16" else values


def _widened(bits: NDArray[Any]) -> NDArray[Any]:
    """Return bfloat16 as float32."""
    widened: NDArray[Any] = (bits.astype("<u4") << 16).view("<f4")
    return widened
