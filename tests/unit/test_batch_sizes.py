"""Models that take batches of certain sizes only, and servers that merge requests or prefer certain sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import ragged, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.inference import protocol
from eaf_inference.inference.batching import batches
from eaf_inference.inference.inputs import DenseInput, Inputs
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.tuning import Shape, fixed_sizes

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True).map(lambda sizes: tuple(sorted(sizes)))


def inputs_of(arrays, rows, sizes):
    return Inputs(arrays, rows=rows, max_batch_size=sizes[-1], batch_sizes=sizes)


@given(counts=st.lists(st.integers(0, 30), max_size=300), sizes=SIZES, budget=st.integers(1, 2000))
def test_jagged_batches_have_a_declared_size_and_each_row_goes_once(counts, sizes, budget):
    rows = [[float(number)] * count for number, count in enumerate(counts)]
    inputs = inputs_of([ragged(tensor("x", -1), rows)], len(rows), sizes)
    seen = []
    for batch in batches(inputs, [Lengths()], fixed_sizes(budget)):
        (sent,) = batch.tensors
        assert len(sent) in sizes
        assert batch.size == len(batch.rows) <= len(sent)
        seen += batch.rows.tolist()
        for row, values in zip(batch.rows, sent, strict=False):
            assert values.sum() == row * counts[row]
        for values in sent[batch.size :]:
            np.testing.assert_array_equal(values, sent[batch.size - 1])
    assert sorted(seen) == list(range(len(rows)))


@given(rows=st.integers(0, 300), sizes=SIZES)
def test_dense_batches_have_a_declared_size_and_each_row_goes_once(rows, sizes):
    values = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
    seen = []
    for batch in batches(inputs_of([DenseInput(tensor("x", 2), values)], rows, sizes), [], fixed_sizes(100)):
        (sent,) = batch.tensors
        assert len(sent) in sizes
        np.testing.assert_array_equal(sent[: batch.size], values[batch.rows])
        seen += list(range(rows))[batch.rows]
    assert seen == list(range(rows))


def merging(arrays, rows, most, preferred=()):
    return Inputs(arrays, rows=rows, max_batch_size=most, merged=preferred)


def jets(counts):
    return ragged(tensor("x", -1), [[float(number)] * count for number, count in enumerate(counts)])


@given(
    counts=st.lists(st.integers(0, 30), max_size=300),
    sizes=SIZES,
    budget=st.integers(1, 2000),
    crowded=st.booleans(),
)
def test_batches_have_a_preferred_size_as_far_as_rows_and_budget_allow(counts, sizes, budget, crowded):
    inputs = merging([jets(counts)], len(counts), 40, sizes)
    shape = replace(Shape.of(budget), crowded=crowded)
    seen, others = [], 0
    for batch in batches(inputs, [Lengths()], lambda *_, **__: shape):
        (sent,) = batch.tensors
        seen += batch.rows.tolist()
        fits = sent.size <= budget or batch.size == 1
        assert fits
        others += batch.size not in sizes and batch.size * 2 * sent.shape[1] <= budget
        for row, values in zip(batch.rows, sent, strict=True):
            assert values.sum() == row * counts[row]
    assert sorted(seen) == list(range(len(counts)))
    if sizes[0] * 32 <= budget:
        assert others <= 1  # the rest of the only window


def test_rows_of_fixed_shape_go_in_batches_of_a_preferred_size():
    values = np.zeros((1100, 2), np.float32)
    sent = batches(merging([DenseInput(tensor("x", 2), values)], 1100, 1200, (8, 512)), [], fixed_sizes(100))
    assert [batch.size for batch in sent] == [512, 512, 76]


def lengths_sent(counts, *, crowded, merged=(), request=10_000.0, most=256):
    """Return the padded lengths that many small calls send."""
    found = set()
    shape = Shape(request, 131_072, crowded=crowded)
    for each in counts:
        inputs = Inputs([jets(each)], rows=len(each), max_batch_size=most, merged=merged)
        found |= {batch.lengths[0] for batch in batches(inputs, [Lengths()], lambda *_, **__: shape)}
    return found


def test_calls_in_a_crowd_send_equal_shapes_to_a_server_that_merges_them():
    draw = np.random.default_rng(1)
    calls = [np.clip(draw.normal(72, 25, 20).astype(int), 1, None).tolist() for _ in range(40)]
    apart = lengths_sent(calls, crowded=False)
    assert len(apart) > 6
    assert lengths_sent(calls, crowded=True, merged=None) == apart
    assert len(lengths_sent(calls, crowded=True)) <= 3
    # merging cannot pay: a request costs little, or fills a batch
    cheap = lengths_sent(calls, crowded=False, request=200.0)
    assert lengths_sent(calls, crowded=True, request=200.0) == cheap
    assert lengths_sent(calls, crowded=True, most=32) == apart


@pytest.mark.parametrize(
    ("batcher", "expected"),
    [
        (None, None),
        ({}, ()),
        ({"preferred_batch_size": [128]}, ()),  # what Triton fills in for {}
        ({"preferred_batch_size": [64, 16, 16, 4096, 1]}, (16, 64)),
    ],
)
def test_the_dynamic_batcher_is_read_from_the_configuration(batcher, expected):
    config = protocol.ModelConfig(name="jets", max_batch_size=128, dynamic_batching=batcher)
    for name, tensors in (("x", config.input), ("y", config.output)):
        tensors.add(name=name, data_type="TYPE_FP32", dims=[1])
    assert ModelSpec.from_config(config, "1").merged == expected
