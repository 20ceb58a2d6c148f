"""Any configuration and any reply of a server is used, or refused with a typed error."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from builders import tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from eaf_inference.errors import BadReply, ConfigurationError
from eaf_inference.inference import protocol
from eaf_inference.inference.outputs import read_outputs
from eaf_inference.inference.reply import read_with
from eaf_inference.inference.spec import DTYPES, ModelSpec

SIZES = st.integers(-3, 5) | st.sampled_from([2**20, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)])
SHAPES = st.lists(SIZES, max_size=4)
NAMES = st.sampled_from(["x", "y", "", "x\x1b[2J", "\u202e", "n" * 70_000]) | st.text(max_size=3)
DATATYPES = st.sampled_from([*DTYPES, "BYTES", "", "fp32"])


@st.composite
def configurations(draw):
    """Draw any ModelConfig; most are nearly right."""
    made = protocol.ModelConfig(name=draw(NAMES), max_batch_size=draw(st.integers(-(2**31), 2**31 - 1)))
    for tensors in (made.input, made.output):
        for name in draw(st.lists(NAMES, max_size=3)):
            tensors.add(name=name, data_type=draw(st.integers(0, 15) | st.just(11)), dims=draw(SHAPES))
    for key in draw(st.sets(st.sampled_from(["preprocess", "labels", "other"]))):
        made.parameters[key].string_value = draw(st.text(max_size=30) | st.sampled_from(["[" * 10_000, "{}", "null"]))
    return made


@settings(max_examples=200)
@given(configurations())
def test_any_configuration_gives_a_usable_spec_or_a_configuration_error(config):
    try:
        spec = ModelSpec.from_config(config, "1")
    except ConfigurationError:
        return
    assert spec.max_batch_size >= 0
    for tensors in (spec.inputs, spec.outputs):
        assert len({each.name for each in tensors}) == len(tensors) > 0
        for each in tensors:
            assert 0 < len(each.name) <= 65_536
            assert all(size == -1 or size > 0 for size in each.shape)
            assert math.prod(abs(size) for size in each.shape) * each.dtype.itemsize <= 2**28


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_configuration_or_a_typed_error(data):
    answer = read_with(protocol.ModelConfigResponse, "grpc://there:8001")(data)
    if isinstance(answer, BadReply):
        assert "grpc://there:8001" in str(answer)
        return
    with contextlib.suppress(ConfigurationError):
        ModelSpec.from_config(answer.config, "1")


DECLARED = [tensor("x", 2), tensor("y", -1, datatype="INT64"), tensor("z", 3, -1, -1, datatype="BOOL")]


@st.composite
def replies(draw):
    """Draw any ModelInferResponse to a request of two rows; most are nearly right."""
    made = protocol.ModelInferResponse()
    for spec in draw(st.permutations(DECLARED)):
        variable = draw(st.integers(0, 3))
        shape = [2, *(variable if size == -1 else size for size in spec.shape)]
        raw = bytes(math.prod(shape) * spec.dtype.itemsize)
        change = draw(st.integers(0, 20))
        if change == 0:
            shape = draw(SHAPES)
        elif change == 1:
            shape[draw(st.integers(0, len(shape) - 1))] = draw(SIZES)
        elif change == 2:
            raw = draw(st.binary(max_size=50))
        name = draw(NAMES) if change == 3 else spec.name
        made.outputs.add(name=name, datatype=draw(DATATYPES) if change == 4 else spec.datatype, shape=shape)
        made.raw_output_contents.extend([raw] * (0 if change == 5 else 2 if change == 6 else 1))
    return made


@settings(max_examples=300)
@given(replies(), st.booleans())
def test_any_reply_gives_arrays_as_declared_or_a_bad_reply(reply, batched):
    specs = {
        spec.name: spec if batched else tensor(spec.name, -1, *spec.shape, datatype=spec.datatype)
        for spec in DECLARED
    }
    try:
        found = read_outputs(reply, specs, size=2 if batched else 1, batched=batched, model="jets")
    except BadReply:
        return
    assert set(found) == set(specs)
    for name, values in found.items():
        shape = specs[name].shape
        assert values.dtype == specs[name].dtype
        assert len(values) == (2 if batched else 1)
        assert len(values.shape) == 1 + len(shape)
        assert all(want in (-1, got) for got, want in zip(values.shape[1:], shape, strict=True))


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_reply_or_a_bad_reply(data):
    reply = read_with(protocol.ModelInferResponse, "grpc://there:8001")(data)
    if isinstance(reply, BadReply):
        assert "grpc://there:8001" in str(reply)
    else:
        assert protocol.ModelInferResponse.FromString(data) == reply


@given(replies())
def test_every_reply_encoded_by_protobuf_is_read(reply):
    assert read_with(protocol.ModelInferResponse, "grpc://there:8001")(reply.SerializeToString()) == reply


def config_with(change):
    made = protocol.ModelConfig(name="jets", max_batch_size=64)
    made.input.add(name="x", data_type="TYPE_FP32", dims=[2, -1])
    made.output.add(name="y", data_type="TYPE_FP32", dims=[2])
    change(made)
    return made


def no_batches(config):
    config.max_batch_size = -5


def huge(config):
    config.input[0].dims[0] = 2**62


def overflowing(config):
    config.output[0].dims[:] = [2**32, 2**32]


def nothing_out(config):
    del config.output[:]


def twice_in(config):
    config.input.add(name="x", data_type="TYPE_FP32", dims=[1])


def twice_out(config):
    config.output.add(name="y", data_type="TYPE_FP32", dims=[1])


def many_axes(config):
    config.input[0].dims.extend([1] * 10_000)


def long_name(config):
    config.output[0].name = "y" * 1_000_000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (no_batches, "its max_batch_size is -5; 0 or more was expected"),
        (huge, "'x' has the shape [4611686018427387904, -1]: one row is larger than 256 MiB"),
        (overflowing, "'y' has the shape [4294967296, 4294967296]: one row is larger than 256 MiB"),
        (nothing_out, "it has 0 outputs; 1 to 1,000 are supported"),
        (twice_in, "several of its inputs are called 'x'"),
        (twice_out, "several of its outputs are called 'y'"),
        (many_axes, "'x' has 10,002 axes; at most 16 are supported"),
        (long_name, f"a tensor is called '{'y' * 199}…'; a name of 1 to 65,536 characters is expected"),
    ],
)
def test_an_absurd_model_is_refused_with_the_limit(change, why):
    with pytest.raises(ConfigurationError) as caught:
        ModelSpec.from_config(config_with(change), "")
    assert str(caught.value) == (
        f"The model 'jets' cannot be used through this client: {why}. Tell the model's owner, or choose "
        "another model."
    )


def test_a_model_needs_a_name_of_bounded_length():
    for name in ("", "x" * 1_000_000):
        with pytest.raises(
            ConfigurationError, match=r"A model is called .* Expected a name of 1 to 65,536 characters"
        ):
            ModelSpec.from_config(protocol.ModelConfig(name=name), "")


def test_an_input_and_an_output_may_share_a_name():
    def same(config):
        config.output[0].name = "x"

    assert ModelSpec.from_config(config_with(same), "").outputs[0].name == "x"


def test_an_output_that_comes_twice_is_refused():
    reply = protocol.ModelInferResponse()
    for value in (1, 2):
        reply.outputs.add(name="x", datatype="FP32", shape=[1, 2])
        reply.raw_output_contents.append(np.full(2, value, "<f4").tobytes())
    with pytest.raises(BadReply, match="reply of 'jets' has the output 'x' twice"):
        read_outputs(reply, {"x": DECLARED[0]}, size=1, batched=True, model="jets")


def test_any_byte_of_a_bool_but_0_counts_once():
    reply = protocol.ModelInferResponse()
    reply.outputs.add(name="z", datatype="BOOL", shape=[1, 4])
    reply.raw_output_contents.append(b"\x00\x01\x02\xff")
    found = read_outputs(reply, {"z": tensor("z", 4, datatype="BOOL")}, size=1, batched=True, model="jets")["z"]
    assert found.dtype == bool
    assert found.view(np.uint8).tolist() == [[0, 1, 1, 1]]


def test_contents_that_belong_to_an_unknown_output_are_refused():
    reply = protocol.ModelInferResponse()
    reply.outputs.add(name="x", datatype="FP32", shape=[1, 2])
    reply.outputs.add(name="other", datatype="FP32", shape=[1, 2])
    reply.raw_output_contents.append(bytes(8))  # for one output of the two
    with pytest.raises(BadReply, match="reply of 'jets' has 2 outputs and the contents of 1"):
        read_outputs(reply, {"x": DECLARED[0]}, size=1, batched=True, model="jets")


def test_an_empty_output_cannot_have_a_huge_axis():
    reply = protocol.ModelInferResponse()
    reply.outputs.add(name="z", datatype="BOOL", shape=[1, 3, 2**40, 0])
    reply.raw_output_contents.append(b"")
    with pytest.raises(BadReply, match=r"came as BOOL \[1, 3, 1099511627776, 0\] in 0 bytes"):
        read_outputs(reply, {"z": DECLARED[2]}, size=1, batched=True, model="jets")
