"""Graph networks on a real Triton, against ONNX Runtime on each graph alone."""

from __future__ import annotations

import pickle

import awkward as ak
import numpy as np
import onnxruntime
import pytest
from graph_zoo import make_graph_zoo

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import BadReply, InvalidInput


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return make_graph_zoo(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def triton(repository):
    with TritonServer.start([repository]) as server, eaf_inference.connect(server.grpc) as connection:
        yield connection


def graphs_of(number, seed=1):
    """Make graphs with as few as no edges, no nodes and one node, self-loops and edges that occur twice."""
    random = np.random.default_rng(seed)
    nodes, edges = random.integers(0, 30, number), random.integers(0, 60, number)
    nodes[:3], edges[:3] = (0, 1, 5), (0, 3, 0)
    edges[nodes == 0] = 0
    of_edge = np.repeat(nodes, edges)
    index = [(random.random(edges.sum()) * of_edge).astype(np.int64) for _ in range(2)]
    x = random.normal(size=(nodes.sum(), 3)).astype(np.float32)
    return {
        "x": ak.unflatten(ak.from_numpy(x), nodes),
        "edge_index": [ak.unflatten(each, edges) for each in index],
        "edge_attr": ak.unflatten(ak.from_numpy(random.normal(size=(edges.sum(), 1)).astype(np.float32)), edges),
    }


def taken(data, graphs):
    return {
        name: [each[graphs] for each in value] if isinstance(value, list) else value[graphs]
        for name, value in data.items()
    }


def assert_as_alone(scores, data, file, *, tolerance=1e-6):
    """Compare with ONNX Runtime, relative to the largest score of each graph."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs, outputs = ([each.name for each in of()] for of in (session.get_inputs, session.get_outputs))
    for at in range(len(scores)):
        x = ak.to_numpy(data["x"][at]).reshape(-1, 3)
        given = {
            "x": x,
            "edge_index": np.stack([ak.to_numpy(each[at]) for each in data["edge_index"]]),
            "edge_attr": ak.to_numpy(data["edge_attr"][at]).reshape(-1, 1),
            "batch": np.zeros(len(x), np.int64),
            "ptr": np.array([0, len(x)]),
        }
        if "batch" in inputs and not len(x):
            continue  # this network refuses a graph without nodes
        expected = session.run(None, {name: given[name] for name in inputs})
        for name, right in zip(outputs, expected, strict=True):
            right = right[0] if name == "score" else right
            got = ak.to_numpy(scores[name][at]).reshape(right.shape)
            scale = max(1.0, np.abs(right).max(initial=0.0))
            assert np.abs(got - right).max(initial=0.0) <= tolerance * scale, (at, name)


@pytest.mark.parametrize("model", ["convolution", "by_batch", "by_ptr", "one_at_a_time"])
def test_each_graph_has_the_scores_that_it_has_alone(triton, repository, model):
    data = graphs_of(300)
    if model == "by_batch":
        data = taken(data, np.flatnonzero(ak.num(data["x"]) > 0))
    network = triton.model(model, cell_budget=1000)
    scores = network(data)
    assert_as_alone(scores, data, repository / model / "1" / "model.onnx")
    order = np.random.default_rng(2).permutation(len(scores))
    again = network(taken(data, order))
    for name in scores.fields:
        left, right = ak.flatten(again[name], axis=None), ak.flatten(scores[name][order], axis=None)
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    one_at_a_time = "one graph goes per request: it has an output per graph and no input batch or ptr"
    assert network.note == (one_at_a_time if model == "one_at_a_time" else "")


def test_events_of_graphs_keep_their_lists(triton):
    data = graphs_of(60)
    counts = [0, 7, 0, 50, 3]
    nested = {
        name: [ak.unflatten(each, counts) for each in value]
        if isinstance(value, list)
        else ak.unflatten(value, counts)
        for name, value in data.items()
    }
    network = triton.model("convolution")
    scores = network(nested)
    assert ak.num(scores).to_list() == counts
    assert ak.all(ak.flatten(scores).node == network(data).node)


def test_a_network_whose_graphs_are_not_apart_gets_one_at_a_time(triton, repository):
    data = graphs_of(40)
    del data["edge_attr"]
    network = triton.model("centred")
    with pytest.warns(UserWarning, match="'centred': one graph goes per request: .*depend on the others"):
        scores = network(data)
    assert "one graph goes per request" in network.note
    copy = pickle.loads(pickle.dumps(network))  # noqa: S301  (as Dask sends it to a worker)
    assert copy.note == network.note
    assert_as_alone(scores, {**data, "edge_attr": graphs_of(40)["edge_attr"]}, repository / "centred/1/model.onnx")
    with pytest.warns(UserWarning, match="'training_mode': one graph goes per request"):
        triton.model("training_mode")(data)


def test_an_empty_graph_that_the_network_refuses_is_an_error(triton):
    with pytest.raises(BadReply, match="failed on model 'by_batch', a graph without nodes"):
        triton.model("by_batch")(graphs_of(10))


def test_an_edge_to_another_graph_is_refused(triton):
    data = graphs_of(10)
    source, target = data["edge_index"]
    with pytest.raises(InvalidInput, match="in graph 1, which has 1 nodes"):
        triton.model("convolution")({**data, "edge_index": [source + 1, target]})


def test_a_network_without_a_score_for_each_node_is_reported(triton):
    with pytest.raises(BadReply, match="declares one per node"):
        triton.model("one_too_few")(graphs_of(10))


def test_no_graphs_at_all_give_no_scores(triton):
    scores = triton.model("by_batch")(taken(graphs_of(3), []))
    assert len(scores) == 0
    assert scores.fields == ["node", "edge", "score"]
