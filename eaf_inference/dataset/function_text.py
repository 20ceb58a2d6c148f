"""A short text for a function that changes when its code, or what its code uses, changes."""

from __future__ import annotations

import dis
import functools
import hashlib
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["function_text"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))


def function_text(function: Callable[..., Any]) -> str:
    """Return a function's name and a hash of what it does.

    The hash covers the byte code of the function and of functions and classes of the same module that it uses, and
    the numbers, texts and numpy arrays that they refer to; not a function's docstring. Another version of Python has
    other byte code. Of libraries and of their objects only the names count.
    """
    inside = function
    while isinstance(inside, functools.partial):
        inside = inside.func
    module = getattr(inside, "__module__", "")
    text = repr(_parts(function, module, frozenset()))
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    return f"{_name(inside) or type(inside).__qualname__} ({digest})"


def _parts(value: Any, module: str, above: frozenset[int]) -> Any:
    """Return nested tuples of texts that are the same in each process."""
    if isinstance(value, _PLAIN):
        return type(value).__name__, repr(value)
    if isinstance(value, np.ndarray | np.generic):
        return str(value.dtype), np.shape(value), hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
    if id(value) in above:
        return "again"

    def parts(inner: Any) -> Any:
        return _parts(inner, module, above | {id(value)})

    def by_name(values: dict[str, Any]) -> Any:
        return tuple((name, parts(values[name])) for name in sorted(values))

    if isinstance(value, CodeType):
        return value.co_code.hex(), value.co_names, parts(value.co_consts)
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(map(parts, value))
    if isinstance(value, set | frozenset):
        return "set", tuple(sorted(repr(parts(each)) for each in value))
    if isinstance(value, dict):
        return "dict", tuple((parts(key), parts(inner)) for key, inner in value.items())
    if isinstance(value, functools.partial):
        return "partial", parts(value.func), parts(value.args), by_name(value.keywords)
    if isinstance(value, MethodType):
        return "method", parts(value.__func__), parts(value.__self__)
    if isinstance(value, FunctionType) and value.__module__ == module:
        code = value.__code__
        code = code.replace(co_consts=tuple(None if each == value.__doc__ else each for each in code.co_consts))
        cells = zip(code.co_freevars, value.__closure__ or (), strict=True)
        uses = {name: value.__globals__[name] for name in _global_names(code) if name in value.__globals__}
        uses |= {f"{name} of the function around": cell.cell_contents for name, cell in cells}
        return parts(code), parts(value.__defaults__), by_name(value.__kwdefaults__ or {}), by_name(uses)
    if isinstance(wrapped := getattr(value, "__wrapped__", None), FunctionType):  # by lru_cache or numba, for example
        return type(value).__qualname__, parts(wrapped)
    if isinstance(value, staticmethod | classmethod | property):
        return type(value).__name__, parts(value.fget if isinstance(value, property) else value.__func__)
    kind = value if isinstance(value, type) else type(value)
    if kind.__module__ == module and kind is not FunctionType:
        return kind.__qualname__, by_name(_members(kind)) if kind is value else (parts(kind), by_name(_state(value)))
    return kind.__qualname__, getattr(value, "__module__", ""), _name(value)


def _members(kind: type) -> dict[str, Any]:
    """Return the methods and values of a class and of the classes of its module that it derives from."""
    classes = [each for each in reversed(kind.__mro__) if each.__module__ == kind.__module__]
    return {
        name: value
        for each in classes
        for name, value in vars(each).items()
        if isinstance(value, FunctionType) or not (name.startswith("__") and name.endswith("__"))
    }


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object."""
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ())]
    return {
        **{name: getattr(value, name) for name in slots if hasattr(value, name)},
        **getattr(value, "__dict__", {}),
    }


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", "") or getattr(value, "__name__", "")  # older numpy's ufuncs have one only


def _global_names(code: CodeType) -> Iterator[str]:
    """Return the global names that code loads, also in its inner functions and comprehensions."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _global_names(inner)
