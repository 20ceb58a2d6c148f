"""From a caller's graphs to unions and back, without a connection: the network is a function of a union's tensors."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from builders import tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import BadReply, ConfigurationError, InvalidInput
from eaf_inference.inference.graph_job import prepare_graphs
from eaf_inference.inference.graph_spec import GraphSpec
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.tuning import fixed_sizes
from eaf_inference.inference.union_check import UnionCheck, UnionFinding

INPUTS = (tensor("x", -1, 2), tensor("edge_index", 2, -1, datatype="INT64"), tensor("edge_attr", -1))
BATCH, PTR = tensor("batch", -1, datatype="INT64"), tensor("ptr", -1, datatype="INT64")
OUTPUTS = (tensor("node", -1, 2), tensor("edge", -1), tensor("score", -1, 2))
DECLARED = {
    "x": "x",
    "edge_index": "edge_index",
    "edge_attr": "edge_attr",
    "batch": "batch",
    "ptr": "ptr",
    "outputs": {"node": "node", "edge": "edge", "score": "graph"},
}


def spec_of(inputs=(*INPUTS, BATCH, PTR), outputs=OUTPUTS, **declared):
    names = [each.name for each in inputs]
    wanted = {key: name for key, name in DECLARED.items() if key == "outputs" or name in names} | declared
    wanted["outputs"] = {each.name: wanted["outputs"][each.name] for each in outputs}
    graph = GraphSpec.parse(json.dumps(wanted), model="tracks", max_batch_size=0, inputs=inputs, outputs=outputs)
    return ModelSpec("tracks", "", 0, tuple(inputs), tuple(outputs), None, {}, graph=graph)


def network(union):
    """Each node adds up its neighbours, each edge multiplies its ends, each graph adds up its nodes."""
    given = dict(zip(union.names, union.tensors, strict=True))
    x, (source, target), weight = given["x"], given["edge_index"], given["edge_attr"]
    node = x.copy()
    np.add.at(node, target, x[source] * weight[:, None])
    starts = given["ptr"]
    np.testing.assert_array_equal(given["batch"], np.repeat(np.arange(len(starts) - 1), np.diff(starts)))
    score = np.zeros((len(starts) - 1, 2), np.float32)
    np.add.at(score, given["batch"], node)
    edge = (x[source] * x[target]).sum(axis=1)
    return {"node": node[None], "edge": edge[None], "score": score[None]}


def scored(data, spec, *, budget=20, together=True, model=network):
    """Let the network answer every union, the last one first."""
    job = prepare_graphs(data, spec, spec.graph)
    sent = list(job.batches(fixed_sizes(budget), together=together))
    for union in reversed(sent):
        job.outputs.put(union, {each.name: model(union)[each.name] for each in spec.outputs})
    assert job.outputs.complete
    return job.result(), sent


@st.composite
def graph(draw):
    """Draw (nodes, edges) of one graph: self-loops and the same edge twice among them."""
    nodes = draw(st.integers(0, 5))
    ends = st.integers(0, max(nodes - 1, 0))
    edges = draw(st.lists(st.tuples(ends, ends), max_size=8)) if nodes else []
    return nodes, edges


def arrays_of(graphs, seed=0):
    """Make the inputs of some graphs, as one numpy array per graph."""
    random = np.random.default_rng(seed)
    x = [random.normal(size=(nodes, 2)).astype(np.float32) for nodes, _ in graphs]
    edges = [np.array(edges, np.int64).reshape(-1, 2).T for _, edges in graphs]
    weights = [random.normal(size=each.shape[1]).astype(np.float32) for each in edges]
    return x, edges, weights


def jagged_of(graphs, seed=0):
    """Make the inputs of some graphs as awkward arrays."""
    x, edges, weights = arrays_of(graphs, seed)
    nodes, sizes = [len(each) for each in x], [each.shape[1] for each in edges]
    flat = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), np.int64)

    def lists(values, counts):
        content = ak.from_numpy(values).layout
        offsets = np.append(0, np.cumsum(counts)).astype(np.int64)
        return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), content))

    rows = np.concatenate(x) if x else np.zeros((0, 2), np.float32)
    return {
        "x": lists(rows, nodes),
        "edge_index": [lists(end, sizes) for end in flat],
        "edge_attr": lists(np.concatenate(weights) if weights else np.zeros(0, np.float32), sizes),
    }


def alone(x, edges, weights):
    """Score one graph without this client."""
    node = x.copy()
    np.add.at(node, edges[1], x[edges[0]] * weights[:, None])
    return node, (x[edges[0]] * x[edges[1]]).sum(axis=1), node.sum(axis=0)


@given(st.lists(graph(), max_size=12), st.integers(1, 40), st.booleans())
def test_each_graph_has_its_scores_whatever_it_is_sent_with(graphs, budget, together):
    scores, sent = scored(jagged_of(graphs), spec_of(), budget=budget, together=together)
    assert len(scores) == len(graphs)
    assert scores.fields == ["node", "edge", "score"]
    for at, own in enumerate(zip(*arrays_of(graphs), strict=True)):
        for name, expected in zip(scores.fields, alone(*own), strict=True):
            got = ak.to_numpy(scores[name][at])
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, atol=1e-5)
    cells = [len(union.tensors[0]) + union.tensors[1].shape[1] for union in sent if union.number > 1]
    assert all(each <= budget for each in cells)
    assert together or not cells


@given(st.lists(st.lists(graph(), max_size=4), max_size=4))
def test_graphs_keep_the_events_around_them(events):
    flat = jagged_of([each for event in events for each in event])
    counts = np.array([len(event) for event in events], np.int64)
    nested = {
        name: [ak.unflatten(end, counts) for end in value] if isinstance(value, list) else ak.unflatten(value, counts)
        for name, value in flat.items()
    }
    scores, _ = scored(nested, spec_of())
    expected, _ = scored(flat, spec_of())
    assert ak.num(scores.score, axis=1).to_list() == counts.tolist()
    assert ak.flatten(scores).to_list() == expected.to_list()


def test_edges_may_come_in_several_forms():
    graphs = [(3, [(0, 1), (2, 1)]), (2, [(1, 1), (0, 1)]), (4, [(3, 0), (1, 2)])]  # two edges each: no form is clear
    data = jagged_of(graphs)
    source, target = data["edge_index"]
    expected = scored(data, spec_of())[0].to_list()
    x, edges, weights = arrays_of(graphs)
    forms = [
        ak.concatenate([source[:, None], target[:, None]], axis=1),  # graphs × 2 × edges
        ak.Array(np.stack(edges)),
        np.stack(edges),
        ak.zip({"a": source, "b": target}),
        ak.zip({"target": target, "source": source}),
        ak.to_regular(ak.concatenate([source[..., None], target[..., None]], axis=2), axis=2),  # graphs × edges × 2
    ]
    for form in forms:
        assert scored({**data, "edge_index": form}, spec_of())[0].to_list() == expected
    per_graph = {"x": x, "edge_index": edges, "edge_attr": weights}
    assert scored(per_graph, spec_of())[0].to_list() == expected
    records = ak.zip(
        {"nodes": data["x"], "edges": forms[0], "edge_attr": data["edge_attr"], "label": [1, 2, 3]}, depth_limit=1
    )
    assert scored(records, spec_of())[0].to_list() == expected
    by_feature = {**data, "x": ak.zip({"a": data["x"][..., 0], "b": data["x"][..., 1]})}
    assert scored(by_feature, spec_of())[0].to_list() == expected


def test_records_of_nodes_are_matched_by_the_names_of_features():
    spec = replace(spec_of(), features={"x": ("a", "b")})
    data = jagged_of(GRAPHS)
    a, b = data["x"][..., 0], data["x"][..., 1]
    expected = scored(data, spec)[0].to_list()
    assert scored({**data, "x": ak.zip({"b": b, "other": b, "a": a})}, spec)[0].to_list() == expected
    with pytest.raises(InvalidInput, match="has the fields b and lacks a"):
        scored({**data, "x": ak.zip({"b": b})}, spec)


def test_features_of_nodes_keep_their_order_whatever_their_names():
    data = jagged_of(GRAPHS)
    x = ak.zip({"col": data["x"][..., 0], "row": data["x"][..., 1]})  # of an edge, col would be the target
    assert scored({**data, "x": x}, spec_of())[0].to_list() == scored(data, spec_of())[0].to_list()


def test_a_masked_array_among_the_graphs_is_refused():
    x, edges, weights = arrays_of(GRAPHS)
    x = [*x[:-1], np.ma.masked_greater(x[-1], x[-1].min())]
    with pytest.raises(InvalidInput, match="'x' is a list with a masked array. Expected no missing values"):
        scored({"x": x, "edge_index": edges, "edge_attr": weights}, spec_of())


@pytest.mark.parametrize("narrow", ["edge_index", "batch", "ptr"])
def test_positions_that_a_type_cannot_hold_are_never_sent(narrow):
    inputs = [replace(each, datatype="INT8") if each.name == narrow else each for each in (*INPUTS, BATCH, PTR)]
    spec = spec_of(inputs)
    assert UnionCheck(spec).note.startswith(f"one graph goes per request: input {narrow!r} has type int8")
    data = jagged_of([(100, [(0, 99)])] * 2)
    assert scored(data, spec, together=False)[0].to_list() == scored(data, spec_of())[0].to_list()
    if narrow != "batch":
        with pytest.raises(InvalidInput, match=f"{narrow!r} has dtype int64 .* INT8: some values would change"):
            scored(jagged_of([(200, [(0, 199)])]), spec, together=False)


def test_a_union_holds_none_of_the_callers_memory():
    x, edges, weights = arrays_of([(3, [(0, 1), (2, 1)])])
    (union,) = scored({"x": x[0], "edge_index": edges[0], "edge_attr": weights[0]}, spec_of())[1]
    assert not any(np.may_share_memory(tensor, own) for tensor in union.tensors for own in (x[0], weights[0]))


def test_a_single_graph_needs_no_list_around_it():
    x, [edges], weights = arrays_of([(3, [(0, 1), (2, 1), (1, 1)])])
    scores, _ = scored({"x": x[0], "edge_index": edges, "edge_attr": weights[0]}, spec_of())
    assert isinstance(scores, dict)
    for name, expected in zip(scores, alone(x[0], edges, weights[0]), strict=True):
        np.testing.assert_allclose(scores[name], expected, rtol=1e-6)
    scores, _ = scored({"x": ak.Array(x[0]), "edge_index": list(edges), "edge_attr": weights[0]}, spec_of())
    np.testing.assert_allclose(ak.to_numpy(scores.node), alone(x[0], edges, weights[0])[0], rtol=1e-6)


def test_numpy_arrays_of_equal_graphs_give_numpy_arrays():
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 2)).astype(np.float32)
    edges = np.array([[0, 1, 3], [3, 2, 2]]) + np.zeros((2, 3, 1, 1), np.int64)
    scores, _ = scored({"x": x, "edge_index": edges, "edge_attr": np.ones((2, 3, 3))}, spec_of())
    assert {name: values.shape for name, values in scores.items()} == {
        "node": (2, 3, 4, 2),
        "edge": (2, 3, 3),
        "score": (2, 3, 2),
    }
    np.testing.assert_allclose(scores["score"], scores["node"].sum(axis=2), rtol=1e-5)


@pytest.mark.parametrize("data", [[], [[], []]])
def test_arrays_without_any_number_are_graphs_too(data):
    scores, _ = scored({name: ak.Array(data) for name in ("x", "edge_index", "edge_attr")}, spec_of())
    assert len(scores) == len(data)
    assert scores.node.to_list() == data
    assert str(scores.score.type.content) == "2 * float32"


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        ((0, 2), r"edge 0 -> 2 in graph \[1, 0\], which has 2 nodes"),  # the first node of the next graph
        ((-1, 0), r"edge -1 -> 0 in graph \[1, 0\]"),  # numpy and ONNX count it from the end
    ],
)
def test_an_edge_out_of_its_graph_is_refused(edge, message):
    data = jagged_of([(3, [(0, 1)]), (2, [edge]), (4, [])])
    nested = {
        name: [ak.unflatten(end, [1, 2]) for end in value] if isinstance(value, list) else ak.unflatten(value, [1, 2])
        for name, value in data.items()
    }
    with pytest.raises(InvalidInput, match=message):
        prepare_graphs(nested, spec_of(), spec_of().graph)


GRAPHS = [(3, [(0, 1)]), (2, [(1, 0), (0, 0)])]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edge_index": [ak.Array([[0.0], [1.0, 0.0]])] * 2}, "dtype float64. Expected integers"),
        ({"edge_index": [ak.Array([[0], [1, 0]]), ak.Array([[1], [0]])]}, "lists of different lengths"),
        ({"edge_index": ak.Array([[[0], [1]], [[1, 0], [0]]])}, "more sources than targets"),
        ({"edge_index": ak.Array([[[0, 1]], [[1, 0], [0, 0]]])}, "graph 0 is not 2 × edges"),
        ({"edge_index": [ak.Array([[0]])] * 2}, "do not belong to the same graphs"),
        ({"edge_attr": ak.Array([[1.0], [1.0]])}, "'edge_attr' has 1 entries in graph 1, and 'edge_index' has 2"),
        ({"x": ak.Array([[[1.0]] * 3, [[1.0]] * 2])}, "an axis is not 2 long"),
        ({"batch": np.zeros(5)}, "'batch' of 'tracks' is made by the client"),
        ({"pos": np.zeros(5)}, "no input 'pos'"),
        ({"x": None}, "'x' is None"),
    ],
)
def test_what_is_not_a_graph_is_refused(changed, message):
    with pytest.raises(InvalidInput, match=message):
        prepare_graphs({**jagged_of(GRAPHS), **changed}, spec_of(), spec_of().graph)


def test_a_graph_above_the_declared_size_is_refused_by_name():
    spec = spec_of(max_edges=1)
    with pytest.raises(InvalidInput, match=r"at most 1 edges per graph\. Graph 1 has 2"):
        prepare_graphs(jagged_of(GRAPHS), spec, spec.graph)


def test_another_number_of_node_scores_is_a_bad_reply():
    def short(union):
        return {name: values[:, :-1] if name == "node" else values for name, values in network(union).items()}

    with pytest.raises(BadReply, match="'node' came with 4 entries for the 5 nodes"):
        scored(jagged_of(GRAPHS), spec_of(), model=short)


def test_a_network_without_scores_for_an_empty_graph_is_explained():
    def without(union):
        outputs = network(union)
        return outputs if len(outputs["node"][0]) else {**outputs, "score": np.zeros((1, 0, 2), np.float32)}

    with pytest.raises(InvalidInput, match="Graph 1 has no nodes, and the model gives no 'score'"):
        scored(jagged_of([(2, []), (0, [])]), spec_of(), model=without)


def test_a_network_without_batch_gives_whole_scores_of_one_graph_at_a_time():
    spec = spec_of(INPUTS, (OUTPUTS[0], tensor("score", 1, 2)), batch=None, ptr=None)
    assert spec.graph.separate

    def model(union):
        x = union.tensors[0]
        return {"node": x[None], "score": x.sum(axis=0, keepdims=True)[None]}

    scores, sent = scored(jagged_of(GRAPHS), spec, model=model, together=False)
    assert [union.size for union in sent] == [1, 1]
    assert scores.score.to_list() == ak.sum(scores.node, axis=1).to_list()


# --- the check that graphs do not notice each other ---------------------------------------------------------


def sender(model, log):
    def send(unions):
        log.extend(unions)
        outcomes = []
        for union in unions:
            try:
                outcomes.append(model(union))
            except InvalidInput as error:
                outcomes.append(error)
        return outcomes

    return send


def together(model, graphs=(*GRAPHS, (4, [(0, 3), (2, 2)]), (1, [])), check=None, log=None):
    spec = spec_of()
    check = check or UnionCheck(spec)
    job = prepare_graphs(jagged_of(graphs), spec, spec.graph)
    return check.together(job.graphs, spec.graph, sender(model, [] if log is None else log)), check


def test_a_sound_network_is_tried_once_for_graphs_of_such_sizes():
    log = []
    fine, check = together(network, log=log)
    assert fine
    assert not check.note
    tried = len(log)
    assert tried
    assert together(network, check=check, log=log)[0]
    assert len(log) == tried
    assert together(network, graphs=[(60, [(0, 59)]), (70, [])], check=check, log=log)[0]
    assert len(log) > tried  # larger ones are tried again


def centred(union):
    """Subtract the mean over all nodes."""
    outputs = network(union)
    x = union.tensors[0]
    return {**outputs, "node": (x - x.mean(axis=0))[None]}


def next_node(union):
    """Let each node see the next one, as if a graph had no end."""
    outputs = network(union)
    return {**outputs, "node": np.roll(union.tensors[0], 1, axis=0)[None]}


def narrow(union):
    if len(union.tensors[0]) > 5:
        raise InvalidInput("too many nodes")
    return network(union)


@pytest.mark.parametrize(
    ("model", "why"),
    [(centred, "depend on the others"), (next_node, "depend on the others"), (narrow, "refuses several")],
)
def test_a_network_that_mixes_graphs_gets_one_at_a_time_and_a_warning(model, why):
    with pytest.warns(UserWarning, match=f"'tracks': one graph goes per request: .*{why}"):
        fine, check = together(model)
    assert not fine
    assert why in check.note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not together(model, check=check)[0]  # once is enough
    copy, other = UnionCheck(spec_of()), together(network)[1]
    for each in (copy, other):
        each.adopt(check.found)
        assert each.note == check.note


def test_scores_that_are_not_finite_prove_nothing():
    def empty(union):
        return {name: np.full_like(values, np.nan) for name, values in network(union).items()}

    fine, check = together(empty)
    assert not fine
    assert check.found == UnionFinding()


# --- the declaration ---------------------------------------------------------------------------------------


def test_nodes_and_edges_alone_can_be_split_without_batch():
    assert not spec_of(INPUTS, OUTPUTS[:2]).graph.separate


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("[", "it is not JSON"),
        ([], r"it is \[\], not an object"),
        ({"ouputs": {}}, "'ouputs'.* Did you mean"),
        ({"x": "pos"}, "'x' is 'pos', but the inputs are x, edge_index"),
        ({"x": None}, "it lacks 'x'"),
        ({"edge_attr": "x"}, "names the input 'x' twice"),
        ({"edge_attr": None}, "says nothing about the input 'edge_attr'"),
        ({"edge_index": "x", "x": "edge_index"}, r"shape \[2, -1\]"),
        ({"outputs": {"node": "nodes"}}, "output 'node' is per 'nodes'"),
        ({"outputs": {"other": "node"}}, "no output 'other'"),
        ({"outputs": []}, r"'outputs' is \[\]"),
        ({"max_nodes": -1}, "'max_nodes' is -1"),
        ({"max_nodes": True}, "'max_nodes' is True"),
    ],
)
def test_a_wrong_declaration_is_named(changed, message):
    text = changed if isinstance(changed, str) else json.dumps({**DECLARED, **changed} if changed else changed)
    with pytest.raises(ConfigurationError, match=message):
        GraphSpec.parse(text, model="tracks", max_batch_size=0, inputs=(*INPUTS, BATCH, PTR), outputs=OUTPUTS)


def test_a_batch_axis_besides_the_nodes_is_refused():
    with pytest.raises(ConfigurationError, match="max_batch_size is 8"):
        GraphSpec.parse(
            json.dumps(DECLARED), model="tracks", max_batch_size=8, inputs=(*INPUTS, BATCH, PTR), outputs=OUTPUTS
        )
