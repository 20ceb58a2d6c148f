"""Batching: every row is sent once, within bounds and padded correctly, and its outputs return to its place.

The server of these tests is a function of a batch's tensors.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import awkward as ak
import numpy as np
import pytest
from builders import cut, numbers, ragged, rows_of, run, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.errors import BadReply
from eaf_inference.inference import nesting
from eaf_inference.inference.batching import batch_of
from eaf_inference.inference.inputs import DenseInput, RaggedInput
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.nesting import Outer

PAD = -777.0
rows_of_numbers = st.lists(st.lists(st.floats(-100, 100, width=32), max_size=30), max_size=40)
many_counts = st.lists(st.integers(0, 60), min_size=1, max_size=3000)
SUM, EACH = tensor("sum"), tensor("each", -1)


def masked_sum(batch):
    """Sum each row's constituents, as a model with correct masks does."""
    values = batch.tensors[0]
    real = values != PAD
    return {"sum": np.where(real, values, 0).sum(axis=-1, dtype=np.float64).astype(np.float32)}


def doubled_each(batch):
    return {"each": batch.tensors[0] * np.float32(2)}


def with_counts(counts):
    """Make an input of one channel with running numbers."""
    counts = np.array(counts, np.int64)
    column = np.arange(counts.sum(), dtype=np.float32)
    return RaggedInput(tensor("x", -1), [column], [PAD], np.cumsum(counts) - counts, counts)


@given(
    counts=many_counts,
    max_batch_size=st.integers(1, 200),
    budget=st.integers(1, 4096),
    minimum=st.integers(1, 40),
    room=st.none() | st.integers(0, 100),
)
def test_every_row_is_in_one_batch_and_batches_stay_within_bounds(counts, max_batch_size, budget, minimum, room):
    lengths = Lengths(minimum, None if room is None else max(minimum, *counts) + room)
    jets = rows_of([with_counts(counts)], [], max_batch_size=max_batch_size)
    seen = []
    for batch in cut(jets, lengths, budget):
        ((rows, padded),) = {tensor.shape for tensor in batch.tensors}
        assert rows == batch.size == len(batch.rows) <= max_batch_size
        assert rows == 1 or rows * padded <= budget
        assert batch.lengths == (padded,)
        assert max(np.array(counts)[batch.rows].max(), minimum) <= padded
        assert padded % 8 == 0 or padded == lengths.maximum
        assert lengths.maximum is None or padded <= lengths.maximum
        seen.extend(batch.rows.tolist())
    assert sorted(seen) == list(range(len(counts)))


def test_rows_beyond_the_first_window_are_sent():
    counts = np.random.default_rng(1).integers(0, 60, 2500)
    jets = rows_of([with_counts(counts)], [SUM])
    run(jets, masked_sum, cell_budget=1024, backwards=True)
    ends = np.cumsum(counts)
    sums = ends * (ends - 1) // 2 - (ends - counts) * (ends - counts - 1) // 2
    np.testing.assert_allclose(jets.outputs.dense("sum"), sums, rtol=1e-6)


