"""Random rows of the shapes that a model takes, for checks without a user's data.

Their values are random numbers around 0, or around the medians of the recipe's variables. So a check on them may find
that scores depend on padding or on other rows, but a NaN may be the rows' fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.inference.recipe import is_mask
from eaf_inference.inference.records import groups_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from eaf_inference.inference.graph_spec import GraphSpec
    from eaf_inference.inference.recipe import Variable
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["generated_rows"]

_ROWS = 24
_USUAL_LENGTHS = 1, 40  # constituents, where the model declares none …
_LONGEST = 256
_FREE_SIZE = 6  # … and of further free axes


def generated_rows(spec: ModelSpec, *, positive: bool = False) -> dict[str, Any] | None:
    """Return random rows as `Model.__call__` takes them; None for a model that takes strings.

    Parameters
    ----------
    spec : ModelSpec
    positive : bool, optional
        All numbers are above 0, for a model that takes logarithms of them.
    """
    if any(tensor.datatype == "BYTES" for tensor in spec.inputs):
        return None
    random: np.random.Generator = _Positive(np.random.PCG64(0)) if positive else np.random.default_rng(0)
    if spec.graph is not None:
        return _graphs(spec, spec.graph, random)
    found: dict[str, Any] = {}
    recipe = spec.recipe
    described = recipe.inputs if recipe is not None else {}
    for group in groups_of(spec, recipe) if recipe is not None else ():
        variables = {each.name: each for name in group.inputs for each in described[name] if not each.is_mask}
        declared = group.declared
        counts = None if group.per_row else _lengths(random, declared.minimum, declared.maximum)
        found[group.name] = _records(variables.values(), counts, random)
    usual = _lengths(random, *_USUAL_LENGTHS)
    collected = {name: each.declared for each in spec.collections for name in each.inputs}
    of_collections: dict[Any, NDArray[np.int64]] = {}
    for tensor in spec.inputs:
        if tensor.optional or tensor.name in described:
            continue
        if tensor.shape.count(-1) != 1:
            found[tensor.name] = _dense(tensor, random, batched=spec.largest_batch > 0)
            continue
        own = collected.get(tensor.name)
        if own is None:
            counts = usual
        else:
            counts = of_collections.setdefault(own, _lengths(random, own.minimum or 1, own.maximum))
        found[tensor.name] = _jagged(tensor, counts, random, batched=spec.largest_batch > 0)
    return found


class _Positive(np.random.Generator):
    """Draws from a normal distribution only what is above 0."""

    def normal(self, *arguments: Any, **options: Any) -> Any:
        return np.abs(super().normal(*arguments, **options)) + 0.1


def _lengths(random: np.random.Generator, least: int, most: int | None) -> NDArray[np.int64]:
    """Draw numbers of constituents, some of them the least and the most."""
    most = max(least, _USUAL_LENGTHS[1]) if most is None else min(most, max(least, _LONGEST))
    found = random.integers(max(least, 1), most, _ROWS, endpoint=True)
    found[:3] = max(least, 1), most, most
    return found


def _records(
    variables: Iterable[Variable], counts: NDArray[np.int64] | None, random: np.random.Generator
) -> ak.Array:
    """Draw values that the recipe's normalisation brings close to 0."""
    total = _ROWS if counts is None else int(counts.sum())
    fields = {
        each.name: (each.median + random.normal(size=total) / (each.norm_factor or 1.0)).astype(np.float32)
        for each in variables
    }
    records = ak.zip(fields)
    return records if counts is None else ak.unflatten(records, counts)


def _dense(tensor: TensorSpec, random: np.random.Generator, *, batched: bool) -> NDArray[Any]:
    shape = tuple(_FREE_SIZE if size == -1 else size for size in tensor.shape)
    return _values(tensor, (_ROWS, *shape) if batched else shape, random)


def _jagged(tensor: TensorSpec, counts: NDArray[np.int64], random: np.random.Generator, *, batched: bool) -> Any:
    """Draw values of rows of these lengths; of the first row alone if no axis counts rows."""
    axis = tensor.shape.index(-1)
    if not batched or len(tensor.shape) > 2:
        number = int(counts[0 if not batched else 1])
        shape = tuple(number if size == -1 else size for size in tensor.shape)
        return _values(tensor, (_ROWS, *shape) if batched else shape, random)
    others = [size for size in tensor.shape if size != -1]
    channels = [
        ak.unflatten(_values(tensor, (int(counts.sum()),), random), counts) for _ in range((others or [1])[0])
    ]
    if not others:
        return channels[0]
    return channels if axis == 1 else ak.zip({str(at): each for at, each in enumerate(channels)})


def _values(tensor: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    """Draw values: of a mask 1, of integers 0 and 1, since others may be out of a table's range."""
    if is_mask(tensor.name):
        return np.ones(shape, tensor.dtype)
    if tensor.dtype.kind == "f":
        return random.normal(size=shape).astype(tensor.dtype)
    return random.integers(0, 2, shape).astype(tensor.dtype)


def _graphs(spec: ModelSpec, graph: GraphSpec, random: np.random.Generator) -> dict[str, Any]:
    """Draw graphs, one of them without edges."""
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    nodes = random.integers(2, min(graph.max_nodes or 12, 12), _ROWS, endpoint=True)
    edges = random.integers(1, min(graph.max_edges or 20, 20), _ROWS, endpoint=True)
    ends = [ak.unflatten(random.integers(0, np.repeat(nodes, edges)), edges) for _ in range(2)]
    found: dict[str, Any] = {graph.edge_index: ends}
    for names, counts in ((graph.nodes, nodes), (graph.edges, edges)):
        for name in names:
            shape = (int(counts.sum()), *tensors[name].shape[1:])
            found[name] = ak.unflatten(ak.from_numpy(_values(tensors[name], shape, random)), counts)
    return found
