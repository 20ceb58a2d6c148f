"""Arrays in, scores out: the package's models and the zoo, compared with ONNX Runtime in this process."""

from __future__ import annotations

import json
import pickle
import warnings

import awkward as ak
import elsewhere
import numpy as np
import onnxruntime
import pytest
from dask_facility import eventually
from edge_proxy import edge_proxy
from plain_client import call

import eaf_inference
from eaf_facility.servers.triton import MODELS
from eaf_inference.errors import (
    ConfigurationError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
)
from eaf_inference.inference import protocol

TRUNCATED = "more than the 128 constituents"


@pytest.fixture(scope="module")
def facility(triton):
    """Give a connection to the package's own models."""
    with eaf_inference.connect(triton.grpc) as connection:
        yield connection


@pytest.fixture(scope="module")
def particlenet(facility):
    return facility.model("particlenet")


@pytest.fixture(scope="module")
def jets(events):
    """Give 300 events × 1 or 2 jets × at most 128 constituents."""
    return events.jets[:300].constituents[..., :128]


def session(name):
    return onnxruntime.InferenceSession((MODELS / name / "1" / "model.onnx").read_bytes())


def local_scores(model, constituents):
    """Score every jet alone with ONNX Runtime, padded only to the model's minimum length."""
    recipe, network = model.spec.recipe, session("particlenet")
    features = eaf_inference.features(constituents)
    scores = []
    for jet in features:
        length = max(len(jet), max(each.minimum for each in recipe.lengths.values()))
        batch = {}
        for name, variables in recipe.inputs.items():
            batch[name] = np.zeros((1, len(variables), length), np.float32)
            for channel, variable in enumerate(variables):
                raw = np.ones(len(jet)) if variable.is_mask else ak.to_numpy(jet[variable.name])
                value = (raw - variable.median) * variable.norm_factor
                batch[name][0, channel, : len(jet)] = np.clip(value, variable.lower_bound, variable.upper_bound)
        scores.append(network.run(None, batch)[0][0])
    return np.array(scores)


def test_scores_of_nested_jets_are_those_of_each_jet_alone(particlenet, jets):
    scores = particlenet(jets)
    assert scores.fields == ["top", "qcd"]
    assert ak.num(scores.top).to_list() == ak.num(jets, axis=1).to_list()
    flat = ak.flatten(scores)
    expected = local_scores(particlenet, ak.flatten(jets))
    np.testing.assert_allclose(ak.to_numpy(flat.top), expected[:, 0], atol=2e-6)
    np.testing.assert_allclose(ak.to_numpy(flat.qcd), expected[:, 1], atol=2e-6)


@pytest.mark.parametrize(
    "regroup",
    [
        lambda flat: flat,
        lambda flat: ak.unflatten(flat, [0, 3, 0, len(flat) - 3]),
        lambda flat: ak.unflatten(ak.unflatten(flat, [1, 0, 2, len(flat) - 3]), [2, 0, 2]),
        lambda flat: ak.to_regular(ak.unflatten(flat, 2)),
        lambda flat: flat[::-1][::-1],
        lambda flat: flat[np.arange(len(flat))],
    ],
    ids=["jets", "events", "blocks of events", "pairs", "reversed twice", "indexed"],
)
def test_any_outer_nesting_comes_back(particlenet, jets, regroup):
    flat = ak.flatten(jets)[:40]
    nested = regroup(flat)
    scores = particlenet(nested)
    expected = particlenet(flat).top
    while expected.ndim < scores.top.ndim:
        scores = ak.flatten(scores)
    assert ak.all(scores.top == expected)
    assert particlenet(nested).top.ndim == nested.pt.ndim - 1


@pytest.mark.parametrize(
    "empty", [lambda jets: jets[:0], lambda jets: ak.flatten(jets)[:0], lambda jets: jets[..., :0, :]]
)
def test_no_jets_give_empty_scores_of_the_right_type(particlenet, jets, empty):
    none = empty(jets)
    scores = particlenet(none)
    assert len(scores) == len(none)
    assert scores.fields == ["top", "qcd"]
    assert scores.top.ndim == none.pt.ndim - 1
    assert ak.count(scores.top, axis=None) == 0


def test_computed_features_and_raw_constituents_give_equal_scores(particlenet, jets):
    from_features = particlenet(eaf_inference.features(jets))
    assert ak.all(from_features.top == particlenet(jets).top)


