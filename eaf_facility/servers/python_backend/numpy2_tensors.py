"""Correct tensors for Python models under numpy 2, for which the stub of Triton's wheel was not built.

The stub was compiled for numpy 1, and reads the size of an array's items where numpy 2 stores something else. It
raises no error: `Tensor.as_numpy()` repeats the first value, and `Tensor(name, array)` sends no bytes. Here both go
through DLPack, which does not depend on numpy's memory layout. DLPack has no strings, so a model that reads or sends
them gets an error.

`triton_environment` makes `triton_python_backend_utils` call `install` before any model's code runs. With numpy 1 it
changes nothing. This file runs inside Triton's environment and imports nothing from this package.
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
_USED = b"used_dltensor"  # numpy's name for a consumed capsule; must live as long as any capsule
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes, _set_name.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int


def install(utilities: Any) -> None:
    """Replace what fails under numpy 2, before the stub gives models the `Tensor` of its own module.

    Parameters
    ----------
    utilities
        The namespace of `triton_python_backend_utils`, which calls this function at its end.
    """
    if int(np.__version__.partition(".")[0]) < 2:
        return
    _NATIVE.as_numpy = _as_numpy
    stub.Tensor = _Tensor
    utilities["deserialize_bytes_tensor"] = _Unreadable


class _Unreadable:
    """Stands in for each string input; the stub's own function would crash the model for all its users."""

    def __init__(self, encoded: Any) -> None:
        """Ignore the bytes, of which the stub has already lost all but the first."""

    def reshape(self, shape: Any) -> np.ndarray[Any, Any]:
        return np.full(shape, None, dtype=object)


class _AnyTensor(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _NATIVE)


class _Tensor(metaclass=_AnyTensor):
    """The `pb_utils.Tensor` of models; it makes the stub's own tensors."""

    from_dlpack = staticmethod(_NATIVE.from_dlpack)

    def __new__(cls, name: str, value: np.ndarray[Any, Any]) -> Any:
        """Copy the array, because the model may change it before the response is sent."""
        if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
            raise TypeError(_strings("output", name))
        if not isinstance(value, np.ndarray) or value.dtype not in _NUMBERS or not value.size:
            return _NATIVE(name, value)  # accepts only the empty array, which has no bytes to lose
        capsule = np.array(value, order="C").__dlpack__()
        tensor = _NATIVE.from_dlpack(name, capsule)
        _set_name(capsule, _USED)  # the stub sets another name, for which numpy writes an error to the log
        return tensor


def _as_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    if _native_as_numpy(tensor).dtype == object:  # only its values are wrong
        raise TypeError(_strings("input", tensor.name()))
    # a copy, because the stub's memory is read-only, unaligned, and freed with the request
    return np.array(np.from_dlpack(tensor))


def _strings(kind: str, name: str) -> str:
    return (
        f"the {kind} '{name}' holds strings, which Triton's Python backend cannot exchange with numpy "
        f"{np.__version__}. Run Triton with Python 3.12 or older, which has numpy 1"
    )
