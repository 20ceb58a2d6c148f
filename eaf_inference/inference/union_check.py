"""Find out whether a model scores a graph in a union as it does alone, with the user's own graphs before any union.

The graphs of a union share no edge, so a graph network scores each of them as if it were alone, unless something in
it goes over all nodes: a normalisation by the batch's own mean, a mean without `batch`, neighbours sought among all
nodes. So a few graphs are sent alone and in unions, with other values beside them too. If their scores differ, every
graph gets a request of its own.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eaf_inference.inference.agreement import agree, limits, noise_of
from eaf_inference.inference.caller import warn_caller
from eaf_inference.inference.graph_spec import GRAPH, NODE
from eaf_inference.inference.unions import LARGEST_SHARED, disjoint_union

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.errors import InferenceError
    from eaf_inference.inference.agreement import Limit, Noise
    from eaf_inference.inference.graph_spec import GraphSpec
    from eaf_inference.inference.graphs import Graphs
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.unions import DisjointUnion

    Outputs: TypeAlias = Mapping[str, NDArray[Any]]
    Send: TypeAlias = Callable[[Sequence[DisjointUnion]], Sequence[Outputs | InferenceError]]

__all__ = ["UnionCheck", "UnionFinding"]

_SPREAD = 4  # graphs tried besides the extreme ones
_TRIED = 8192  # nodes + edges of the unions of a trial


@dataclass(frozen=True, slots=True)
class UnionFinding:
    """What is known about unions of a model's graphs.

    Attributes
    ----------
    low, high : tuple of int
        The binary orders of magnitude of nodes and edges that were tried.
    note : str
        Why graphs go one at a time; empty if unions were right so far.
    """

    low: tuple[int, int] = (1, 1)
    high: tuple[int, int] = (0, 0)
    note: str = ""

    def covers(self, graphs: Graphs) -> NDArray[np.bool_]:
        """Return which graphs are of a size that was tried."""
        sizes = _orders(graphs)
        known: NDArray[np.bool_] = np.all((sizes >= np.array(self.low)) & (sizes <= np.array(self.high)), axis=1)
        return known

    def after(self, graphs: Graphs) -> UnionFinding:
        """Return the finding after these graphs were tried too."""
        sizes = _orders(graphs)
        if self.low <= self.high:
            sizes = np.concatenate([sizes, [self.low, self.high]])
        low, high = sizes.min(axis=0).tolist(), sizes.max(axis=0).tolist()
        return replace(self, low=(low[0], low[1]), high=(high[0], high[1]))


def _orders(graphs: Graphs) -> NDArray[np.int64]:
    return np.stack([np.frexp(graphs.nodes)[1], np.frexp(graphs.edges)[1]], axis=1).astype(np.int64)


class UnionCheck:
    """Whether one model's graphs may share requests. All copies of a model in a process share one check."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._trying = threading.Lock()
        self.found = UnionFinding(note=_alone(spec.graph.separate) if spec.graph else "")

    @property
    def note(self) -> str:
        """The finding in words; empty if there is nothing to report."""
        return self.found.note

    def adopt(self, found: UnionFinding) -> None:
        """Take over another process's finding, unless this one has its own; that graphs are mixed is never lost."""
        with self._trying:
            if not self.found.note and (found.note or self.found == UnionFinding()):
                self.found = found

    def together(self, graphs: Graphs, graph: GraphSpec, send: Send) -> bool:
        """Return whether these graphs may share requests, after trying some if they are unlike those before.

        Parameters
        ----------
        graphs : Graphs
        graph : GraphSpec
        send : callable
            Sends unions and returns, for each, its outputs or the error with which the model refused it.
        """
        shared = np.flatnonzero((graphs.nodes > 0) & (graphs.nodes + graphs.edges <= LARGEST_SHARED))
        if len(shared) < 2:
            return not self.found.note
        with self._trying:
            if self.found.note:
                return False
            untried = shared[~self.found.covers(graphs)[shared]]
            if not len(untried):
                return True
            chosen = _chosen(graphs, shared, untried)
            some = graphs.take(chosen)
            room = np.cumsum((graphs.nodes + graphs.edges)[shared]) <= _TRIED - int((some.nodes + some.edges).sum())
            why = _Trial(self._spec, graph, some, graphs.take(shared[room]), send).why_apart()
            if why is None:  # the graphs were no evidence: the model refuses them, or their scores are all NaN
                return False
            if why:
                self.found = replace(self.found, note=_alone(why))
                warn_caller(
                    f"Model {self._spec.name!r}: {self.found.note}. That costs time; a network whose layers keep the "
                    "graphs of a union apart does not need it."
                )
                return False
            self.found = self.found.after(some)
            return True


def _alone(why: str) -> str:
    return f"one graph goes per request: {why}" if why else ""


