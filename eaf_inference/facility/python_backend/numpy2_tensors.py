"""Correct tensors for Python models under numpy 2, which the stub of Triton's wheel was not built for.

The stub was compiled for numpy 1, and looks for the size of an array's items where numpy 2 keeps something else. It
raises no error: `Tensor.as_numpy()` gives the first value again and again, and `Tensor(name, array)` sends no bytes.
Here both go through DLPack, which does not depend on numpy's memory layout. DLPack has no strings, so a model that
reads or sends them gets an error.

`environment` lets `triton_python_backend_utils` call `install`, which runs before any model's code. With numpy 1 it
changes nothing. This file runs inside Triton's environment and imports nothing of this package.
"""

from __future__ import annotations

import ctypes
from typing import Any

import c_python_backend_utils as stub
import numpy as np

__all__ = ["install"]

_NATIVE = stub.Tensor
_native_as_numpy = _NATIVE.as_numpy
_NUMBERS = frozenset(map(np.dtype, ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")))
_USED = b"used_dltensor"  # what numpy calls a capsule that has been taken over; must live as long as any capsule
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes, _set_name.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int


def install(utilities: Any) -> None:
    """Replace what is wrong under numpy 2, before the stub gives models the `Tensor` of its own module.

    Parameters
    ----------
    utilities
        The names in `triton_python_backend_utils`, which calls this at its end.
    """
    if int(np.__version__.partition(".")[0]) < 2:
        return
    _NATIVE.as_numpy = _as_numpy
    stub.Tensor = _Tensor
    utilities["deserialize_bytes_tensor"] = _Unreadable


class _Unreadable:
    """What the stub gets for each string input; with its own function it would crash, for all users of the model."""

    def __init__(self, encoded: Any) -> None:
        """Ignore the bytes: the stub has already lost all but the first."""

    def reshape(self, shape: Any) -> np.ndarray[Any, Any]:
        return np.full(shape, None, dtype=object)


class _AnyTensor(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _NATIVE)


class _Tensor(metaclass=_AnyTensor):
    """What models know as `pb_utils.Tensor`; it makes the stub's own tensors."""

    from_dlpack = staticmethod(_NATIVE.from_dlpack)

    def __new__(cls, name: str, value: np.ndarray[Any, Any]) -> Any:
        """Copy the array, as the model may change it before the response is sent."""
        if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
            raise TypeError(_strings("output", name))
        if not isinstance(value, np.ndarray) or value.dtype not in _NUMBERS or not value.size:
            return _NATIVE(name, value)  # it refuses all but the empty array, which has no bytes to lose
        capsule = np.array(value, order="C").__dlpack__()
        tensor = _NATIVE.from_dlpack(name, capsule)
        _set_name(capsule, _USED)  # the stub uses a name of its own, for which numpy writes an error into the log
        return tensor


def _as_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    if _native_as_numpy(tensor).dtype == object:  # its type and shape are right
        raise TypeError(_strings("input", tensor.name()))
    return np.array(
        np.from_dlpack(tensor)
    )  # a copy: the stub's memory is read-only, unaligned, and gone with the request


def _strings(kind: str, name: str) -> str:
    return (
        f"the {kind} '{name}' holds strings, which Triton's Python backend cannot exchange with numpy "
        f"{np.__version__}, only numbers. Run Triton with Python 3.12 or older: it then has numpy 1"
    )
