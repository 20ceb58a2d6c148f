"""The inputs of variations, each with its name: what a user's functions or generator make, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InferenceError, InvalidInput
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

__all__ = ["NamedInputs", "checked", "naming", "selected", "varied"]

_NOMINAL = "nominal"


@dataclass(frozen=True, slots=True, eq=False)
class NamedInputs:
    """What a user's generator function yields: pairs of a name and a model's input, made anew at each iteration.

    Attributes
    ----------
    make : callable
        Returns an iterator.
    """

    make: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.make()


def selected(select: Callable[[Any], Any], data: Any) -> Any:
    """Return what a user's function makes of some data: the model's input, or `NamedInputs` if it is a generator."""
    found = select(data)
    return NamedInputs(partial(select, data)) if isinstance(found, Iterator) else found


def varied(data: Any, functions: Mapping[str, Callable[[Any], Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the nominal data, and what each function makes of them.

    Raises
    ------
    InvalidInput
        The functions are not what is expected, or one of them fails.
    """
    if not isinstance(functions, Mapping):
        raise InvalidInput(
            f"The variations are {kind_of(functions)}. Expected {{name: function}}, where each function returns the "
            "varied input."
        )
    if _NOMINAL in functions:
        raise InvalidInput(
            f"A variation is called {_NOMINAL!r}, which is the name of the input as it is. Choose another name."
        )
    for name, function in functions.items():
        if not callable(function):
            raise InvalidInput(
                f"The variation {name!r} is {kind_of(function)}. Expected a function that takes the nominal input "
                "and returns the varied one."
            )
    yield _NOMINAL, data
    for name, function in functions.items():
        try:
            made = function(_guarded(data))
        except InferenceError as error:
            raise naming(error, name) from error
        except MemoryError:
            raise
        except Exception as error:
            hint = (
                " It changes its input in place. Expected a function that returns a new array."
                if "read-only" in str(error)
                else ""
            )
            raise InvalidInput(f"The variation {name!r} failed: {type(error).__name__}: {error}.{hint}") from error
        yield name, made


def checked(pairs: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Pass on pairs of a name and an input.

    Raises
    ------
    InvalidInput
        There is none, one is no such pair, or a name comes twice.
    """
    names: set[str] = set()
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise InvalidInput(
                f"A variation is {kind_of(pair)}. Expected pairs of a name and the model's input: yield "
                f"{_NOMINAL!r}, jets."
            )
        if pair[0] in names:
            raise InvalidInput(f"Two variations are called {pair[0]!r}. Expected a name of its own for each.")
        names.add(pair[0])
        yield pair
    if not names:
        raise InvalidInput(f"There is no variation at all. Expected at least one pair: yield {_NOMINAL!r}, jets.")


def naming(error: InferenceError, name: str) -> InferenceError:
    """Return the error with the variation's name."""
    named = type(error)(f"Variation {name!r}: {error}")
    named.__dict__.update(error.__dict__)
    return named


def _guarded(data: Any) -> Any:
    """Return the same data, so that a change in place fails or stays without effect on the caller's."""
    if isinstance(data, Mapping):
        return {name: _guarded(each) for name, each in data.items()}
    if isinstance(data, list | tuple):
        return [_guarded(each) for each in data]
    if isinstance(data, np.ndarray):
        return _read_only(data)
    if isinstance(data, ak.Array) and ak.backend(data) == "cpu":
        form, length, buffers = ak.to_buffers(data)
        if all(isinstance(buffer, np.ndarray) for buffer in buffers.values()):  # none is still to be read
            buffers = {key: _read_only(buffer) for key, buffer in buffers.items()}
            return ak.from_buffers(form, length, buffers, behavior=data.behavior, attrs=data.attrs)
    if isinstance(data, ak.Array):
        return ak.Array(data.layout, behavior=data.behavior, attrs=data.attrs)
    if type(data).__module__.startswith("pandas"):
        return data.copy()
    return data.clone() if hasattr(data, "clone") else data  # of polars or torch


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view: NDArray[Any] = array.view()
    view.flags.writeable = False
    return view
