"""Read the arrays of graphs in the forms in which callers hold them, into flat arrays.

Nodes and what edges have come as one array, as records of their features, or as a list of one array per feature;
edges as ``2 × edges``, as records of two ends, or as the sources and the targets; and all of them as a list with one
numpy array per graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.conversion import as_numpy, cast
from eaf_inference.inference.layout import misfit
from eaf_inference.inference.nesting import Missing, Outer, Peeled, peel
from eaf_inference.inference.tables import computed, is_column, numbers, table_of
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.nesting import Sizes
    from eaf_inference.inference.spec import TensorSpec

__all__ = ["Given", "as_arrays", "edges_of", "entries_of", "is_list_of_graphs", "place"]

_SOURCES = ("source", "sources", "src", "row", "sender", "senders")
_TARGETS = ("target", "targets", "dst", "col", "receiver", "receivers")


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """One input as it was given.

    Attributes
    ----------
    value : awkward.Array, numpy.ndarray or list of them
    tensor : TensorSpec
    parts : tuple of Peeled
        All of it; or, if `apart`, each of its features, or the sources and the targets.
    apart : bool
    depth : int
        The lists around a graph, as far as the array shows them: an empty one may have more.
    """

    value: Any
    tensor: TensorSpec
    parts: tuple[Peeled, ...]
    apart: bool
    depth: int

    @classmethod
    def of(cls, value: Any, tensor: TensorSpec, *, per_graph: bool, features: Sequence[str] = ()) -> Given:
        """Flatten an input.

        Parameters
        ----------
        value : awkward.Array, numpy.ndarray or list of them
        tensor : TensorSpec
        per_graph : bool
            It is a list with one numpy array per graph.
        features : sequence of str
            The names of its features, if the model names them. Otherwise records are taken by position.
        """
        what = f"Input {tensor.name!r}"
        if per_graph:
            return cls(value, tensor, (_joined(value, tensor),), apart=False, depth=1)
        if isinstance(value, list):
            arrays, apart = value, True
        elif not isinstance(value, np.ndarray) and value.fields:
            missing = [name for name in features if name not in value.fields]
            if missing:
                raise InvalidInput(
                    f"{what} has the fields {', '.join(value.fields)} and lacks {', '.join(missing)}. Expected the "
                    f"model's features: {', '.join(features)}."
                )
            names = _ends(value.fields) if tensor.shape[0] == 2 else value.fields  # of edges, or of nodes
            arrays, apart = [value[name] for name in features or names], True
        else:
            arrays, apart = [value], False
        parts = tuple(_whole(peel(array, what)) for array in arrays)
        inner = 1 if apart else len(tensor.shape)
        return cls(value, tensor, parts, apart, max((_axes(part) for part in parts), default=0) - inner)

    def misfit(self, why: str) -> InvalidInput:
        """Make the error for a value of the wrong form."""
        return misfit(self.tensor, self.value[0] if isinstance(self.value, list) and self.value else self.value, why)


def as_arrays(value: Any, tensor: TensorSpec, features: Sequence[str] = ()) -> Any:
    """Return a numpy or awkward array, or a list of them.

    Parameters
    ----------
    value : object
    tensor : TensorSpec
    features : sequence of str
        The names of its features, if the model names them. Otherwise the columns of tables are taken by position.

    Raises
    ------
    InvalidInput
        It is none of these.
    """
    name = tensor.name
    if isinstance(value, np.ma.MaskedArray) or (isinstance(value, list | tuple) and any(map(np.ma.is_masked, value))):
        kind = "a masked array" if isinstance(value, np.ma.MaskedArray) else "a list with a masked array"
        raise InvalidInput(f"Input {name!r} is {kind}. Expected no missing values: fill them with .filled().")
    if isinstance(value, ak.Array):
        return value
    if isinstance(value, list | tuple):
        for at, each in enumerate(value):
            if not hasattr(each, "__array__"):
                raise InvalidInput(
                    f"Input {name!r} is {kind_of(value)} whose element {at} is {kind_of(each)}. Expected a numpy or "
                    "awkward array, or a list of them."
                )
        return [each if isinstance(each, ak.Array) else _as_numpy(each, tensor, features) for each in value]
    if hasattr(value, "__array__"):
        return _as_numpy(value, tensor, features)
    raise InvalidInput(f"Input {name!r} is {kind_of(value)}. Expected a numpy or awkward array, or a list of them.")


def _as_numpy(value: Any, tensor: TensorSpec, features: Sequence[str]) -> Any:
    """Return an array, a column or a table as numpy has it, or a padded structured array as awkward has it."""
    what = f"Input {tensor.name!r}"
    value = computed(value)
    if isinstance(value, ak.Array):
        return value
    if is_column(value):
        return numbers(value, what)
    table = table_of(value)
    if table is None or not table.names:
        return value if isinstance(value, np.ndarray) else as_numpy(value, what)
    ends = _ends(list(map(str, table.names))) if tensor.shape[0] == 2 else ()  # of edges
    wanted = features or ends
    named = table.named and len(wanted)
    places = table.positions(wanted, what) if named else range(len(table.names))
    columns = [numbers(table.column(at), f"{what}, column {table.names[at]!r}") for at in places]
    return np.stack(columns, axis=0 if tensor.shape[0] == 2 else -1)


def is_list_of_graphs(value: Any) -> bool:
    """Whether a value may have one numpy array per graph; two of them may be the sources and the targets too."""
    return isinstance(value, list) and not any(isinstance(each, ak.Array) for each in value)


def entries_of(given: Given, depth: int) -> tuple[NDArray[Any], Outer, NDArray[np.int64]]:
    """Return one entry per node or edge.

    Returns
    -------
    values : numpy.ndarray, shape (total, …)
    outer : Outer
    counts : array of int64, shape (graphs,)
    """
    inner = given.tensor.shape[1:]
    width = math.prod(inner)
    if not given.apart:
        peeled = _filled_up(given.parts[0], depth + 1 + len(inner))
        if _axes(peeled) == depth + 1 and width == 1:  # a single feature, without an axis for it
            peeled = Peeled(peeled.length, (*peeled.levels, *inner), peeled.content)
        if _axes(peeled) != depth + 1 + len(inner):
            raise given.misfit(f"it has {_axes(peeled)} axes")
        outer, counts = _split(peeled, depth)
        for level, size in zip(peeled.levels[depth:], inner, strict=True):
            if not np.all(np.asarray(level) == size):
                raise given.misfit(f"an axis is not {size} long")
        return cast(peeled.content.reshape(-1, *inner), given.tensor), outer, counts
    if len(given.parts) != width:
        raise given.misfit(f"it has {len(given.parts)} features")
    columns, outer, counts = _alike(given, depth)
    values = np.stack([cast(column, given.tensor) for column in columns], axis=1)
    return values.reshape(-1, *inner), outer, counts


def edges_of(given: Given, depth: int) -> tuple[NDArray[np.int64], Outer, NDArray[np.int64]]:
    """Return the sources and the targets of all edges.

    Returns
    -------
    index : array of int64, shape (2, total)
    outer : Outer
    counts : array of int64, shape (graphs,)
    """
    for part in given.parts:
        if part.content.size and part.content.dtype.kind not in "iu":
            raise InvalidInput(
                f"Input {given.tensor.name!r} has dtype {part.content.dtype}. Expected integers, the positions of "
                "nodes in their graph: convert it with ak.values_astype(edge_index, np.int64)."
            )
    if given.apart:
        if len(given.parts) != 2:
            raise given.misfit(f"it has {len(given.parts)} parts, not the sources and the targets of the edges")
        ends, outer, counts = _alike(given, depth)
        return np.stack([end.astype(np.int64) for end in ends]), outer, counts
    peeled = _filled_up(given.parts[0], depth + 2)
    if _axes(peeled) != depth + 2:
        raise given.misfit(f"it has {_axes(peeled)} axes")
    outer, two = _split(peeled, depth)
    flat = peeled.content.astype(np.int64)
    last = peeled.levels[-1]
    if depth and isinstance(last, int) and last == 2 and not isinstance(peeled.levels[depth - 1], int):
        return np.ascontiguousarray(flat.reshape(-1, 2).T), outer, two  # graphs × edges × 2: pairs of nodes
    if not np.all((two == 2) | (two == 0)):  # a graph without edges may be an empty list
        raise given.misfit(f"{place(outer, int(np.flatnonzero((two != 2) & (two != 0))[0]))} is not 2 × edges")
    lengths = np.broadcast_to(np.asarray(last, np.int64), int(two.sum())).reshape(-1, 2)
    counts = np.zeros(len(two), np.int64)
    counts[two == 2] = lengths[:, 0]
    if not np.array_equal(lengths[:, 0], lengths[:, 1]):
        at = int(np.flatnonzero(two == 2)[np.flatnonzero(lengths[:, 0] != lengths[:, 1])[0]])
        raise given.misfit(f"{place(outer, at)} has more sources than targets, or fewer")
    starts = 2 * (np.cumsum(counts) - counts)  # of the sources of each graph
    sources = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    return np.stack([flat[sources], flat[sources + np.repeat(counts, counts)]]), outer, counts


def place(outer: Outer, graph: int) -> str:
    """Name a graph by its position in the caller's lists: ``graph 3``, or ``graph [2, 3]``."""
    at: list[int] = []
    for level in reversed(outer.levels):
        assert not isinstance(level, Missing)  # noqa: S101  (graphs are refused with these)
        if isinstance(level, int):
            parent, position = divmod(graph, level)
        else:
            ends = np.cumsum(level)
            parent = int(np.searchsorted(ends, graph, side="right"))
            position = graph - int(ends[parent] - level[parent])
        at.append(position)
        graph = parent
    if outer.length is None:
        return "the graph"
    return f"graph {[graph, *at[::-1]]}" if at else f"graph {graph}"


