"""What a graph network takes and gives: the parameter `graph` of its configuration.

It says which inputs hold nodes and edges, and which outputs have one entry per node, per edge or per graph. The text
comes from the server and is only data: types and shapes are checked, nothing is evaluated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from eaf_inference._text import did_you_mean, shortened
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np

__all__ = ["EDGE", "GRAPH", "NODE", "GraphSpec"]

NODE, EDGE, GRAPH = "node", "edge", "graph"
_KEYS = ("x", "edge_index", "edge_attr", "batch", "ptr", "outputs", "max_nodes", "max_edges")
_EXAMPLE = '{"x": "x", "edge_index": "edge_index", "outputs": {"scores": "node"}}'
_SHOWN = 60  # characters of a wrong value


class Tensor(Protocol):
    """What is read of an input or output."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def optional(self) -> bool: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """The graphs of one model.

    Attributes
    ----------
    nodes : tuple of str
        Inputs with one entry per node, ``[-1, …]``; the key ``x``.
    edge_index : str
        Input ``[2, -1]``: the sources and the targets of the edges, as positions among the nodes.
    edges : tuple of str
        Inputs with one entry per edge, ``[-1, …]``; the key ``edge_attr``.
    batch, ptr : str
        Inputs by which the model knows the graphs of a union: the graph of each node, and the first node of each
        graph. Empty if it takes none.
    outputs : tuple of (str, str)
        Outputs with one entry per node, edge or graph, and which.
    max_nodes, max_edges : int or None
        The most of one graph.
    separate : str
        Why the graphs cannot share a request; empty if they can.
    """

    nodes: tuple[str, ...]
    edge_index: str
    edges: tuple[str, ...] = ()
    batch: str = ""
    ptr: str = ""
    outputs: tuple[tuple[str, str], ...] = ()
    max_nodes: int | None = None
    max_edges: int | None = None
    separate: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that the caller gives."""
        return (*self.nodes, self.edge_index, *self.edges)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        model: str,
        max_batch_size: int,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        left_out: Collection[str] = (),
    ) -> GraphSpec:
        """Read the JSON text, and check it against the model's inputs and outputs.

        Raises
        ------
        ConfigurationError
            It is not JSON, or does not fit the model.
        """
        return _Reader(model, {each.name: each for each in inputs}, {each.name: each for each in outputs}).read(
            text, max_batch_size, left_out
        )


