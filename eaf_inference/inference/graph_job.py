"""One call's graphs on their way: unions that go out, and outputs that come back to the caller's lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference import nesting
from eaf_inference.inference.graph_arrays import place
from eaf_inference.inference.graph_spec import EDGE, GRAPH, NODE
from eaf_inference.inference.graphs import flatten_graphs, not_finite, places_of
from eaf_inference.inference.marshal import in_lists
from eaf_inference.inference.scatter import ragged, regular
from eaf_inference.inference.unions import scores_empty, unions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import awkward as ak
    from numpy.typing import NDArray

    from eaf_inference.inference.graph_spec import GraphSpec
    from eaf_inference.inference.graphs import Graphs
    from eaf_inference.inference.nesting import Outer
    from eaf_inference.inference.spec import ModelSpec, TensorSpec
    from eaf_inference.inference.tuning import Sizes
    from eaf_inference.inference.unions import DisjointUnion

__all__ = ["GraphJob", "prepare_graphs"]


def prepare_graphs(data: Any, spec: ModelSpec, graph: GraphSpec) -> GraphJob:
    """Check a caller's graphs, and prepare them for a model.

    Raises
    ------
    InvalidInput
        The arrays are not graphs, or an edge has an end that is no node of its graph.
    """
    graphs, outer, as_numpy = flatten_graphs(data, spec, graph)
    return GraphJob(spec, graph, graphs, GraphOutputs(graphs, outer, spec, graph), outer, as_numpy=as_numpy)


@dataclass(frozen=True, slots=True, eq=False)
class GraphJob:
    """The graphs of one array of a caller's, as `marshal.Job` is for rows."""

    spec: ModelSpec
    graph: GraphSpec
    graphs: Graphs
    outputs: GraphOutputs
    outer: Outer
    as_numpy: bool

    truncations: ClassVar[tuple[()]] = ()  # graphs are never cut
    is_whole: ClassVar[bool] = False

    @property
    def rows(self) -> int:
        return len(self.graphs)

    def batches(self, shape: Sizes, *, together: bool) -> Iterator[DisjointUnion]:
        """Make the unions that hold all graphs."""
        return unions(self.graphs, self.spec, self.graph, shape, together=together)

    def unexplained(self) -> int:
        """Count the graphs with a NaN or an infinity in their scores although their own numbers are finite."""
        found = self.outputs.not_finite()
        return int(np.count_nonzero(found & ~self.graphs.not_finite())) if found.any() else 0

    def result(self) -> Any:
        """Return the outputs in the caller's lists."""

        def read(name: str) -> Any:
            output = self.outputs.of[name]
            return output.dense() if self.as_numpy else output.content()

        return in_lists(self.spec, self.outer, self.rows, read, as_numpy=self.as_numpy)


