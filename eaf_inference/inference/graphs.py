"""Turn a caller's graphs into flat arrays of nodes and edges, and check them.

An edge to a number that is no node of its own graph would read a node of another graph once several graphs share a
request, so every edge is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference._text import did_you_mean
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.graph_arrays import Given, as_arrays, edges_of, entries_of, is_list_of_graphs, place
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eaf_inference.inference.graph_spec import GraphSpec
    from eaf_inference.inference.nesting import Outer
    from eaf_inference.inference.spec import ModelSpec

__all__ = ["Graphs", "flatten_graphs", "not_finite", "places_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Graphs:
    """Some graphs, one after another.

    Attributes
    ----------
    nodes, edges : array of int64, shape (graphs,)
        How many each has.
    of_nodes, of_edges : mapping of str to numpy.ndarray
        By input, one entry per node or per edge of all graphs.
    edge_index : array of int64, shape (2, total edges)
        Sources and targets, as positions among the nodes of the edge's own graph.
    """

    nodes: NDArray[np.int64]
    edges: NDArray[np.int64]
    of_nodes: Mapping[str, NDArray[Any]]
    of_edges: Mapping[str, NDArray[Any]]
    edge_index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.nodes)

    def take(self, graphs: NDArray[np.int64]) -> Graphs:
        """Return a copy of some graphs."""
        nodes, edges = places_of(self.nodes, graphs), places_of(self.edges, graphs)
        return Graphs(
            self.nodes[graphs],
            self.edges[graphs],
            {name: values[nodes] for name, values in self.of_nodes.items()},
            {name: values[edges] for name, values in self.of_edges.items()},
            self.edge_index[:, edges],
        )

    def followed_by(self, other: Graphs) -> Graphs:
        """Return these graphs and others."""
        return Graphs(
            np.append(self.nodes, other.nodes),
            np.append(self.edges, other.edges),
            {name: np.concatenate([values, other.of_nodes[name]]) for name, values in self.of_nodes.items()},
            {name: np.concatenate([values, other.of_edges[name]]) for name, values in self.of_edges.items()},
            np.concatenate([self.edge_index, other.edge_index], axis=1),
        )

    def not_finite(self) -> NDArray[np.bool_]:
        """Return which graphs have a NaN or an infinity."""
        found = np.zeros(len(self), np.bool_)
        for counts, arrays in ((self.nodes, self.of_nodes), (self.edges, self.of_edges)):
            for values in arrays.values():
                found |= not_finite(values, counts)
        return found


def not_finite(values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which graphs have a NaN or an infinity among their entries."""
    if values.dtype.kind != "f" or not values.size:
        return np.zeros(len(counts), np.bool_)
    ends = np.cumsum(counts)
    before = np.append(0, np.cumsum(~np.isfinite(values).reshape(len(values), -1).all(axis=1)))
    found: NDArray[np.bool_] = before[ends] > before[ends - counts]
    return found