@given(counts=st.lists(st.integers(1, 48), min_size=1, max_size=60), budget=st.integers(64, 1024))
def test_no_other_cut_costs_less_in_padding_and_requests(counts, budget):
    batches = cut(rows_of([with_counts(counts)], []), Lengths(), budget)
    padded = np.sort(-(-np.array(counts) // 8) * 8)
    ends = [*(np.flatnonzero(np.diff(padded)) + 1), len(counts)]  # the only places where another cut can be better

    def cost(cuts):
        groups = [padded[first:last] for first, last in pairwise((0, *cuts, len(counts)))]
        return sum(len(rows) * rows[-1] + budget / 8 * math.ceil(len(rows) / (budget // rows[-1])) for rows in groups)

    others = (cuts for number in range(len(ends)) for cuts in combinations(ends[:-1], number))
    assert sum(batch.size * batch.lengths[0] + budget / 8 for batch in batches) <= min(map(cost, others))


def partitions(rows):
    """Yield every way of putting some rows into batches."""
    if not rows:
        yield []
        return
    first, *others = rows
    for found in partitions(others):
        yield [[first], *found]
        for at, batch in enumerate(found):
            yield [*found[:at], [first, *batch], *found[at + 1 :]]


@given(
    counts=st.lists(st.lists(st.integers(0, 48), min_size=6, max_size=6), min_size=2, max_size=3, unique_by=tuple),
    budget=st.integers(64, 1024),
)
def test_rows_of_several_collections_cost_little_more_than_the_best_cut(counts, budget):
    batches = cut(rows_of([with_counts(each) for each in counts], [], max_batch_size=4), Lengths(), budget)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(6))
    padded = -(-np.array(counts) // 8) * 8

    def cost(rows):
        cells = len(rows) * padded[:, rows].max(axis=1).sum()
        fits = len(rows) == 1 or (len(rows) <= 4 and cells <= budget)
        return cells + budget / 8 if fits else np.inf

    best = min(sum(map(cost, each)) for each in partitions(list(range(6))))
    assert sum(cost(batch.rows) for batch in batches) <= 1.25 * best


def test_rows_of_several_independent_collections_are_padded_little():
    rng = np.random.default_rng(5)
    for number, most in ((1, 1.05), (2, 1.25), (3, 1.4)):
        counts = rng.integers(0, 97, (number, 1024))
        batches = cut(rows_of([with_counts(each) for each in counts], [], max_batch_size=256), Lengths(), 8192)
        sent = sum(batch.size * sum(batch.lengths) for batch in batches)
        assert sent <= most * (-(-counts // 8) * 8).sum()
        assert len(batches) <= 1.5 * counts.sum() / 8192 + 4


def test_the_budget_counts_the_longest_row_of_each_input():
    inputs = [with_counts([20, 0]), with_counts([0, 21])]
    assert [batch.size for batch in cut(rows_of(inputs, []), Lengths(), 64)] == [1, 1]
    assert [batch.size for batch in cut(rows_of(inputs, []), Lengths(), 512)] == [2]


def test_with_exact_lengths_rows_of_equal_lengths_share_a_batch():
    inputs = [with_counts([1, 3, 1, 3, 2]), with_counts([3, 1, 3, 1, 2])]
    sizes = [batch.size for batch in cut(rows_of(inputs, []), Lengths(exact=True), 1024)]
    assert sorted(sizes) == [1, 2, 2]


@given(data=rows_of_numbers, channels=st.integers(1, 3), budget=st.integers(1, 512), last=st.booleans())
def test_values_are_in_their_places_and_the_rest_is_padding(data, channels, budget, last):
    spec = tensor("x", -1, channels) if last else tensor("x", channels, -1)
    jets = rows_of([ragged(spec, data, channels=channels, pad=PAD)], [])
    for batch in cut(jets, Lengths(minimum=5), budget):
        (sent,) = batch.tensors
        assert sent.dtype == np.float32
        assert sent.flags.c_contiguous
        for row, values in zip(batch.rows, sent.transpose(0, 2, 1) if last else sent, strict=True):
            for channel, line in enumerate(values):
                own = np.array(data[row], np.float32) + np.float32(1000 * channel)
                np.testing.assert_array_equal(line[: len(own)], own)
                assert (line[len(own) :] == PAD).all()


@given(data=rows_of_numbers)
def test_a_channel_of_several_inputs_is_the_same_in_each(data):
    features = ragged(tensor("features", 2, -1), data, channels=2, pad=PAD)
    points = RaggedInput(tensor("points", 1, -1), features.columns[:1], [PAD], features.starts, features.counts)
    other_pad = RaggedInput(tensor("other", 1, -1), features.columns[:1], [5.0], features.starts, features.counts)
    for batch in cut(rows_of([features, points, other_pad], []), Lengths(), 256):
        first, second, third = batch.tensors
        np.testing.assert_array_equal(second[:, 0], first[:, 0])
        np.testing.assert_array_equal(third[:, 0], np.where(first[:, 0] == PAD, 5.0, first[:, 0]))


@pytest.mark.parametrize("datatype", ["INT64", "UINT8", "BOOL", "FP64", "FP16"])
def test_every_data_type_is_sent_as_declared(datatype):
    spec = tensor("x", -1, datatype=datatype)
    (batch,) = cut(rows_of([ragged(spec, [[1, 1], [1]])], []), Lengths(), 64)
    assert batch.tensors[0].dtype == spec.dtype
    np.testing.assert_array_equal(np.sort(batch.tensors[0].sum(axis=1)), [1, 2])


@given(counts=many_counts, max_batch_size=st.integers(1, 50), budget=st.integers(1, 2048))
def test_exact_lengths_pad_nothing(counts, max_batch_size, budget):
    jets = rows_of([with_counts(counts), with_counts(counts)], [], max_batch_size=max_batch_size)
    seen = []
    for batch in cut(jets, Lengths(minimum=0, exact=True), budget):
        for sent in batch.tensors:
            assert not (sent == PAD).any()
            assert sent.shape == (batch.size, counts[batch.rows[0]])
        assert batch.size <= max_batch_size
        seen.extend(batch.rows.tolist())
    assert sorted(seen) == list(range(len(counts)))


def test_exact_lengths_respect_the_models_minimum():
    assert [Lengths(minimum=17, exact=True).padded(longest) for longest in (0, 16, 17, 30)] == [17, 17, 17, 30]


@pytest.mark.parametrize(
    ("lengths", "longest", "padded"),
    [
        (Lengths(), 0, 0),  # no row needs padding
        (Lengths(), 1, 8),
        (Lengths(empty_apart=True, minimum=8), 0, 0),
        (Lengths(minimum=8), 0, 8),
        (Lengths(), 8, 8),
        (Lengths(), 9, 16),
        (Lengths(minimum=17), 3, 24),
        (Lengths(maximum=100), 97, 100),
        (Lengths(100, 100), 3, 100),
        (Lengths(maximum=10), 30, 30),  # padding never truncates
    ],
)
def test_a_padded_length_is_a_multiple_of_eight_within_the_models_bounds(lengths, longest, padded):
    assert lengths.padded(longest) == padded


@given(data=rows_of_numbers, budget=st.integers(1, 512), backwards=st.booleans())
def test_outputs_keep_the_users_order_in_any_order_of_replies(data, budget, backwards):
    jets = rows_of([ragged(tensor("x", -1), data, pad=PAD)], [SUM, EACH])
    run(jets, lambda batch: masked_sum(batch) | doubled_each(batch), cell_budget=budget, backwards=backwards)
    assert jets.outputs.complete
    expected = [np.float32(np.sum(np.array(row, np.float64))) for row in data]
    np.testing.assert_allclose(jets.outputs.dense("sum"), np.array(expected, np.float32), rtol=1e-5, atol=1e-4)
    each = ak.Array(jets.outputs.nested("each"))
    assert each.to_list() == [[2 * value for value in row] for row in data]
    assert str(each.type) == f"{len(data)} * var * float32"


@given(data=rows_of_numbers, first=st.booleans())
def test_outputs_with_several_values_per_constituent_are_cut_to_length(data, first):
    spec = tensor("out", -1, 2) if first else tensor("out", 2, -1)

    def model(batch):
        both = np.stack([batch.tensors[0], -batch.tensors[0]], axis=1)
        return {"out": both.transpose(0, 2, 1) if first else both}

    jets = rows_of([ragged(tensor("x", -1), data)], [spec])
    run(jets, model, backwards=True)
    made = ak.Array(jets.outputs.nested("out")).to_list()
    if first:
        assert made == [[[value, -value] for value in row] for row in data]
    else:
        assert made == [[row, [-value for value in row]] for row in data]


def test_outputs_of_empty_rows_are_empty_lists():
    jets = rows_of([ragged(tensor("x", -1), [[], [1.0], []])], [tensor("out", 2, -1)])
    run(jets, lambda batch: {"out": np.stack([batch.tensors[0]] * 2, axis=1)}, lengths=Lengths(minimum=0, exact=True))
    assert ak.Array(jets.outputs.nested("out")).to_list() == [[[], []], [[1.0], [1.0]], [[], []]]


@given(st.lists(st.tuples(numbers, numbers), max_size=30), st.integers(1, 128))
def test_rows_of_several_jagged_inputs_stay_together(pairs, budget):
    inputs = [ragged(tensor(name, -1), [pair[which] for pair in pairs], pad=PAD) for which, name in enumerate("ab")]
    jets = rows_of(inputs, [SUM])

    def model(batch):
        one, other = (np.where(sent != PAD, sent, 0).sum(axis=1, dtype=np.float64) for sent in batch.tensors)
        return {"sum": (one - 3 * other).astype(np.float32)}

    same = all(len(one) == len(other) for one, other in pairs)  # then a point of both inputs is one cell
    for batch in run(jets, model, cell_budget=budget):
        cells = [sent.size for sent in batch.tensors]
        assert batch.size == 1 or (max(cells) if same else sum(cells)) <= budget
    expected = [sum(one) - 3 * sum(other) for one, other in pairs]
    np.testing.assert_allclose(jets.outputs.dense("sum"), expected, rtol=1e-5, atol=1e-3)


def test_an_output_follows_the_input_whose_length_it_always_has():
    short, long = [[1.0], [2.0], [3.0]], [[5.0] * 20, [6.0] * 9, [7.0] * 3]
    jets = rows_of([ragged(tensor("a", -1), long), ragged(tensor("b", -1), short)], [EACH])
    run(jets, lambda batch: {"each": batch.tensors[1]}, cell_budget=16)
    assert ak.Array(jets.outputs.nested("each")).to_list() == short


def test_an_output_that_could_follow_two_inputs_is_refused():
    jets = rows_of([ragged(tensor("a", -1), [[1.0]]), ragged(tensor("b", -1), [[1.0, 2.0]])], [EACH])
    run(jets, lambda batch: {"each": batch.tensors[1]})
    with pytest.raises(BadReply, match="'each' has the padded lengths of 'a' and 'b'.*Pass these inputs as numpy"):
        jets.outputs.nested("each")


def test_an_output_that_follows_no_input_is_kept_whole():
    jets = rows_of([ragged(tensor("x", -1), [[1.0, 2.0], [3.0]])], [EACH])
    run(jets, lambda batch: {"each": np.tile(batch.rows[:, None], 3).astype(np.float32)})
    assert ak.Array(jets.outputs.nested("each")).to_list() == [[0.0] * 3, [1.0] * 3]


def test_truncated_rows_keep_their_leading_constituents():
    whole = ragged(tensor("x", -1), [[1.0, 2.0, 3.0, 4.0], [5.0]], pad=PAD)
    short = RaggedInput(whole.spec, whole.columns, whole.pads, whole.starts, np.minimum(whole.counts, 2))
    (batch,) = cut(rows_of([short], []), Lengths(maximum=2), 64)
    assert batch.tensors[0][np.argsort(batch.rows)].tolist() == [[1.0, 2.0], [5.0, PAD]]


@given(rows=st.integers(0, 40), max_batch_size=st.integers(1, 9))
def test_dense_rows_are_cut_in_order_and_come_back(rows, max_batch_size):
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    jets = rows_of([DenseInput(tensor("x", 3), values)], [tensor("y", 3)], max_batch_size=max_batch_size)
    batches = run(jets, lambda batch: {"y": batch.tensors[0] + 1}, backwards=True)
    assert all(batch.size <= max_batch_size for batch in batches)
    np.testing.assert_array_equal(jets.outputs.dense("y"), values + 1)
    assert ak.Array(jets.outputs.nested("y")).to_list() == (values + 1).tolist()


def test_a_batch_holds_none_of_the_callers_memory():
    x = np.ones((6, 3), np.float32)
    sent = cut(rows_of([DenseInput(tensor("x", 3), x)], [tensor("y", 3)]), Lengths(), 256)
    assert sent
    assert not any(np.may_share_memory(each, x) for batch in sent for each in batch.tensors)


def test_a_dense_request_is_small_even_if_the_model_takes_larger_ones():
    values = np.zeros((5, 1 << 19), np.float32)
    jets = rows_of([DenseInput(tensor("x", 1 << 19), values)], [], max_batch_size=1000)
    assert [batch.size for batch in cut(jets, Lengths(), 1)] == [2, 2, 1]


def test_dense_and_jagged_inputs_of_a_row_travel_together():
    dense = DenseInput(tensor("d", 1), np.array([[10.0], [20.0], [30.0]], np.float32))
    jets = rows_of([ragged(tensor("x", -1), [[1.0] * 9, [2.0], [3.0] * 5]), dense], [SUM])
    run(jets, lambda batch: {"sum": batch.tensors[0].max(axis=1) + batch.tensors[1][:, 0]}, cell_budget=8)
    assert jets.outputs.dense("sum").tolist() == [11.0, 22.0, 33.0]


def test_without_a_batch_axis_every_row_is_its_own_request():
    data = [[1.0, 2.0, 3.0], [4.0]]
    jets = rows_of([ragged(tensor("x", 1, -1), data)], [EACH], max_batch_size=0)
    batches = run(jets, lambda batch: {"each": batch.tensors[0]}, lengths=Lengths(exact=True))
    assert [batch.tensors[0].tolist() for batch in batches] == [[data[0]], [data[1]]]
    assert ak.Array(jets.outputs.nested("each")).to_list() == data


@pytest.mark.parametrize("shape", [(2, -1), (-1, 2)])
def test_rows_at_the_end_of_a_column_are_filled_like_any_other(shape):
    counts = np.array([3, 40, 0, 17, 8, 1] * 20)
    starts = np.cumsum(counts) - counts
    both = np.arange(2.0 * counts.sum(), dtype=np.float32).reshape(-1, 2)
    columns = [both[:, 0], both[:, 1]]  # strided views
    jets = rows_of([RaggedInput(tensor("x", *shape), columns, [PAD, -PAD], starts, counts)], [], max_batch_size=64)
    for rows in np.arange(120).reshape(-1, 6), np.arange(120)[:, None]:
        for some in rows:
            (sent,) = batch_of(jets.inputs, some, [Lengths(1)]).tensors
            for row, values in zip(some, sent if shape[0] == 2 else sent.swapaxes(1, 2), strict=True):
                for column, pad, got in zip(columns, (PAD, -PAD), values, strict=True):
                    own = column[starts[row] :][: counts[row]].tolist()
                    assert got.tolist() == own + [pad] * (len(got) - len(own))


@pytest.mark.parametrize("max_batch_size", [0, 64])
def test_a_model_of_fixed_length_gets_that_length(max_batch_size):
    made = ragged(tensor("x", 2, 4), [[1.0], [2.0, 3.0]], channels=2, pad=PAD)
    jets = rows_of([made], [], max_batch_size=max_batch_size)
    sent = np.concatenate([batch.tensors[0].reshape(-1, 2, 4) for batch in cut(jets, Lengths(4, 4), 64)])
    first, second = (
        [[1.0, PAD, PAD, PAD], [1001.0, PAD, PAD, PAD]],
        [[2.0, 3.0, PAD, PAD], [1002.0, 1003.0, PAD, PAD]],
    )
    assert sent.tolist() == [first, second]


def test_no_rows_are_complete_with_empty_outputs_of_the_right_type():
    jets = rows_of([ragged(tensor("x", -1), [])], [tensor("y", 2), EACH])
    assert run(jets, doubled_each) == []
    assert jets.outputs.complete
    assert jets.outputs.dense("y").shape == (0, 2)
    assert str(ak.Array(jets.outputs.nested("y")).type) == "0 * 2 * float32"
    assert str(ak.Array(jets.outputs.nested("each")).type) == "0 * var * float32"


def test_outputs_that_change_shape_between_batches_are_refused():
    jets = rows_of([DenseInput(tensor("x", 1), np.zeros((2, 1), np.float32))], [EACH], max_batch_size=1)
    first, second = cut(jets, Lengths(), 1)
    jets.outputs.put(first, {"each": np.zeros((1, 2), np.float32)})
    with pytest.raises(BadReply, match=r"Output 'each' came in batches of different shapes, \(2,\) and \(3,\)"):
        jets.outputs.put(second, {"each": np.zeros((1, 3), np.float32)})


@given(st.lists(st.lists(st.lists(st.floats(-9, 9, width=32), max_size=9), max_size=4), max_size=5))
def test_the_nesting_of_events_jets_and_constituents_comes_back(events):
    x = ragged(tensor("x", -1), [jet for event in events for jet in event], pad=PAD)
    outer = Outer(len(events), (np.array([len(event) for event in events], np.int64),))
    jets = rows_of([x], [EACH], max_batch_size=3)
    run(jets, doubled_each, cell_budget=24, backwards=True)
    made = ak.Array(nesting.wrap(jets.outputs.nested("each"), outer)).to_list()
    assert made == [[[2 * value for value in jet] for jet in event] for event in events]


def test_a_point_of_several_inputs_counts_as_one_cell():
    data = [[1.0] * 8] * 40
    features = ragged(tensor("features", 2, -1), data, channels=2)
    mask = ragged(tensor("mask", 1, -1), data)
    assert [batch.size for batch in cut(rows_of([features, mask], []), Lengths(), 80)] == [10, 10, 10, 10]
