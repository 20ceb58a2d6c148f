"""Fingerprints: what they compare, and how they are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import tensor

from eaf_inference.errors import InvalidInput, ModelChanged
from eaf_inference.inference import protocol
from eaf_inference.inference.config_hash import config_hash
from eaf_inference.inference.fingerprint import Fingerprint, Probed
from eaf_inference.inference.probe import Shape, probe_of, sampled
from eaf_inference.inference.request import same_version
from eaf_inference.inference.spec import ModelSpec


def fingerprint(*scores, tolerance=1e-5):
    values = sampled(np.array(scores, np.float32))
    return Fingerprint("m", "1", "c0", "r0", Probed(Shape(8), {"y": values}, tolerance))


@pytest.mark.parametrize(
    ("scores", "other", "match"),
    [
        ([0.1, 0.9], [0.1, 0.900001], True),
        ([0.1, 0.9], [0.1, 0.91], False),
        ([1e-7, 2e-7], [1e-7, 3e-7], False),  # small scores count as much as large ones
        ([np.nan, 0.5], [np.nan, 0.5], True),
        ([np.nan, 0.5], [0.5, np.nan], False),
        ([np.inf, 0.5], [np.inf, 0.5], True),
        ([np.inf, 0.5], [-np.inf, 0.5], False),
        ([0.5], [0.5, 0.5], False),
        ([0.0, 0.0], [0.0, 0.0], True),
    ],
)
def test_probes_are_equal_within_the_last_digits_and_no_further(scores, other, match):
    one, two = fingerprint(*scores), fingerprint(*other)
    assert one.matches(two) is two.matches(one) is match
    assert str(one) == str(two)  # the digits of a probe are no part of it


def test_integers_must_be_equal_whatever_their_size():
    one, two = (
        Fingerprint("m", "1", "", "", Probed(Shape(8), {"y": sampled(np.array([1 << 40, last]))}, 1e-2))
        for last in (1, 2)
    )
    assert one.matches(one)
    assert not one.matches(two)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "other"}, False),
        ({"version": "2"}, False),
        ({"version": ""}, True),
        ({"config": "c1"}, False),
        ({"config": ""}, True),
        ({"recipe": "r1"}, False),
        ({"probe": None, "remark": "it refuses a probe"}, False),
    ],
)
def test_each_part_is_compared_unless_it_is_unknown(change, match):
    one = fingerprint(0.5)
    assert one.matches(replace(one, **change)) is match


def test_a_fingerprint_outlives_a_file():
    one = fingerprint(0.1, np.nan, -np.inf, 1 / 3)
    again = Fingerprint.from_json(one.to_json())
    assert again == one
    assert str(again) == str(one)
    assert Fingerprint.from_json(replace(one, probe=None).to_json()).probe is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"probe": 3}', "null"])
def test_a_damaged_fingerprint_is_refused(text):
    with pytest.raises(InvalidInput, match="cannot be read"):
        Fingerprint.from_json(text)


def test_the_configuration_counts_only_where_it_changes_scores():
    def config(**changes):
        made = protocol.ModelConfig(name="m", platform="onnxruntime_onnx", max_batch_size=8, **changes)
        made.input.add(name="x", data_type=11, dims=[-1])
        return made

    plain = config_hash(config())
    same = config()
    same.dynamic_batching.max_queue_delay_microseconds = 100
    same.instance_group.add(count=4)
    same.max_batch_size = 64
    same.optimization.priority = 1
    same.parameters["intra_op_thread_count"].string_value = "2"
    assert config_hash(same) == plain
    assert same.max_batch_size == 64  # the caller's own is not touched
    reduced = config()
    reduced.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    other = config()
    other.parameters["labels"].string_value = "{}"
    assert (
        len({plain, config_hash(reduced), config_hash(other), config_hash(config(default_model_filename="b"))}) == 4
    )


TENSORS = {
    "x": tensor("x", 2, -1),
    "pairs": tensor("pairs", 4, -1, -1),
    "flag": tensor("flag", 3, datatype="BOOL"),
    "kind": tensor("kind", -1, datatype="INT64"),
    "name": tensor("name", 1, datatype="BYTES"),
    "x_mask": tensor("x_mask", 1, -1),
}


def spec_of(*inputs, max_batch_size=16, **more):
    outputs = (tensor("y", 2),)
    return ModelSpec("m", "1", max_batch_size, tuple(inputs), outputs, recipe=None, labels={}, **more)


def test_a_probe_has_a_value_for_any_input_and_the_same_every_time():
    spec = spec_of(*TENSORS.values())
    first, again = (probe_of(spec, Shape(8)) for _ in range(2))
    assert first.names == tuple(TENSORS)
    assert [each.shape for each in first.tensors] == [(3, 2, 8), (3, 4, 8, 8), (3, 3), (3, 8), (3, 1), (3, 1, 8)]
    for one, other, declared in zip(first.tensors, again.tensors, TENSORS.values(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == declared.dtype
    x, kind, mask = first.tensors[0], first.tensors[3], first.tensors[5]
    assert (x[0] > 0).all()
    assert (x[1] < 0).any()
    assert set(kind.flat) == {0, 1}
    assert (mask == 1).all()
    plain = probe_of(spec, Shape(8, plain=True))
    assert not plain.tensors[3].any()
    assert set(plain.tensors[4].flat) == {b""}


def test_a_probe_keeps_to_the_batches_and_axes_that_a_model_declares():
    x = TENSORS["x"]
    assert probe_of(spec_of(x, max_batch_size=1), Shape(8)).tensors[0].shape == (1, 2, 8)
    assert probe_of(spec_of(x, max_batch_size=0), Shape(32)).tensors[0].shape == (2, 32)
    assert probe_of(spec_of(x, pad_batches_to=(2, 8)), Shape(8)).tensors[0].shape == (8, 2, 8)
    assert probe_of(spec_of(tensor("image", 3, 4096, 4096)), Shape(8)) is None


def test_a_server_that_keeps_replies_gets_one_row_that_is_new_each_time():
    spec, shape = spec_of(TENSORS["x"]), Shape(8, cached=True)
    (fixed,), (one,), (two,) = (probe_of(spec, shape, fresh=fresh).tensors for fresh in (False, True, True))
    np.testing.assert_array_equal(one[:-1], two[:-1])
    np.testing.assert_array_equal(one[:-1], fixed[:-1])
    assert (one[-1] != two[-1]).all()
    assert probe_of(spec, shape).size == len(fixed) - 1
    assert probe_of(spec_of(TENSORS["x"], max_batch_size=0), shape) is None


@pytest.mark.parametrize(
    ("expected", "replied", "found"), [("1", "1", "1"), ("1", "", "1"), ("", "2", "2"), ("", "", "")]
)
def test_a_reply_of_the_same_or_an_unknown_version_is_taken(expected, replied, found):
    assert same_version("m", expected, protocol.ModelInferResponse(model_version=replied)) == found


def test_a_reply_of_another_version_is_an_error():
    with pytest.raises(ModelChanged, match="Version 2 of model 'm' answered. Expected 1"):
        same_version("m", "1", protocol.ModelInferResponse(model_version="2"))