def test_constituents_beyond_the_maximum_are_cut_with_one_warning(particlenet, events):
    long = events.jets.constituents[ak.any(ak.num(events.jets.constituents, axis=2) > 128, axis=1)]
    number = int(ak.sum(ak.num(long, axis=2) > 128))
    features = eaf_inference.features(long)
    with pytest.warns(UserWarning, match=f"^{number} jets have {TRUNCATED}") as caught:
        scores = particlenet(features)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert ak.all(scores.top == particlenet(features[..., :128]).top)


def test_the_hardest_constituents_are_kept_of_jets_in_any_order(particlenet, events):
    constituents = ak.flatten(events.jets.constituents)
    long = constituents[ak.num(constituents) > 128][:8]
    softest_first = long[ak.argsort(long.pt, ascending=True, stable=True)]
    with pytest.warns(UserWarning, match="their 128 of largest pt were used"):
        scores = particlenet(softest_first)
    kept = eaf_inference.features(softest_first)[..., -128:]
    np.testing.assert_allclose(ak.to_numpy(scores.top), ak.to_numpy(particlenet(kept).top), atol=1e-6)


def test_leaving_a_stream_early_still_warns(particlenet, events):
    constituents = ak.flatten(events.jets.constituents)
    long = constituents[ak.num(constituents) > 128][:6]
    parts = particlenet.map([long[:2], long[2:4], long[4:]])
    next(parts)
    with pytest.warns(UserWarning, match="jets have more than the 128 constituents"):
        parts.close()


def test_a_graph_without_edges_gets_no_padded_edges(connection):
    rng = np.random.default_rng(2)
    nodes, edges = np.array([4, 5, 1, 6]), np.array([7, 0, 0, 3])
    x = [rng.normal(size=(number, 3)).astype(np.float32) for number in nodes]
    pairs = [rng.integers(0, number, (2, count)) for number, count in zip(nodes, edges, strict=True)]
    ends = [ak.unflatten(np.concatenate([each[end] for each in pairs]), edges) for end in (0, 1)]
    scores = connection.model("graph")({"x": ak.unflatten(np.concatenate(x), nodes), "edge_index": ends})
    for row, (own, (source, target)) in enumerate(zip(x, pairs, strict=True)):
        expected = own.copy()
        np.add.at(expected, target, own[source])
        np.testing.assert_allclose(ak.to_numpy(scores[row]), expected, atol=1e-6)


def test_scores_that_are_not_finite_are_counted_in_one_warning(connection, jagged):
    zeros, nan = jagged.a[:40] * 0, jagged.a[:9] * np.nan
    chunks = [{"x": [zeros, zeros]}, {"x": [nan, nan]}]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(connection.model("ratio").map(chunks))
    said = [str(each.message) for each in caught if "NaN" in str(each.message)]
    filled = int(ak.sum(ak.num(jagged.a[:40]) > 0))
    assert len(said) == 1
    assert said[0].startswith(
        f"{filled} jets have NaN or infinite scores of 'ratio', although their inputs are finite"
    )
    assert connection.traffic.not_finite >= filled


def test_chunks_in_a_stream_give_the_scores_of_the_whole(particlenet, jets):
    whole = particlenet(jets)
    parts = list(particlenet.map(jets[start : start + 37] for start in range(0, len(jets), 37)))
    assert ak.almost_equal(ak.concatenate(parts), whole, atol=1e-6, rtol=0)


def test_a_recipe_can_be_replaced(facility, particlenet, jets, tmp_path):
    config = call(facility.endpoint.addresses[0].url, "ModelConfig", name="particlenet").config
    recipe = json.loads(config.parameters["preprocess"].string_value)
    for info in recipe["features"]["var_infos"].values():
        info["norm_factor"] = 0
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps(recipe))
    other = facility.model("particlenet", preprocess=path)
    assert not ak.almost_equal(other(jets).top, particlenet(jets).top)
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="recipe of 'particlenet' cannot be used: it is not JSON"):
        facility.model("particlenet", preprocess=path)
    with pytest.raises(ConfigurationError, match=r"recipe .*nowhere\.json cannot be read: .*Expected the path"):
        facility.model("particlenet", preprocess=tmp_path / "nowhere.json")


