"""Models called with arrays that dask-awkward has not read yet: the call becomes one more step of their graph.

Dask is not imported: its arrays are recognised by what they can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.nesting import is_tracer
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["is_lazy", "over_partitions"]


def is_lazy(value: Any) -> bool:
    """Whether any of these arrays is a dask-awkward one."""
    return any(_is_partitioned(array) for _, array in _arrays(value))


def over_partitions(model: Callable[..., Any], data: Any) -> Any:
    """Return the dask-awkward array of the scores: `model` is called with each partition when it is computed.

    Raises
    ------
    InvalidInput
        Some of the arrays are lazy and others are not, or the model does not take arrays of these types.
    """
    arrays = dict(_arrays(data))
    first, lazy = next((name, array) for name, array in arrays.items() if _is_partitioned(array))
    for name, array in arrays.items():
        if not _is_partitioned(array):
            raise InvalidInput(
                f"{name} is {kind_of(array)}, but {first} is a dask-awkward array. Expected all of one kind: make it "
                "one with dask_awkward.from_awkward, of the same partitions, or .compute() the others."
            )
    if lazy is data:
        return lazy.map_partitions(model, progress=False)
    # Dask looks into dictionaries, and into no other mappings
    return lazy.map_partitions(_WithPartitions(model), dict(data) if isinstance(data, Mapping) else data)


@dataclass(frozen=True)
class _WithPartitions:
    """Calls a model with several arrays of the same partition.

    dask-awkward's method passes the first array by itself; it is among the data too.
    """

    model: Callable[..., Any]

    @property
    def __name__(self) -> str:
        """The model's name, which Dask shows."""
        return self.model.__name__

    def __call__(self, _first: Any, data: Any) -> Any:
        return self.model(data, progress=False)


def _arrays(value: Any, name: str = "The array") -> Iterator[tuple[str, Any]]:
    """Yield the arrays inside a caller's value, with their names in messages."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _arrays(inner, f"Input {key!r}")
    elif isinstance(value, list | tuple) and value and _is_partitioned(value[0]):
        for position, inner in enumerate(value):
            yield from _arrays(inner, f"{name}, channel {position}")
    else:
        yield name, value


def _is_partitioned(value: Any) -> bool:
    # a Dask collection holds the type of its result as `_meta`; DataFrames of Dask have partitions too
    return hasattr(value, "map_partitions") and is_tracer(getattr(value, "_meta", None))