def _ends(names: Sequence[str]) -> Sequence[str]:
    """Put the target of an edge behind its source, if the names say which is which."""
    if len(names) == 2 and names[0].lower() in _TARGETS and names[1].lower() in _SOURCES:
        return names[::-1]
    return names


def _whole(peeled: Peeled) -> Peeled:
    """Return the array without the levels at which None could stand."""
    levels: list[Sizes] = []
    for level in peeled.levels:
        if not isinstance(level, Missing):
            levels.append(level)
        elif level.any:
            raise InvalidInput(
                f"{peeled.what}{peeled.kind} holds missing values (None). Expected graphs without: drop what is "
                "missing with ak.drop_none."
            )
    return replace(peeled, levels=tuple(levels))


def _axes(peeled: Peeled) -> int:
    return 1 + len(peeled.levels)


def _filled_up(peeled: Peeled, axes: int) -> Peeled:
    """Add the lists that the type of an empty array does not show."""
    levels = peeled.levels
    while 1 + len(levels) < axes and not peeled.content.size:
        levels = (*levels, np.zeros(Outer(peeled.length, levels).rows, np.int64))
    return Peeled(peeled.length, levels, peeled.content)


def _split(peeled: Peeled, depth: int) -> tuple[Outer, NDArray[np.int64]]:
    """Return the lists around the graphs, and the sizes of the lists that each graph is."""
    if depth == 0:
        return Outer(None), np.array([peeled.length], np.int64)
    outer = Outer(peeled.length, peeled.levels[: depth - 1])
    return outer, np.broadcast_to(np.asarray(peeled.levels[depth - 1], np.int64), outer.rows)


