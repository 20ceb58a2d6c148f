"""Join many graphs into one: a disjoint union, as PyTorch Geometric batches them.

The nodes of the graphs follow one another, each edge is moved by the nodes before its graph, and the model learns
from `batch` (the graph of each node) or `ptr` (the first node of each graph) where one ends. Nothing is padded.
A graph without nodes goes alone: in a union, `batch` would not show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.inference.conversion import cast
from eaf_inference.inference.graph_spec import EDGE, NODE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_inference.inference.graph_spec import GraphSpec
    from eaf_inference.inference.graphs import Graphs
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.tuning import Sizes

__all__ = ["LARGEST_SHARED", "DisjointUnion", "disjoint_union", "scores_empty", "unions"]

LARGEST_SHARED = 1 << 18  # nodes + edges of a union of several graphs


@dataclass(frozen=True, slots=True, eq=False)
class DisjointUnion:
    """Some graphs as they go to the server.

    Attributes
    ----------
    graphs : array of int64
        Their places among all; several without nodes are sent as one, since they are equal.
    nodes, edges : slice
        The places of their nodes and edges among all.
    number : int
        The graphs that the model sees.
    """

    graphs: NDArray[np.int64]
    nodes: slice
    edges: slice
    number: int
    names: tuple[str, ...]
    tensors: tuple[NDArray[Any], ...]
    maker: _Unions

    @property
    def size(self) -> int:
        return len(self.graphs)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def cells(self) -> float:
        """Its nodes and edges."""
        return float(self.nodes.stop - self.nodes.start + self.edges.stop - self.edges.start)

    def halves(self) -> tuple[DisjointUnion, ...]:
        """Return two unions of half the graphs each; none of a single graph."""
        middle = len(self.graphs) // 2
        if self.number < 2:
            return ()
        return self.maker.of(self.graphs[:middle]), self.maker.of(self.graphs[middle:])

    @property
    def remark(self) -> str:
        """What a message says besides the model's name."""
        without = [what for what, at in (("nodes", self.nodes), ("edges", self.edges)) if at.start == at.stop]
        return f", a graph without {without[0]}" if without and self.number == 1 else ""


class _Unions:
    """Makes unions of consecutive graphs."""

    def __init__(self, graphs: Graphs, spec: ModelSpec, graph: GraphSpec) -> None:
        self._graphs = graphs
        self._graph = graph
        self._ends = np.cumsum(graphs.nodes), np.cumsum(graphs.edges)
        before = self._ends[0] - graphs.nodes
        self._edge_index = graphs.edge_index + np.repeat(before, graphs.edges)
        self._tensors = {tensor.name: tensor for tensor in spec.inputs}
        given = {*graphs.of_nodes, *graphs.of_edges, graph.edge_index, graph.batch, graph.ptr}
        self._names = tuple(tensor.name for tensor in spec.inputs if tensor.name in given)
        arrays = (*graphs.of_nodes.values(), *graphs.of_edges.values(), graphs.edge_index)
        self.nbytes = sum(array.nbytes for array in arrays)

    def of(self, chosen: NDArray[np.int64]) -> DisjointUnion:
        """Join these graphs, between which there are none with nodes."""
        graphs, graph = self._graphs, self._graph
        counts = graphs.nodes[chosen]
        nodes, edges = (
            slice(int(ends[chosen[0]] - each[chosen[0]]), int(ends[chosen[-1]]))
            for ends, each in zip(self._ends, (graphs.nodes, graphs.edges), strict=True)
        )
        made = {
            graph.edge_index: self._edge_index[:, edges] - nodes.start,
            graph.batch: np.repeat(np.arange(len(counts)), counts),
            graph.ptr: np.append(0, np.cumsum(counts)),
        }
        tensors = []
        for name in self._names:
            values = graphs.of_nodes[name][nodes] if name in graphs.of_nodes else None
            values = graphs.of_edges[name][edges] if name in graphs.of_edges else values
            values = made[name] if values is None else values
            values = cast(values, self._tensors[name])
            tensors.append(np.array(values, order="C"))  # a copy, as callers may reuse theirs
        return DisjointUnion(chosen, nodes, edges, len(chosen), self._names, tuple(tensors), self)


def unions(
    graphs: Graphs, spec: ModelSpec, graph: GraphSpec, shape: Sizes, *, together: bool
) -> Iterator[DisjointUnion]:
    """Put each graph into one union, and make the unions one at a time.

    Parameters
    ----------
    graphs : Graphs
    spec : ModelSpec
    graph : GraphSpec
    shape : callable
        Returns the size of the next union, of the bytes of a node or an edge.
    together : bool
        Several graphs may share a union.
    """
    made = _Unions(graphs, spec, graph)
    empty = np.flatnonzero(graphs.nodes == 0)
    if len(empty) and scores_empty(spec, graph):
        yield replace(made.of(empty[:1]), graphs=empty)
    filled = np.flatnonzero(graphs.nodes)
    cells = np.cumsum((graphs.nodes + graphs.edges)[filled])
    cell_bytes = made.nbytes / max(int(cells[-1]), 1) if len(cells) else 1.0
    start = 0
    while start < len(filled):
        end = start + 1
        if together:
            before = int(cells[start - 1]) if start else 0
            most = min(shape(cell_bytes).cells, LARGEST_SHARED)
            end = max(end, int(np.searchsorted(cells, before + most, side="right")))
        yield made.of(filled[start:end])
        start = end


def disjoint_union(graphs: Graphs, spec: ModelSpec, graph: GraphSpec) -> DisjointUnion:
    """Join all of some graphs, which have nodes."""
    return _Unions(graphs, spec, graph).of(np.arange(len(graphs)))


def scores_empty(spec: ModelSpec, graph: GraphSpec) -> bool:
    """Whether a graph without nodes has scores; those per node and per edge it has not."""
    kinds = dict(graph.outputs)
    return any(kinds.get(tensor.name) not in (NODE, EDGE) for tensor in spec.outputs)