def test_the_named_inputs_bypass_the_recipe(particlenet):
    rng = np.random.default_rng(3)
    inputs = {
        "points": rng.normal(size=(5, 2, 24)).astype(np.float32),
        "features": rng.normal(size=(5, 7, 24)).astype(np.float32),
        "mask": np.ones((5, 1, 24), np.float32),
    }
    scores = particlenet(inputs)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, session("particlenet").run(None, inputs)[0], atol=1e-6)


def test_a_model_of_fixed_shapes_agrees_with_onnx_runtime(facility):
    rng = np.random.default_rng(4)
    low, high = np.array([[1, -2, -3, 40], [10, 2, 3, 60]])  # pt, eta, phi, energy of a heavy jet
    constituents = rng.uniform(low, high, (3000, 16, 4)).astype(np.float32)
    number = rng.integers(1, 130, 3000).astype(np.int32)
    expected = session("jet_regression").run(
        ["pt", "mass"], {"constituents": constituents, "multiplicity": number[:, None]}
    )
    model = facility.model("jet_regression")
    as_numpy = model({"constituents": constituents.astype(np.float64), "multiplicity": number.astype(np.int64)})
    as_awkward = model(
        {
            "constituents": ak.unflatten(ak.from_numpy(constituents, regulararray=True), [1000, 0, 2000]),
            "multiplicity": ak.unflatten(number, [1000, 0, 2000]),
        }
    )
    assert as_awkward.fields == list(as_numpy) == ["pt", "mass"]
    assert ak.num(as_awkward).to_list() == [1000, 0, 2000]
    for name, values in zip(("pt", "mass"), expected, strict=True):
        np.testing.assert_allclose(as_numpy[name], values, rtol=1e-5)
        np.testing.assert_allclose(ak.to_numpy(ak.flatten(as_awkward[name])), values, rtol=1e-5)


def test_a_model_that_depends_on_padding_gets_none(connection, jagged):
    filled = jagged[ak.num(jagged) > 0]
    model = connection.model("means")
    with pytest.warns(UserWarning, match="'means': rows of one length are sent together, unpadded"):
        scores = model(filled)
    expected = np.stack([ak.to_numpy(ak.mean(filled[name], axis=1)) for name in ("a", "b")], axis=1)
    np.testing.assert_allclose(ak.to_numpy(scores), expected, atol=1e-5)
    assert "unpadded" in repr(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(filled)  # warned only once


def test_a_model_that_needs_a_minimum_of_points_gets_it(connection, jagged):
    positive = abs(jagged.a[ak.num(jagged) > 0])
    model = connection.model("neighbours")
    np.testing.assert_array_equal(ak.to_numpy(model(positive))[:, 0], ak.to_numpy(ak.max(positive, axis=1)))


def test_one_value_per_constituent_comes_back_jagged(connection, jagged):
    scores = connection.model("squares")(ak.unflatten(jagged.a, [1000, 0, 2000]))
    assert ak.all(ak.flatten(scores) == jagged.a**2)
    assert ak.num(scores, axis=1).to_list() == [1000, 0, 2000]


def test_a_numpy_array_stays_numpy(connection):
    x = np.random.default_rng(5).normal(size=(7, 3, 2, 11)).astype(np.float32)
    np.testing.assert_allclose(connection.model("sums")({"x": x}), x.sum(axis=-1), atol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"values": np.zeros((4, 3))}, r"lacks an array for number: INT32 \[1\]. Expected {input name: array}"),
        ({"value": np.zeros((4, 3))}, "no input 'value'. Did you mean 'values'?"),
        (np.zeros((4, 3)), r"takes 2 inputs and got a numpy array of shape \(4, 3\)"),
        (
            ak.Array([{"values": [1, 2, 3], "nr": 1}]),
            r"takes 2 inputs, and the 2 columns 'values', 'nr' have none for number: INT32 \[1\]",
        ),
        ({"values": np.zeros((4, 2)), "number": np.zeros(4, int)}, r"shape \(4, 2\).*Expected FP32 of shape"),
        ({"values": np.zeros((4, 3)), "number": np.zeros(5, int)}, "do not belong to the same rows"),
        ({"values": np.zeros((4, 3)), "number": np.full(4, 0.5)}, "does not convert to the model's INT32"),
        ({"values": np.zeros((4, 3)), "number": np.full(4, 1 << 40)}, "does not convert to the model's INT32"),
        ({"values": np.zeros((4, 3), complex), "number": np.zeros(4, int)}, "has dtype complex128"),
        ({"values": ak.Array([[1, 2, None]]), "number": np.zeros(1, int)}, "ak.drop_none"),
        ({"values": ak.Array([[1, 2, 3], [1, 2]]), "number": np.zeros(2, int)}, "lists differ in length"),
        ({"values": "jets", "number": 1}, "is a string. Expected a numpy or awkward array"),
        ({}, "lacks an array for values"),
    ],
)
def test_bad_input_is_named_before_anything_is_sent(connection, zoo, data, message):
    with pytest.raises(InvalidInput, match=message):
        connection.model("fixed")(data)