def _chosen(graphs: Graphs, shared: NDArray[np.int64], untried: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose the extreme ones of the untried graphs, and some others beside them."""
    extreme = [
        untried[at]
        for counts in (graphs.nodes[untried], graphs.edges[untried])
        for at in (counts.argmin(), counts.argmax())
    ]
    spread = shared[np.linspace(0, len(shared) - 1, _SPREAD).round().astype(np.int64)]
    return np.unique(np.append(spread, extreme))


class _Trial:
    """Some graphs and the same with other values, sent alone and in unions.

    Parameters
    ----------
    graphs : Graphs
    before : Graphs
        Graphs that fill up a union as large as those to come.
    """

    def __init__(self, spec: ModelSpec, graph: GraphSpec, graphs: Graphs, before: Graphs, send: Send) -> None:
        self._spec = spec
        self._kinds = dict(graph.outputs)
        self._graph = graph
        self._send = send
        self._number = len(graphs)
        other = _with_other_values(graphs)
        every = graphs if other is None else graphs.followed_by(other)  # graph i + number is i with other values
        self._before = range(len(every), len(every) + len(before))
        self._graphs = every.followed_by(before)
        self._right: dict[int, Outputs] = {}

    def why_apart(self) -> str | None:
        """Return why graphs may not share a request; empty if they may, None if nothing was learnt."""
        every = range(self._before.start)
        for graph, outcome in zip(every, self._scores([[graph] for graph in every]), strict=True):
            if not isinstance(outcome, Exception):
                self._right[graph] = outcome[0]
        own = [graph for graph in self._right if graph < self._number]
        values = [each for graph in own for each in self._right[graph].values() if each.size]
        if len(own) < 2 or not any(each.dtype.kind != "f" or np.isfinite(each).any() for each in values):
            return None
        other = [graph for graph in self._right if graph >= self._number]
        beside = [self._beside_others(own, parity) for parity in (0, 1)]
        unions = [own, *beside, [*self._before, *own[::-1]], *([other] if len(other) > 1 else [])]
        outcomes = self._scores(unions)
        found: list[dict[int, Outputs]] = []
        for union, outcome in zip(unions, outcomes, strict=True):
            if isinstance(outcome, Exception):
                return f"it refuses several in one ({outcome})"
            found.append(dict(zip(union, outcome, strict=True)))
        allowed = limits(list(self._right.values()), self._spec.outputs)
        # the sizes are the same, so other values beside a graph change nothing at all, not even the rounding
        same = all(
            _agree(found[0][graph], outputs[graph], allowed)
            for outputs in found[1:3]
            for graph in own
            if graph in outputs
        )
        if same and other and not self._as_alone(found, allowed):
            allowed = limits(list(self._right.values()), self._spec.outputs, [self._noise(own)])
        return "" if same and self._as_alone(found, allowed) else "its scores depend on the others of a request"

    def _beside_others(self, own: Sequence[int], parity: int) -> list[int]:
        """Give every second graph other values."""
        changed = [graph + self._number for graph in own]
        return [
            other if at % 2 == parity and other in self._right else graph
            for at, (graph, other) in enumerate(zip(own, changed, strict=True))
        ]

    def _as_alone(self, found: Sequence[Mapping[int, Outputs]], allowed: Mapping[str, Limit]) -> bool:
        """Whether graphs have the scores that they have alone."""
        return all(
            _agree(self._right[graph], outputs, allowed)
            for each in found
            for graph, outputs in each.items()
            if graph in self._right
        )

    def _noise(self, own: Sequence[int]) -> Mapping[str, Noise]:
        """Return how scores change beside copies of the same graph."""
        outcomes = zip(own, self._scores([[graph] * 3 for graph in own]), strict=True)
        pairs = [(self._right[graph], each[0]) for graph, each in outcomes if not isinstance(each, Exception)]
        return noise_of(pairs, list(self._right.values()), self._spec.outputs)

    def _scores(self, unions: Sequence[Sequence[int]]) -> list[list[Outputs] | InferenceError]:
        """Send unions of these graphs, and return the outputs of each graph."""
        sent = [disjoint_union(self._graphs.take(np.array(union)), self._spec, self._graph) for union in unions]
        return [
            outcome if isinstance(outcome, Exception) else self._split(np.array(union), outcome)
            for union, outcome in zip(unions, self._send(sent), strict=True)
        ]

    def _split(self, union: NDArray[np.int64], outputs: Outputs) -> list[Outputs]:
        counts = {NODE: self._graphs.nodes[union], GRAPH: np.ones(len(union), np.int64)}
        split: list[dict[str, NDArray[Any]]] = [{} for _ in union]
        for name, values in outputs.items():
            own = counts.get(self._kinds[name], self._graphs.edges[union])
            if len(values[0]) != own.sum():
                continue  # an entry too many or too few: the graphs lack this output, so they differ
            for graph, part in zip(split, np.split(values[0], np.cumsum(own)[:-1]), strict=True):
                graph[name] = part
        return list(split)


def _agree(right: Outputs, other: Outputs, allowed: Mapping[str, Limit]) -> bool:
    """Whether the outputs of a graph are equal."""
    return right.keys() == other.keys() and all(
        agree(values, other[name], allowed.get(name)) for name, values in right.items()
    )


def _with_other_values(graphs: Graphs) -> Graphs | None:
    """Give graphs other numbers, positive, negative and mixed in turn; None if all are integers."""
    random = np.random.default_rng(0)

    def drawn(values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
        if values.dtype.kind != "f":
            return values
        numbers = random.normal(size=values.shape)
        kind = np.repeat(np.arange(len(counts)) % 3, counts).reshape(-1, *(1 for _ in values.shape[1:]))
        away = np.abs(numbers) + 0.5
        return np.select([kind == 0, kind == 1], [away, -away], away * np.sign(numbers)).astype(values.dtype)

    if not any(values.dtype.kind == "f" for values in (*graphs.of_nodes.values(), *graphs.of_edges.values())):
        return None
    return replace(
        graphs,
        of_nodes={name: drawn(values, graphs.nodes) for name, values in graphs.of_nodes.items()},
        of_edges={name: drawn(values, graphs.edges) for name, values in graphs.of_edges.items()},
    )
