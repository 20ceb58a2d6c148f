"""Rounding and what padding changes: outputs of any scale, and servers with noise."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from builders import ragged, rows_of, tensor

from eaf_inference.inference.agreement import agree, limits, noise_of
from eaf_inference.inference.batching import batches
from eaf_inference.inference.graph_job import prepare_graphs
from eaf_inference.inference.graph_spec import GraphSpec
from eaf_inference.inference.padding import PaddingCheck
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.tuning import fixed_sizes
from eaf_inference.inference.union_check import UnionCheck

COUNTS = [3, 5, 9, 17, 30, 45, 60, 61, 62, 70, 80, 90, 20, 33]


def jets(*outputs, counts=COUNTS):
    """Return a model with these outputs, and rows for it."""
    spec = ModelSpec("jets", "", 64, (tensor("x", 1, -1),), outputs, None, {})
    rows = [[1.0 + number % 7 for number in range(count)] for count in counts]
    return spec, rows_of([ragged(tensor("x", 1, -1), rows)], list(outputs)).inputs


def is_padded(model, *outputs, counts=COUNTS):
    """Whether rows are padded for a model, which is a function of a batch."""
    spec, inputs = jets(*outputs, counts=counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return not PaddingCheck(spec).padding(inputs, lambda sent: [model(batch) for batch in sent]).lengths[0].exact


def share(batch, effect):
    """Return a number between 0 and 1 for each row, which padding changes by this relative amount."""
    x = batch.tensors[0][:, 0].astype(np.float64)
    wave = 0.5 + 0.4 * np.sin(x.sum(axis=1))
    return wave * (1 + effect * np.mean(x == 0, axis=1))


def rounded(values, batch, size):
    """Change values as kernels do that are chosen by the shape of a batch."""
    kernel = (7 * batch.size + 3 * batch.tensors[0].shape[2]) % 5 - 2
    return values * (1 + size * kernel)


def as_float32(*columns):
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.mark.parametrize("effect", [0.0, 0.01])
@pytest.mark.parametrize(
    "score",
    [
        lambda share: as_float32(1e3 + 100 * share, np.round(share, 12)),  # a mass and a probability
        lambda share: as_float32(1e-4 * share),
        lambda share: as_float32(1 - 1e-3 * share),
        lambda share: as_float32(173 + 0.1 * share),
    ],
    ids=["beside large ones", "small", "near 1", "with an offset"],
)
def test_a_change_by_a_hundredth_of_what_tells_rows_apart_is_noticed(score, effect):
    output = tensor("y", score(np.zeros(1)).shape[1])
    assert is_padded(lambda batch: {"y": score(share(batch, effect))}, output) == (effect == 0)


@pytest.mark.parametrize("effect", [0.0, 2e-3])
def test_the_noise_of_a_large_score_hides_no_change_of_a_small_one(effect):
    def model(batch):
        mass, probability = 1e3 * rounded(share(batch, 0), batch, 1e-3), share(batch, effect)
        return {"y": as_float32(mass, probability), "z": as_float32(probability)}

    assert is_padded(model, tensor("y", 2), tensor("z", 1)) == (effect == 0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_noise_of_a_score_beside_others_of_any_scale_is_no_reason(scale):
    def model(batch):
        return {"y": as_float32(1e3 * share(batch, 0), scale * rounded(share(batch, 0), batch, 1e-3))}

    assert is_padded(model, tensor("y", 2))


@pytest.mark.parametrize("counts", [[9, 17, 30], COUNTS])
def test_noise_is_measured_again_before_padding_is_refused(counts):
    def model(batch):  # as far as three copies of a row show, there is little noise
        size = 1e-6 if batch.size in (1, 3, 9) and batch.tensors[0].shape[2] in counts else 1e-3
        return {"y": as_float32(rounded(share(batch, 0), batch, size))}

    def wrong(batch):
        return {"y": as_float32(rounded(share(batch, 0.1), batch, 1e-3))}

    assert is_padded(model, tensor("y", 1), counts=counts)
    assert not is_padded(wrong, tensor("y", 1), counts=counts)


@pytest.mark.parametrize(("datatype", "step"), [("FP16", 2.0**-10), ("BF16", 2.0**-7)])
def test_the_last_place_of_a_coarse_type_is_rounding(datatype, step):
    def to_type(values):
        values = (np.round(values / step) * step).astype(np.float32)
        return {"y": values.astype(tensor("y", 1, datatype=datatype).dtype)[:, None]}

    output = tensor("y", 1, datatype=datatype)
    assert is_padded(lambda batch: to_type(0.6 + share(batch, 0.0) / 4 + step * (batch.size == 1)), output)
    assert not is_padded(lambda batch: to_type(0.6 + share(batch, 0.3) / 4), output)


@pytest.mark.parametrize("datatype", ["INT64", "BYTES"])
@pytest.mark.parametrize("effect", [0.0, 0.02])
def test_a_model_that_gives_labels_alone_is_tried_on_more_rows(effect, datatype):
    output = tensor("label", 1, datatype=datatype)

    def model(batch):
        label = (share(batch, effect) > 0.5)[:, None]
        return {"label": np.where(label, b"top", b"QCD").astype(object) if datatype == "BYTES" else label.astype(int)}

    assert is_padded(model, output) == (effect == 0)


def test_noise_is_that_of_each_output_and_position():
    outputs = tensor("y", 2), tensor("z", -1), tensor("label", 1, datatype="INT64")
    right = [
        {"y": np.array([1000.0 * row, row], np.float32), "z": np.full(row, 1.0), "label": np.array([row])}
        for row in range(1, 5)
    ]
    other = [each | {"y": each["y"] + np.float32([2, 0])} for each in right]
    noise = noise_of(zip(right, other, strict=True), right, outputs)
    assert set(noise) == {"y", "z"}
    np.testing.assert_allclose(noise["y"].change, [2, 0])
    allowed = limits(right, outputs, [noise])
    np.testing.assert_allclose(allowed["y"].absolute, [8.0376, 3.76e-5], rtol=1e-2)
    assert agree(right[0]["y"], np.float32([1007, 1]), allowed["y"])
    assert not agree(right[0]["y"], np.float32([1000, 1.001]), allowed["y"])
    assert not agree(right[0]["y"], np.float32([np.nan, 1]), allowed["y"])
    assert not agree(right[0]["label"], np.array([2]), None)
    near_one = [{"y": np.array([1e-3 * row, 1 - 1e-6 * row])} for row in range(4)]
    assert limits(near_one, outputs, [noise])["y"].absolute[0] < 1e-4  # less spread, less noise


def finite_once(wave, beyond):
    """Return scores of which the first alone is finite."""
    return np.where(np.arange(len(wave)) == 0, 1.0, beyond)


@pytest.mark.parametrize(
    ("score", "change"),
    [
        (lambda wave: finite_once(wave, np.inf), 9e-6),
        (lambda wave: finite_once(wave, np.nan), 9e-6),
        (lambda wave: np.full_like(wave, 1e-3), 1e-7),  # the difference of numbers near 1, of one jet again and again
        (lambda wave: np.exp(-70 - 1e-3 * wave), 70 * 4e-7 * np.exp(-70)),
        (lambda wave: 1e-42 * wave, 3e-45),
    ],
    ids=["infinite", "NaN", "equal", "exponentials", "below normal numbers"],
)
def test_rounding_of_scores_that_hardly_differ_is_allowed(score, change):
    output = tensor("y", 1)
    right = [{"y": np.array([value])} for value in score(np.linspace(0, 1, 4))]
    assert agree(right[0]["y"], right[0]["y"] + change, limits(right, [output])["y"])
    assert not agree(right[0]["y"], right[0]["y"] + max(abs(right[0]["y"][0]), 1e-4), limits(right, [output])["y"])


@pytest.mark.parametrize("merged", [None, ()])
def test_rows_of_a_model_that_mixes_them_go_one_by_one(merged):
    def normalised(batch):
        score = share(batch, 0)
        return {"y": as_float32(score - score.mean())}

    counts = [*COUNTS, *COUNTS]  # several of each length
    spec, inputs = jets(tensor("y", 1), counts=counts)
    check = PaddingCheck(replace(spec, merged=merged))
    with pytest.warns(
        UserWarning, match=r"one row goes per request: .* on the other rows.*in evaluation mode"
    ) as seen:
        lengths = check.padding(inputs, lambda sent: [normalised(batch) for batch in sent]).lengths
    assert ("its dynamic batcher merges" in str(seen[0].message)) == (merged is not None)
    sent = list(batches(inputs, lengths, fixed_sizes(8192)))
    assert sorted(batch.rows.tolist() for batch in sent) == [[row] for row in range(len(counts))]
    assert [batch.tensors[0].shape[2] for batch in sent] == [counts[batch.rows[0]] for batch in sent]


@pytest.mark.parametrize("datatype", ["FP32", "INT64"])
def test_a_random_model_is_not_said_to_mix_rows(datatype):
    random = np.random.default_rng(1)

    def dropout(batch):
        return {"y": random.integers(0, 1000, (batch.size, 1)).astype(output.dtype)}

    output = tensor("y", 1, datatype=datatype)
    spec, inputs = jets(output)
    with pytest.warns(UserWarning, match="depend on the padding"):
        PaddingCheck(spec).padding(inputs, lambda sent: [dropout(batch) for batch in sent])


@pytest.mark.parametrize("effect", [0.0, 0.01])
@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (0.1, 173.0)])
def test_graphs_that_are_mixed_are_noticed_in_scores_of_any_scale(scale, offset, effect):
    inputs, outputs = (tensor("x", -1, 2), tensor("edge_index", 2, -1, datatype="INT64")), (tensor("node", -1, 2),)
    declared = json.dumps({"x": "x", "edge_index": "edge_index", "outputs": {"node": "node"}})
    graph = GraphSpec.parse(declared, model="tracks", max_batch_size=0, inputs=inputs, outputs=outputs)
    spec = ModelSpec("tracks", "", 0, inputs, outputs, None, {}, graph=graph)

    def network(union):
        x = union.tensors[union.names.index("x")]
        return {"node": (scale * (x - effect * x.mean(axis=0)) + offset)[None].astype(np.float32)}

    random = np.random.default_rng(1)
    nodes = ak.Array([random.normal(size=(number, 2)).astype(np.float32) for number in (3, 5, 8, 4)])
    edges = ak.Array([[[0, 1], [1, 2]]] * 4)
    job = prepare_graphs({"x": nodes, "edge_index": edges}, spec, graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = UnionCheck(spec).together(job.graphs, graph, lambda sent: [network(union) for union in sent])
    assert together == (effect == 0)
