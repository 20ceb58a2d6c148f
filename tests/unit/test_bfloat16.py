"""bfloat16, which numpy lacks: rounding, ranges, and replies."""

from __future__ import annotations

import numpy as np
import pytest
from builders import tensor
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference import nesting, protocol, wire
from eaf_inference.inference.conversion import cast, narrowed
from eaf_inference.inference.outputs import read_outputs

ml_dtypes = pytest.importorskip("ml_dtypes")  # absent with the oldest packages

HALF = tensor("x", 2, datatype="BF16")
LARGEST = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)


@given(bits=arrays.arrays("<u4", st.integers(0, 20)))
def test_floats_travel_as_the_nearest_bfloat16(bits):
    values = bits.view("<f4")
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).astype("<f4")
    sent = wire.encode(values, "BF16")
    assert sent.dtype == "<u2"
    np.testing.assert_array_equal(wire.decode(sent.tobytes(), HALF, sent.shape), expected)


def test_every_bfloat16_comes_back_as_it_was_sent():
    bits = np.arange(1 << 16, dtype="<u2")
    values = wire.decode(bits.tobytes(), HALF, bits.shape)
    again = wire.encode(values, "BF16")
    nan = np.isnan(values)
    np.testing.assert_array_equal(again[~nan], bits[~nan])
    assert np.isnan(wire.decode(again[nan].tobytes(), HALF, again[nan].shape)).all()
    np.testing.assert_array_equal(values, bits.view(ml_dtypes.bfloat16).astype("<f4"))


def test_a_nan_of_only_low_bits_stays_a_nan():
    values = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF], "<u4").view("<f4")
    assert np.isnan(wire.rounded(values, "BF16")).all()


@pytest.mark.parametrize("values", [[0.1, -2.5], [np.nan, np.inf], [LARGEST, -LARGEST], [3, 256], [True, False]])
def test_numbers_in_its_range_convert_to_bfloat16(values):
    made = cast(np.array(values), HALF)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, np.array(values, np.float32))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.array([3.4e38, 0], np.float32), "some values are beyond its range"),
        (np.array([1e300, 0]), "some values are beyond its range"),
        (np.array([257, 0]), "some values would change"),
        (np.array([2**40 + 1, 0]), "some values would change"),
    ],
)
def test_numbers_that_bfloat16_lacks_are_refused(values, why):
    with pytest.raises(InvalidInput, match=f"the model's BF16: {why}"):
        cast(values, HALF)


def test_a_recipe_may_not_exceed_the_range_of_bfloat16():
    assert narrowed(np.array([0.1, np.inf], np.float32), HALF).dtype == np.float32
    with pytest.raises(FloatingPointError):
        narrowed(np.array([3.4e38], np.float32), HALF)


@pytest.mark.parametrize(("raw", "good"), [(b"\x80\x3f\x00\x40", True), (b"\0" * 8, False), (b"\0" * 3, False)])
def test_a_bfloat16_reply_has_two_bytes_for_each_value(raw, good):
    reply = protocol.ModelInferResponse(raw_output_contents=[raw])
    reply.outputs.add(name="x", datatype="BF16", shape=[1, 2])
    if good:
        made = read_outputs(reply, {"x": HALF}, size=1, batched=True, model="m")["x"]
        assert (made.dtype, made.tolist()) == (np.float32, [[1.0, 2.0]])
        return
    with pytest.raises(BadReply, match="Expected BF16"):
        read_outputs(reply, {"x": HALF}, size=1, batched=True, model="m")


def test_arrays_of_bfloat16_are_read_without_loss():
    values = np.array([[0.1, -3.0], [np.inf, 2.0]], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(nesting.peel(values, "it").content, values.astype(np.float32).reshape(-1))
