"""Rows that are None have scores that are None, and every other row has the scores of its own."""

from __future__ import annotations

import json

import awkward as ak
import dask_awkward as dak
import numpy as np
import pytest

from eaf_inference.errors import InvalidInput


@pytest.fixture
def events():
    """Events × jets × constituents of two channels; some events and jets are empty."""
    rng = np.random.default_rng(7)
    jets = rng.integers(0, 4, 40)
    counts = rng.integers(0, 30, jets.sum())
    channels = {
        name: ak.unflatten(ak.unflatten(rng.normal(size=counts.sum()).astype(np.float32), counts), jets)
        for name in ("a", "b")
    }
    return ak.zip(channels)


def _assert_same(scores, records):
    """Compare scores … × 2 with the sums, None with None."""
    for channel, name in enumerate(("a", "b")):
        expected = ak.sum(records[name], axis=-1)
        found = scores[..., channel]
        assert ak.to_list(ak.is_none(found, axis=-1)) == ak.to_list(ak.is_none(expected, axis=-1))
        np.testing.assert_allclose(
            ak.to_numpy(ak.drop_none(ak.flatten(found, axis=None))),
            ak.to_numpy(ak.drop_none(ak.flatten(expected, axis=None))),
            atol=1e-5,
        )


WAYS = {
    "the first jet": lambda events: ak.firsts(events),
    "padded jets": lambda events: ak.pad_none(events, 2),
    "exactly two jets": lambda events: ak.pad_none(events, 2, clip=True),
    "masked events": lambda events: ak.mask(events, ak.num(events) != 1),
    "masked jets": lambda events: ak.mask(events, ak.num(events.a, axis=-1) > 10),
    "masked events with padded jets": lambda events: ak.mask(ak.pad_none(events, 3), ak.num(events) > 0),
    "no jet at all": lambda events: ak.mask(ak.firsts(events), np.zeros(len(events), bool)),
    "nothing missing": lambda events: ak.mask(events, np.ones(len(events), bool)),
}


@pytest.mark.parametrize("way", WAYS)
def test_missing_rows_have_no_scores_and_the_others_their_own(connection, events, way):
    chosen = WAYS[way](events)
    scores = connection.model("sums")({"x": chosen})
    if way in ("the first jet", "no jet at all"):
        _assert_same(scores[np.newaxis], chosen[np.newaxis])
        assert ak.to_list(ak.is_none(scores)) == ak.to_list(ak.is_none(chosen))
    else:
        _assert_same(scores, chosen)
        assert ak.to_list(ak.is_none(scores)) == ak.to_list(ak.is_none(chosen))


def test_missing_rows_are_not_sent_and_pass_through_map(connection, events):
    model = connection.model("sums")
    before = connection.traffic.inferences
    parts = list(model.map([{"x": ak.firsts(events[:20])}, {"x": ak.firsts(events[20:])}]))
    assert connection.traffic.inferences - before == int(ak.sum(ak.num(events) > 0))
    assert ak.to_list(ak.is_none(ak.concatenate(parts))) == ak.to_list(ak.num(events) == 0)


def test_classes_and_numbers_of_missing_rows_are_missing(connection, events):
    numbers = ak.mask(np.arange(40, dtype=np.int32), ak.num(events) > 0)
    values = ak.mask(np.ones((40, 3), np.float32), ak.num(events) > 0)
    scores = connection.model("fixed")({"values": values, "number": numbers})
    assert ak.to_list(ak.is_none(scores)) == ak.to_list(ak.num(events) == 0)
    assert scores.fields


def test_values_missing_in_one_input_only_are_refused(connection):
    values = np.ones((2, 3), np.float32)
    with pytest.raises(InvalidInput, match="do not belong to the same rows"):
        connection.model("fixed")({"values": values, "number": ak.Array([1, None])})


def test_jets_that_are_missing_pass_a_recipe(connection, events, tmp_path):
    recipe = {"var_names": ["a", "b"], "var_infos": {"a": {"median": 1.0, "norm_factor": 2.0}}}
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps({"input_names": ["x"], "x": recipe}), encoding="utf-8")
    model = connection.model("sums", preprocess=path)
    jets = ak.mask(ak.firsts(events), np.arange(len(events)) % 3 > 0)
    expected = ak.zip({"a": (jets.a - 1) * 2, "b": jets.b}, depth_limit=1)
    scores = model(jets)
    for channel, name in enumerate(("a", "b")):
        np.testing.assert_allclose(
            ak.to_numpy(ak.drop_none(scores[:, channel])),
            ak.to_numpy(ak.drop_none(ak.sum(expected[name], axis=-1))),
            atol=1e-4,
        )
    assert ak.to_list(ak.is_none(scores)) == ak.to_list(ak.is_none(jets.a))
    lazy = dak.from_awkward(jets, npartitions=3)
    found = lazy.map_partitions(model)
    assert "?" in str(found.type)
    assert ak.to_list(found.compute(optimize_graph=False)) == ak.to_list(scores)


@pytest.mark.parametrize("empty", [ak.Array([]), ak.Array([[], []]), ak.Array([None, None])])
def test_arrays_of_unknown_type_have_scores_of_the_right_type(connection, empty, tmp_path):
    path = tmp_path / "preprocess.json"
    path.write_text(
        json.dumps({"input_names": ["x"], "x": {"var_names": ["a", "b"], "var_infos": {}}}), encoding="utf-8"
    )
    scores = connection.model("sums", preprocess=path)(empty)
    assert str(ak.type(scores)).endswith("2 * float32]" if ak.any(ak.is_none(empty)) else "2 * float32")
    assert ak.to_list(scores) == ak.to_list(empty)
    by_name = connection.model("sums")({"x": empty})
    assert ak.to_list(by_name) == ak.to_list(empty)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[1.0, None, 2.0]], "missing values inside its rows.*ak.drop_none"),
        ([[[1.0, 2.0], None]], "missing values inside its rows"),
    ],
)
def test_constituents_and_channels_that_are_missing_are_refused(connection, array, message):
    with pytest.raises(InvalidInput, match=message):
        connection.model("sums" if isinstance(array[0][0], list) else "squares")({"x": ak.Array(array)})
