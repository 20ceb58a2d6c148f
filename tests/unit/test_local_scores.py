"""Scores computed here equal those that the client would return from a server, batched and padded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from broken_models import BROKEN, GOOD

from eaf_inference.deploy.config_text import parsed
from eaf_inference.deploy.local_model import LocalModel
from eaf_inference.deploy.local_scores import local_scores
from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.inference.batching import batches
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.tuning import fixed_sizes

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(3)


def made(cases: Any, name: str, root: Path) -> tuple[Path, ModelSpec]:
    directory = root / "tagger"
    cases[name].make(directory)
    text = (directory / "config.pbtxt").read_text(encoding="utf-8")
    return directory / "1" / "model.onnx", ModelSpec.from_config(parsed(f'name: "tagger" {text}'), "1")


def jets(*shape: int) -> ak.Array:
    """Make jets × constituents of two variables, with a jet of one constituent and an empty one."""
    counts = np.append(RANDOM.integers(1, 30, shape[0] - 2), [0, 1])
    fields = {name: RANDOM.normal(size=counts.sum()).astype("f4") for name in ("pt", "eta")}
    return ak.unflatten(ak.zip(fields), counts)


def test_rows_of_numbers_come_back_as_numpy(tmp_path: Path):
    path, spec = made(GOOD, "generated_rows_of_numbers", tmp_path)
    x = RANDOM.normal(size=(50, 2)).astype("f4")
    assert np.array_equal(local_scores(path, spec, x), 2 * x)


def test_labels_become_fields(tmp_path: Path):
    path, spec = made(GOOD, "rows_of_numbers", tmp_path)
    x = RANDOM.normal(size=(5, 2)).astype("f4")
    scores = local_scores(path, spec, ak.Array(x))
    assert scores.fields == ["top", "qcd"]
    assert np.array_equal(scores.qcd, 2 * x[:, 1])


def test_events_of_jets_keep_their_lists(tmp_path: Path):
    path, spec = made(GOOD, "sum_over_constituents", tmp_path)
    flat = jets(40)
    events = ak.unflatten(flat, [10, 0, 25, 5])
    scores = local_scores(path, spec, events)
    assert ak.num(scores).tolist() == [10, 0, 25, 5]
    expected = np.stack([ak.sum(flat.pt, axis=1), ak.sum(flat.eta, axis=1)], axis=1)
    assert np.allclose(ak.flatten(scores), expected, atol=1e-5)


def test_a_value_of_each_constituent_has_their_lengths(tmp_path: Path):
    path, spec = made(GOOD, "value_of_each_constituent", tmp_path)
    flat = jets(12)
    scores = local_scores(path, spec, flat)
    assert np.allclose(ak.flatten(scores[:, 0]), 2 * ak.flatten(flat.pt))
    assert ak.num(scores[:, 0]).tolist() == ak.num(flat).tolist()


def test_a_row_alone_has_the_scores_of_padded_batches(tmp_path: Path):
    path, spec = made(GOOD, "sum_with_a_recipe", tmp_path)
    data = jets(60)
    model, job = LocalModel(path, spec), prepare(data, spec)
    for batch in batches(job.inputs, [Lengths(1, 50)], fixed_sizes(200)):
        job.outputs.put(batch, model.run(batch))
    assert np.allclose(ak.to_numpy(job.result()), ak.to_numpy(local_scores(path, spec, data)), atol=1e-5)


def test_rows_are_padded_to_the_length_of_the_training(tmp_path: Path):
    path, spec = made(GOOD, "mean_that_was_trained_at_one_length", tmp_path)
    flat = jets(8)
    assert np.allclose(local_scores(path, spec, flat)[:, 0], ak.sum(flat.pt, axis=1) / 50, atol=1e-6)


def test_a_refused_row_gets_the_least_length_that_is_accepted(tmp_path: Path):
    path, spec = made(BROKEN, "neighbours_without_a_least_length", tmp_path)
    flat = jets(8)
    largest = ak.sort(abs(flat.pt), axis=1, ascending=False)[:, :3]
    assert np.allclose(local_scores(path, spec, flat)[:, 0], ak.sum(largest, axis=1), atol=1e-5)


def test_a_row_that_is_always_refused_is_an_error(tmp_path: Path):
    path, spec = made(BROKEN, "layer_of_another_width", tmp_path)
    with pytest.raises(InvalidInput, match=r"(?i)reshape"):
        local_scores(path, spec, np.zeros((4, 2), "f4"))


def test_graphs_are_scored_one_by_one(tmp_path: Path):
    path, spec = made(GOOD, "graph_network", tmp_path)
    nodes = [RANDOM.normal(size=(n, 2)).astype("f4") for n in (3, 1, 5)]
    edges = [np.array([[0, 1], [1, 2]]), np.zeros((2, 0), np.int64), np.array([[0], [4]])]
    scores = local_scores(path, spec, {"x": nodes, "edge_index": edges})
    assert ak.num(scores).tolist() == [3, 1, 5]
    assert np.allclose(ak.to_numpy(ak.flatten(scores)), 2 * np.concatenate(nodes))


def test_a_file_that_does_not_load_is_an_error_in_words(tmp_path: Path):
    path, spec = made(BROKEN, "graph_that_contradicts_itself", tmp_path)
    with pytest.raises(ConfigurationError, match="ONNX Runtime does not load it"):
        local_scores(path, spec, np.zeros((4, 2), "f4"))