def _alike(given: Given, depth: int) -> tuple[list[NDArray[Any]], Outer, NDArray[np.int64]]:
    """Return the flat parts, which must all have the same lists."""
    found: list[tuple[Outer, NDArray[np.int64]]] = []
    contents = []
    for part in given.parts:
        peeled = _filled_up(part, depth + 1)
        if _axes(peeled) != depth + 1:
            raise given.misfit(f"one of its parts has {_axes(peeled)} axes")
        found.append(_split(peeled, depth))
        contents.append(peeled.content)
    outer, counts = found[0]
    if not all(own.same_as(outer) and np.array_equal(sizes, counts) for own, sizes in found):
        raise given.misfit("its parts have lists of different lengths")
    return contents, outer, counts


def _joined(parts: Sequence[NDArray[Any]], tensor: TensorSpec) -> Peeled:
    """Join a list with one numpy array per graph."""
    axis = tensor.shape.index(-1)
    empty = np.empty([max(size, 0) for size in tensor.shape], tensor.dtype)
    parts = [part if part.size else empty for part in parts]
    if tensor.shape[1:] == (1,):  # a single feature, without an axis for it
        parts = [part.reshape(-1, 1) if part.ndim == 1 else part for part in parts]
    for at, part in enumerate(parts):
        wanted = tuple(got if size == -1 else size for got, size in zip(part.shape, tensor.shape, strict=False))
        if part.ndim != len(tensor.shape) or part.shape != wanted:
            raise misfit(tensor, part, f"graph {at} is {list(part.shape)}")
    counts = np.array([part.shape[axis] for part in parts], np.int64)
    content = np.concatenate([part.reshape(-1) for part in parts] or [empty.reshape(-1)])
    if axis == 0:
        return Peeled(len(parts), (counts, *tensor.shape[1:]), content)
    return Peeled(len(parts), (2, np.repeat(counts, 2)), content)
