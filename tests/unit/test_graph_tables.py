"""Graphs as PyTorch Geometric has them, and tables of their nodes and edges."""

from __future__ import annotations

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from builders import tensor
from test_graphs import BATCH, GRAPHS, INPUTS, PTR, arrays_of, scored, spec_of

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.graph_job import prepare_graphs


class Data:
    """A graph as PyTorch Geometric has it."""

    num_nodes = 3

    def __init__(self, **values):
        self.values = values

    def to_dict(self):
        return self.values


class Batch(Data):
    def to_data_list(self):
        return self.values["graphs"]


def test_a_list_may_have_one_mapping_or_object_per_graph():
    x, edges, weights = arrays_of(GRAPHS)
    expected = scored({"x": x, "edge_index": edges, "edge_attr": weights}, spec_of())[0].to_list()
    each = [{"x": a, "edge_index": b, "edge_attr": c} for a, b, c in zip(x, edges, weights, strict=True)]
    of_geometric = [Data(**one, y=[1.0], batch=np.zeros(3, int)) for one in each]
    for data in (each, of_geometric, tuple(of_geometric), Batch(graphs=of_geometric)):
        assert scored(data, spec_of())[0].to_list() == expected
    single = prepare_graphs(of_geometric[0], spec_of(), spec_of().graph)
    assert single.outer.length is None
    with pytest.raises(InvalidInput, match="no input 'y'"):
        scored([{**one, "y": 1.0} for one in each], spec_of())
    with pytest.raises(InvalidInput, match="no input 'y'"):  # in another graph than the first
        scored([each[0], {**each[1], "y": 1.0}], spec_of())


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("kind", [dict, Data])
def test_an_input_that_one_graph_lacks_is_refused(kind, optional):
    spec = spec_of((*INPUTS[:2], replace(INPUTS[2], optional=optional), BATCH, PTR))
    x, edges, weights = arrays_of(GRAPHS)
    graphs = [kind(x=x[0], edge_index=edges[0], edge_attr=weights[0]), kind(x=x[1], edge_index=edges[1])]
    for at, data in ((1, graphs), (0, graphs[::-1])):
        with pytest.raises(InvalidInput, match=f"Input 'edge_attr' is a list whose element {at} is None"):
            prepare_graphs(data, spec, spec.graph)


def test_a_table_without_columns_is_no_table_of_edges():
    pd = pytest.importorskip("pandas")
    x, edges, weights = arrays_of([(2, [])])
    made = {"x": x, "edge_index": [pd.DataFrame(edges[0])], "edge_attr": weights}
    assert prepare_graphs(made, spec_of(), spec_of().graph).graphs.edges.tolist() == [0]


def test_tables_of_nodes_and_edges_are_matched_by_their_names():
    spec = replace(spec_of(), features={"x": ("a", "b")})
    x, edges, weights = arrays_of([(3, [(0, 1), (2, 1)])])  # two edges: the axes do not tell sources from edges
    expected = scored({"x": x, "edge_index": edges, "edge_attr": weights}, spec)[0].to_list()
    nodes = np.zeros(3, [("b", "f4"), ("other", "f4"), ("a", "f4")])
    nodes["a"], nodes["b"] = x[0].T
    ends = np.zeros(2, [("target", "i8"), ("source", "i8")])
    ends["source"], ends["target"] = edges[0]
    assert scored({"x": [nodes], "edge_index": [ends], "edge_attr": weights}, spec)[0].to_list() == expected
    with pytest.raises(InvalidInput, match="'x' lacks 'a'"):
        scored({"x": [nodes[["b"]]], "edge_index": [ends], "edge_attr": weights}, spec)


def test_columns_of_graphs_have_no_missing_values():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    x, edges, _ = arrays_of([(3, [(0, 1), (2, 1)])])
    graph = {"x": x[0], "edge_index": edges[0]}
    nullable = pd.array([1.0, None], "Float64")
    for lacking in (nullable, pd.Series(nullable), pl.Series([1.0, None])):
        with pytest.raises(InvalidInput, match="'edge_attr' has missing values: 1 of 2"):
            prepare_graphs({**graph, "edge_attr": lacking}, spec_of(), spec_of().graph)
    weights = pl.Series([1.0, 2.0])
    made = prepare_graphs({**graph, "edge_attr": weights}, spec_of(), spec_of().graph).graphs
    assert made.of_edges["edge_attr"].tolist() == [1, 2]


def test_the_padding_of_structured_arrays_is_no_node():
    x, edges, weights = arrays_of(GRAPHS)
    nodes = np.zeros((len(x), 1 + max(map(len, x))), [("valid", "?"), ("b", "f4"), ("a", "f4")])
    for row, own in zip(nodes, x, strict=True):
        row["valid"][: len(own)] = True
        row["a"][: len(own)], row["b"][: len(own)] = own.T
    spec = replace(spec_of(), features={"x": ("a", "b")})
    jagged = ak.Array([each.tolist() for each in edges]), ak.Array([each.tolist() for each in weights])
    data = {"x": nodes, "edge_index": jagged[0], "edge_attr": jagged[1]}
    made = prepare_graphs(data, spec, spec.graph).graphs
    np.testing.assert_array_equal(made.of_nodes["x"], np.concatenate(x))


def test_a_single_feature_of_each_graph_needs_no_axis():
    spec = spec_of((tensor("x", -1, 2), INPUTS[1], tensor("edge_attr", -1, 1), BATCH, PTR))
    x, edges, weights = arrays_of(GRAPHS)
    columns = [each[:, None] for each in weights]
    made = [
        prepare_graphs({"x": x, "edge_index": edges, "edge_attr": each}, spec, spec.graph).graphs
        for each in (weights, columns)
    ]
    np.testing.assert_array_equal(*(each.of_edges["edge_attr"] for each in made))