def test_missing_variables_are_named(particlenet, jets, events):
    with pytest.raises(
        InvalidInput,
        match="lacks phi, energy, from which part_deta and 5 others are computed. Add `phi`, `en",
    ):
        particlenet(jets[["pt", "eta", "charge"]])
    with pytest.raises(InvalidInput, match="is a numpy array of shape .*, without fields. Expected"):
        particlenet(np.zeros((3, 7, 10)))
    with pytest.raises(InvalidInput, match="one number per row"):
        particlenet(ak.zip({"pt": [1.0], "eta": [0.0], "phi": [0.0], "energy": [2.0]}))


def test_an_unknown_model_is_answered_with_the_known_ones(connection):
    with pytest.raises(ModelNotFound, match="no model 'sum'. Did you mean 'sums'. It has fixed, graph, means"):
        connection.model("sum")
    with pytest.raises(ModelNotFound, match="'sums' has no version 7. Expected one of 1"):
        connection.model("sums", version=7)
    with pytest.raises(InvalidInput, match="No model was given. Expected one of fixed, graph, means"):
        connection.model()


def test_a_model_that_failed_to_load_says_why(zoo):
    def broken(data):
        index = protocol.RepositoryIndexResponse.FromString(data)
        for row in index.models:
            row.state, row.reason = "UNAVAILABLE", "out of memory"
        return index.SerializeToString()

    with edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        handler.changes["RepositoryIndex"] = broken
        with eaf_inference.connect(f"grpc://127.0.0.1:{port}") as connection:
            with pytest.raises(ModelNotReady, match="has 'sums' but cannot serve it: out of memory. Tell"):
                connection.model("sums")
            assert "out of memory" in str(connection.models())


def test_the_table_of_models_shows_the_last_minute(zoo, jagged):
    with eaf_inference.connect(zoo.grpc) as connection:
        first = {row.name: row for row in connection.models()}
        assert {row.requests for row in first.values()} == {None}  # regardless of other tests' requests
        assert {row.queue for row in first.values()} == {"not measured yet"}
        connection.model("sums")(jagged[:100])
        rows = eventually(
            lambda: {row.name: row for row in connection.models()}, lambda rows: rows["sums"].requests is not None
        )
        assert rows["sums"].requests == rows["sums"].since_start - first["sums"].since_start > 0
        assert rows["sums"].queue_ms is not None
        assert (rows["fixed"].requests, rows["fixed"].queue_ms, rows["fixed"].queue) == (0, None, "no requests")
        assert next(iter(connection.models().busiest())).name == "sums"
        assert rows["fixed"].inputs == ("values: FP32 [3]", "number: INT32 [1]")
        assert "queue ms (last minute)" in str(connection.models())


def test_the_queue_time_covers_all_replicas(pair, jagged):
    with eaf_inference.connect([each.grpc for each in pair]) as both:
        both.measure()
        for each in pair:  # like other users
            with eaf_inference.connect(each.grpc) as one:
                one.model("sums")(jagged[:100])
                asked = {row.name: row.since_start for row in one.models()}["sums"]
                assert asked > 0
        rows = eventually(lambda: {row.name: row for row in both.models()}, lambda rows: rows["sums"].requests)
        assert rows["sums"].requests >= 2
        assert rows["sums"].since_start > asked


def test_connections_and_models_travel_unopened(particlenet, jets, monkeypatch, triton):
    monkeypatch.setenv("EAF_TRITON_URL", triton.grpc)
    with eaf_inference.connect() as found:
        travelled = pickle.dumps((found.model("particlenet"), jets[:5]))
    connection, scores = elsewhere.scored(travelled)
    assert "opened on first use" in connection
    assert ak.all(scores.top == particlenet(jets[:5]).top)