class _Reader:
    def __init__(self, model: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        self._model = model
        self._inputs = inputs
        self._outputs = outputs

    def read(self, text: str, max_batch_size: int, left_out: Collection[str]) -> GraphSpec:
        declared = self._object(text)
        if max_batch_size:
            self._fail(f"max_batch_size is {max_batch_size}. Graphs of different sizes need max_batch_size: 0")
        nodes, edges = self._names(declared, "x"), self._names(declared, "edge_attr")
        (edge_index,) = self._names(declared, "edge_index", single=True) or ("",)
        (batch,) = self._names(declared, "batch", single=True) or ("",)
        (ptr,) = self._names(declared, "ptr", single=True) or ("",)
        if not nodes or not edge_index:
            self._fail(f"it lacks {'x' if not nodes else 'edge_index'!r}. Expected the name of an input")
        self._check_inputs(nodes, edge_index, edges, tuple(name for name in (batch, ptr) if name))
        kinds = self._kinds(declared.get("outputs"), left_out, known=bool(batch or ptr))
        return GraphSpec(
            nodes,
            edge_index,
            edges,
            batch,
            ptr,
            tuple(kinds.items()),
            self._maximum(declared, "max_nodes"),
            self._maximum(declared, "max_edges"),
            self._separate(kinds, tuple(name for name in (edge_index, batch, ptr) if name), known=bool(batch or ptr)),
        )

    def _object(self, text: str) -> dict[str, Any]:
        try:
            declared = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._error(f"it is not JSON: {error}") from error
        if not isinstance(declared, dict):
            self._fail(f"it is {_short(declared)}, not an object")
        for key in declared:
            if key not in _KEYS:
                self._fail(f"it has the key {_short(key)}.{did_you_mean(key, _KEYS)} Known are {', '.join(_KEYS)}")
        return declared

    def _names(self, declared: Mapping[str, Any], key: str, *, single: bool = False) -> tuple[str, ...]:
        """Return the inputs that a key names; several may have one entry per node or edge."""
        value = declared.get(key)
        names = [] if value is None else value if isinstance(value, list) and not single else [value]
        for name in names:
            if not isinstance(name, str) or name not in self._inputs:
                self._fail(f"{key!r} is {_short(value)}, but the inputs are {', '.join(self._inputs)}")
        return tuple(names)

    def _check_inputs(
        self, nodes: tuple[str, ...], edge_index: str, edges: tuple[str, ...], marks: tuple[str, ...]
    ) -> None:
        named = [*nodes, edge_index, *edges, *marks]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            self._fail(f"it names the input {twice!r} twice")
        for tensor in self._inputs.values():
            if tensor.name not in named and not tensor.optional:
                self._fail(f"it says nothing about the input {tensor.name!r}. Add it to x or edge_attr")
        for name in (*nodes, *edges):
            self._check_axes(self._inputs[name], "Input")
        for name in (edge_index, *marks):
            tensor = self._inputs[name]
            wanted = (2, -1) if name == edge_index else (-1,)
            if tensor.shape != wanted or tensor.dtype.kind not in "iu":
                self._fail(
                    f"input {name!r} has shape {list(tensor.shape)} and type {tensor.dtype}. Expected integers of "
                    f"shape {list(wanted)}"
                )

    def _check_axes(self, tensor: Tensor, what: str) -> None:
        if tensor.shape[:1] != (-1,) or -1 in tensor.shape[1:]:
            self._fail(
                f"{what.lower()} {tensor.name!r} has shape {list(tensor.shape)}. Expected one entry per node, edge "
                "or graph along the first axis and fixed sizes of the others: [-1, …]"
            )

    def _kinds(self, value: Any, left_out: Collection[str], *, known: bool) -> dict[str, str]:
        """Return what the outputs have one entry for."""
        if not isinstance(value, dict) or not value:
            self._fail(f"'outputs' is {_short(value)}. Expected an object: output -> {NODE!r}, {EDGE!r} or {GRAPH!r}")
        kinds = {name: kind for name, kind in value.items() if name not in left_out}
        for name, kind in kinds.items():
            if name not in self._outputs:
                self._fail(f"there is no output {_short(name)}, but {', '.join(self._outputs)}")
            if kind not in (NODE, EDGE, GRAPH):
                self._fail(f"output {name!r} is per {_short(kind)}. Expected {NODE!r}, {EDGE!r} or {GRAPH!r}")
            if kind != GRAPH or known:
                self._check_axes(self._outputs[name], "Output")
        return kinds

    def _maximum(self, declared: Mapping[str, Any], key: str) -> int | None:
        value = declared.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            self._fail(f"{key!r} is {_short(value)}. Expected a positive whole number")
        return value

    def _separate(self, kinds: Mapping[str, str], places: Sequence[str], *, known: bool) -> str:
        missing = next((name for name in self._outputs if name not in kinds), None)
        if missing is not None:
            return f"its graph parameter does not say whether output {missing!r} is per node, edge or graph"
        if GRAPH in kinds.values() and not known:
            return "it has an output per graph and no input batch or ptr"
        narrow = next((name for name in places if self._inputs[name].dtype.itemsize < 4), None)
        if narrow is not None:
            return f"input {narrow!r} has type {self._inputs[narrow].dtype}, too narrow for the nodes of many graphs"
        return ""

    def _error(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The parameter 'graph' of {self._model!r} cannot be used: {why}. Expected JSON such as {_EXAMPLE}; tell "
            "the model's owner."
        )

    def _fail(self, why: str) -> NoReturn:
        raise self._error(why)


def _short(value: object) -> str:
    return shortened(repr(value), _SHOWN)