def places_of(counts: NDArray[np.int64], graphs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of these graphs' entries."""
    own = counts[graphs]
    starts = (np.cumsum(counts) - counts)[graphs]
    places: NDArray[np.int64] = np.repeat(starts - (np.cumsum(own) - own), own) + np.arange(own.sum())
    return places


def flatten_graphs(data: Any, spec: ModelSpec, graph: GraphSpec) -> tuple[Graphs, Outer, bool]:
    """Check a caller's graphs, and flatten them.

    Parameters
    ----------
    data : mapping or awkward.Array
        By input name, or a record array with such fields, or a list with a mapping or PyTorch Geometric's ``Data``
        per graph: nodes ``… × graphs × nodes × F``, or records of F fields;
        edges ``… × graphs × 2 × edges``, or [sources, targets] of ``… × graphs × edges`` each, or records of two
        fields; what each edge has, ``… × graphs × edges × D``. A single graph has no lists around it. Or, for all of
        them, a list with one numpy array per graph.
    spec : ModelSpec
    graph : GraphSpec

    Returns
    -------
    graphs : Graphs
    outer : Outer
        The lists around the graphs.
    as_numpy : bool
        Whether all arrays are numpy arrays.

    Raises
    ------
    InvalidInput
        The arrays are not graphs, or an edge has an end that is no node of its graph.
    """
    values = _by_name(data, spec, graph)
    per_graph = all(is_list_of_graphs(value) for value in values.values())
    given = {
        tensor.name: Given.of(
            values[tensor.name], tensor, per_graph=per_graph, features=spec.features.get(tensor.name, ())
        )
        for tensor in spec.inputs
        if tensor.name in values
    }
    # an empty array without the axes of a single graph is a list without graphs
    none = any(each.depth < 0 and not any(part.content.size for part in each.parts) for each in given.values())
    depth = max(int(none), *(each.depth for each in given.values()))
    index, outer, edges = edges_of(given[graph.edge_index], depth)
    arrays: dict[str, NDArray[Any]] = {}
    nodes = edges
    for name in (*graph.nodes, *graph.edges):
        if name not in given:
            continue
        arrays[name], own, counts = entries_of(given[name], depth)
        if not own.same_as(outer):
            raise InvalidInput(
                f"The inputs of {spec.name!r} do not belong to the same graphs: {name!r} has {own.rows} and "
                f"{graph.edge_index!r} has {outer.rows}, or their outer lists differ. Expected the same events × "
                "graphs in all."
            )
        if name == graph.nodes[0]:
            nodes = counts
        expected, other = (edges, graph.edge_index) if name in graph.edges else (nodes, graph.nodes[0])
        if not np.array_equal(counts, expected):
            at = int(np.flatnonzero(counts != expected)[0])
            raise InvalidInput(
                f"Input {name!r} has {counts[at]} entries in {place(outer, at)}, and {other!r} has {expected[at]}. "
                "Expected the same number in both."
            )
    of_edges = {name: values for name, values in arrays.items() if name in graph.edges}
    of_nodes = {name: values for name, values in arrays.items() if name in graph.nodes}
    graphs = Graphs(nodes, edges, of_nodes, of_edges, index)
    _check_edges(graphs, outer, graph.edge_index)
    _check_sizes(graphs, outer, spec.name, graph)
    return graphs, outer, all(isinstance(value, np.ndarray) for value in values.values())


def _check_edges(graphs: Graphs, outer: Outer, name: str) -> None:
    """Make sure that every edge joins nodes of its own graph."""
    nodes = np.repeat(graphs.nodes, graphs.edges)
    wrong = np.any((graphs.edge_index < 0) | (graphs.edge_index >= nodes), axis=0)
    if not wrong.any():
        return
    at = int(wrong.argmax())
    source, target = graphs.edge_index[:, at].tolist()
    graph = int(np.searchsorted(np.cumsum(graphs.edges), at, side="right"))
    raise InvalidInput(
        f"Input {name!r} has an edge {source} -> {target} in {place(outer, graph)}, which has {nodes[at]} nodes. "
        "Expected positions among the nodes of the edge's own graph, from 0 to the number of its nodes - 1."
    )


def _check_sizes(graphs: Graphs, outer: Outer, model: str, graph: GraphSpec) -> None:
    """Make sure that no graph is larger than declared; leaving out nodes would change its scores."""
    for what, counts, most in (("nodes", graphs.nodes, graph.max_nodes), ("edges", graphs.edges, graph.max_edges)):
        if most is not None and len(larger := np.flatnonzero(counts > most)):
            raise InvalidInput(
                f"{model!r} takes at most {most:,} {what} per graph. {place(outer, int(larger[0])).capitalize()} has "
                f"{counts[larger[0]]:,}, and {len(larger) - 1:,} others have too many. Leave these graphs out, or "
                "build smaller ones."
            )


def _by_field(data: Any) -> tuple[Any, bool]:
    """Return records, or graphs of PyTorch Geometric, by field, and whether they may have other fields than inputs.

    A list with one mapping or object per graph becomes a list for each of their fields, with None for the graphs that
    lack it.
    """
    if isinstance(data, ak.Array | ak.Record) and data.fields:
        return {name: data[name] for name in data.fields}, True
    if hasattr(data, "to_data_list"):  # a batch
        data = data.to_data_list()
    if _is_data(data):
        return data.to_dict(), True
    if not (
        isinstance(data, list | tuple) and data and all(_is_data(each) or isinstance(each, Mapping) for each in data)
    ):
        return data, False
    graphs = [each.to_dict() if _is_data(each) else each for each in data]
    names = dict.fromkeys(name for each in graphs for name in each)
    return {name: [each.get(name) for each in graphs] for name in names}, any(map(_is_data, data))


def _is_data(value: Any) -> bool:
    """Whether this is a graph of PyTorch Geometric."""
    return hasattr(value, "to_dict") and hasattr(value, "num_nodes")


def _by_name(data: Any, spec: ModelSpec, graph: GraphSpec) -> dict[str, Any]:
    """Return the arrays by input name; the names that PyTorch Geometric uses are understood too."""
    expected = f"Expected {{input name: array}} or a record array, with {', '.join(map(repr, graph.inputs))}"
    made = [name for name in (graph.batch, graph.ptr) if name]
    data, has_more = _by_field(data)
    if has_more:  # other fields, such as labels
        data = {name: value for name, value in data.items() if name not in made}
    elif not isinstance(data, Mapping):
        raise InvalidInput(f"{spec.name!r} takes graphs and got {kind_of(data)}. {expected}.")
    for name in made:
        if name in data:
            raise InvalidInput(
                f"Input {name!r} of {spec.name!r} is made by the client, which joins the graphs itself. Leave it out "
                "and pass the graphs apart: graphs × nodes × features and graphs × 2 × edges."
            )
    usual: dict[str, tuple[str, ...]] = dict.fromkeys(graph.edges[:1], ("edge_attr",))
    usual |= {graph.nodes[0]: ("x", "nodes"), graph.edge_index: ("edge_index", "edges")}
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    optional = {tensor.name for tensor in spec.inputs if tensor.optional}
    found: dict[str, Any] = {}
    used: set[str] = set()
    for name in graph.inputs:
        key = next((key for key in (name, *usual.get(name, ())) if key in data and key not in used), None)
        if key is not None:
            found[name] = as_arrays(data[key], tensors[name], spec.features.get(name, ()))
            used.add(key)
        elif name not in optional:
            raise InvalidInput(f"{spec.name!r} lacks an array for {name!r}. {expected}.")
    unknown = [str(name) for name in data if name not in used]
    if unknown and not has_more:
        near = did_you_mean(unknown[0], graph.inputs)
        raise InvalidInput(f"{spec.name!r} has no input {unknown[0]!r}.{near} {expected}.")
    return found