class GraphOutputs:
    """The outputs of some graphs, while their unions come back in any order."""

    def __init__(self, graphs: Graphs, outer: Outer, spec: ModelSpec, graph: GraphSpec) -> None:
        without = 0 if scores_empty(spec, graph) else int(np.count_nonzero(graphs.nodes == 0))
        self._left = len(graphs) - without
        self.of: dict[str, _Output] = {}
        kinds = dict(graph.outputs)
        for tensor in spec.outputs:
            kind = kinds.get(tensor.name)
            if kind in (NODE, EDGE):
                self.of[tensor.name] = _PerEntry(tensor, graphs, outer, kind)
            elif kind == GRAPH and (graph.batch or graph.ptr):
                self.of[tensor.name] = _PerGraph(tensor, graphs, outer)
            else:
                # a network without `batch` often keeps an axis of length 1 for its only graph; not the only class
                one = (
                    kind == GRAPH
                    and tensor.shape[0] in (1, -1)
                    and not (len(tensor.shape) == 1 and tensor.name in spec.labels)
                )
                self.of[tensor.name] = _Whole(tensor, graphs, outer, one=one)

    @property
    def complete(self) -> bool:
        """Whether every graph is back."""
        return self._left == 0

    def put(self, union: DisjointUnion, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Put a union's outputs, (1, …) each, in the places of its graphs."""
        for name, values in outputs.items():
            self.of[name].put(union, values[0])
        self._left -= union.size

    def take_over(self, graphs: NDArray[np.int64], other: GraphOutputs, places: NDArray[np.int64]) -> None:
        """Give these graphs the outputs of the graphs of another array in these places."""
        for name, output in self.of.items():
            output.take_over(graphs, other.of[name], places)

    def not_finite(self) -> NDArray[np.bool_]:
        """Return which graphs have a NaN or an infinity in any output."""
        found: NDArray[np.bool_] = np.any([each.not_finite() for each in self.of.values()], axis=0)
        return found


class _Output(Protocol):
    """One output, while its unions come back."""

    def put(self, union: DisjointUnion, values: NDArray[Any]) -> None: ...

    def take_over(self, graphs: NDArray[np.int64], other: Any, places: NDArray[np.int64]) -> None: ...

    def not_finite(self) -> NDArray[np.bool_]: ...

    def dense(self) -> NDArray[Any]: ...

    def content(self) -> ak.contents.Content: ...


class _PerEntry:
    """An output with one entry per node, or per edge."""

    def __init__(self, spec: TensorSpec, graphs: Graphs, outer: Outer, kind: str) -> None:
        self._spec = spec
        self._outer = outer
        self._kind = kind
        self._counts = graphs.nodes if kind == NODE else graphs.edges
        self._values = _allocated(spec, int(self._counts.sum()))

    def put(self, union: DisjointUnion, values: NDArray[Any]) -> None:
        at = union.nodes if self._kind == NODE else union.edges
        _check_length(self._spec, values, at.stop - at.start, self._kind, place(self._outer, int(union.graphs[0])))
        self._values[at] = values

    def take_over(self, graphs: NDArray[np.int64], other: _PerEntry, places: NDArray[np.int64]) -> None:
        self._values[places_of(self._counts, graphs)] = other._values[places_of(other._counts, places)]

    def not_finite(self) -> NDArray[np.bool_]:
        return not_finite(self._values, self._counts)

    def dense(self) -> NDArray[Any]:
        each = int(self._counts[0]) if len(self._counts) else 0
        return self._values.reshape(len(self._counts), each, *self._values.shape[1:])

    def content(self) -> ak.contents.Content:
        return nesting.lists(regular(self._values), self._counts)


class _PerGraph:
    """An output with one entry per graph, of a model that knows the graphs of a union."""

    def __init__(self, spec: TensorSpec, graphs: Graphs, outer: Outer) -> None:
        self._spec = spec
        self._outer = outer
        self._values = _allocated(spec, len(graphs))

    def put(self, union: DisjointUnion, values: NDArray[Any]) -> None:
        where = place(self._outer, int(union.graphs[0]))
        if union.nodes.start == union.nodes.stop and not len(values):
            raise InvalidInput(
                f"{where.capitalize()} has no nodes, and the model gives no {self._spec.name!r} for such a graph. "
                "Leave graphs without nodes out: graphs[ak.num(graphs.x) > 0]."
            )
        _check_length(self._spec, values, union.number, GRAPH, where)
        self._values[union.graphs] = values

    def take_over(self, graphs: NDArray[np.int64], other: _PerGraph, places: NDArray[np.int64]) -> None:
        self._values[graphs] = other._values[places]

    def not_finite(self) -> NDArray[np.bool_]:
        return not_finite(self._values, np.ones(len(self._values), np.int64))

    def dense(self) -> NDArray[Any]:
        return self._values

    def content(self) -> ak.contents.Content:
        return regular(self._values)


class _Whole:
    """An output that is kept as it comes, of graphs that go one at a time."""

    def __init__(self, spec: TensorSpec, graphs: Graphs, outer: Outer, *, one: bool) -> None:
        self._spec = spec
        self._outer = outer
        self._one = one
        self._shape = spec.shape[1:] if one else spec.shape
        empty = np.empty([max(size, 0) for size in self._shape], spec.dtype)
        self._values = [empty] * len(graphs)

    def put(self, union: DisjointUnion, values: NDArray[Any]) -> None:
        if self._one:
            _check_length(self._spec, values, 1, GRAPH, place(self._outer, int(union.graphs[0])))
            values = values[0]
        for graph in union.graphs:
            self._values[graph] = values

    def take_over(self, graphs: NDArray[np.int64], other: _Whole, places: NDArray[np.int64]) -> None:
        for graph, place_of in zip(graphs, places, strict=True):
            self._values[graph] = other._values[place_of]

    def not_finite(self) -> NDArray[np.bool_]:
        is_float = self._spec.dtype.kind == "f"
        return np.array([is_float and not np.isfinite(values).all() for values in self._values], np.bool_)

    def dense(self) -> NDArray[Any]:
        shapes = {values.shape for values in self._values}
        if len(shapes) > 1:
            raise BadReply(
                f"Output {self._spec.name!r} came in different shapes, {' and '.join(map(str, sorted(shapes)[:2]))}. "
                "Pass the inputs as awkward arrays."
            )
        return np.stack(self._values) if self._values else self._none()

    def content(self) -> ak.contents.Content:
        return ragged(self._values, self._none()) if -1 in self._shape else regular(self.dense())

    def _none(self) -> NDArray[Any]:
        return np.empty((0, *(max(size, 0) for size in self._shape)), self._spec.dtype)


def _allocated(spec: TensorSpec, entries: int) -> NDArray[Any]:
    try:
        return np.empty((entries, *spec.shape[1:]), spec.dtype)
    except (MemoryError, ValueError) as error:
        raise InvalidInput(
            f"Output {spec.name!r} of {entries:,} entries does not fit into memory: {list(spec.shape[1:])} "
            f"{spec.datatype} each. Pass fewer graphs at a time: model.map(chunks)."
        ) from error


def _check_length(spec: TensorSpec, values: NDArray[Any], expected: int, kind: str, where: str) -> None:
    """Make sure that an output has the declared number of entries."""
    if len(values) != expected:
        raise BadReply(
            f"Output {spec.name!r} came with {len(values)} entries for the {expected} {kind}s that start with "
            f"{where}. The parameter 'graph' declares one per {kind}: tell the model's owner."
        )
