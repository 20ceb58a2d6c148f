"""The padding check, with functions as models: correct masks, wrong masks, a minimum number of neighbours."""

from __future__ import annotations

import pickle
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders import ragged, recipe_text, rows_of, tensor

from eaf_inference.connection import Connection
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.inputs import DenseInput
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.model import Model
from eaf_inference.inference.padding import Finding, PaddingCheck
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.registry import Options

PAD = 0.0
SCORE = tensor("y")


def lengths_of(check, inputs, send):
    return check.padding(inputs, send).lengths


def spec_of(*, shape=(1, -1), recipe=True, outputs=(SCORE,), **lengths) -> ModelSpec:
    text = recipe_text({"x": {"a": {}}}, **lengths)
    return ModelSpec(
        name="jets",
        version="",
        max_batch_size=64,
        inputs=(tensor("x", *shape),),
        outputs=outputs,
        recipe=Recipe.parse(text, model="jets") if recipe else None,
        labels={},
    )


def jets(counts, *, max_batch_size=64, value=None):
    rows = [[1.0 + number % 7 if value is None else value for number in range(count)] for count in counts]
    return rows_of([ragged(tensor("x", 1, -1), rows, pad=PAD)], [SCORE], max_batch_size=max_batch_size).inputs


def asked(model, sent=None):
    """Return what the check uses to send: it gives the model's outputs for each batch, or its refusal."""

    def outcome(batch):
        if sent is not None:
            sent.append(batch)
        try:
            return model(batch)
        except InvalidInput as error:
            return error

    return lambda batches: [outcome(batch) for batch in batches]


def never(batches):
    pytest.fail(f"{len(batches)} batches were tried")


def total(batch):
    """Sum the values, which padding with zeros does not change."""
    return {"y": batch.tensors[0].sum(axis=(1, 2))}


def mean_over_padding(batch):
    with np.errstate(invalid="ignore"):
        x = batch.tensors[0]
        return {"y": np.divide(x.sum(axis=(1, 2)), np.float32(x.shape[2]))}


def greatest(batch):
    """Return the maximum; for no values, an error like that of ONNX Runtime's ReduceMax."""
    if not batch.tensors[0].shape[2]:
        raise InvalidInput("there is no greatest value")
    return {"y": batch.tensors[0].max(axis=(1, 2))}


def neighbours(number):
    """Make a model that fails if there are fewer points than neighbours."""

    def model(batch):
        if batch.tensors[0].shape[2] < number:
            raise InvalidInput("k is too large")
        return total(batch)

    return model


MANY = [3, 5, 9, 17, 30, 45, 60, 61, 62, 70, 80, 90, 20, 33]


def test_a_model_with_correct_masks_is_padded_as_little_as_possible():
    check = PaddingCheck(spec_of())
    assert lengths_of(check, jets(MANY * 4), asked(total)) == (Lengths(),)
    assert check.note == ""
    assert lengths_of(check, jets(MANY), never) == (Lengths(),)


@pytest.mark.parametrize(
    ("declared", "lengths", "note"),
    [
        ({}, Lengths(exact=True), "rows of one length are sent together, unpadded: its scores depend on the padding"),
        ({"min_length": 17}, Lengths(17, exact=True), "rows of one length are sent together"),
        ({"max_length": 100}, Lengths(0, 100, exact=True), "rows of one length are sent together"),
        ({"var_length": 100}, Lengths(100, 100), "every row is padded to 100: its scores depend on the padding"),
    ],
)
def test_a_model_with_wrong_masks_is_recognised_with_one_warning(declared, lengths, note):
    check = PaddingCheck(spec_of(**declared))
    with pytest.warns(UserWarning, match=f"Model 'jets': {note}"):
        assert lengths_of(check, jets([2, 3, *MANY]), asked(mean_over_padding)) == (lengths,)
    assert note in check.note
    assert lengths_of(check, jets([4, 0]), never) == (lengths,)


@pytest.mark.parametrize("scale", [1e-6, [1e-3, 1e4], [1.0, 1.0, 0.0]], ids=str)
def test_padding_is_noticed_in_scores_of_any_scale(scale):
    scales = np.atleast_1d(np.float32(scale))

    def model(batch):
        scores = [greatest(batch)["y"], *(total(batch)["y"] for _ in scales[1:])]
        return {"y": np.stack(scores, axis=1) * scales}

    def fine(batch):
        return {"y": total(batch)["y"][:, None] * scales}

    spec = spec_of(outputs=(tensor("y", len(scales)),), min_length=1)
    for send, rule in ((model, Lengths(1, exact=True)), (fine, Lengths(1))):
        check = PaddingCheck(spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert lengths_of(check, jets(MANY), asked(send)) == (rule,)


def test_rows_beside_one_of_full_length_do_not_hide_the_effect_of_padding():
    check = PaddingCheck(spec_of(var_length=9))
    with pytest.warns(UserWarning, match="every row is padded to 9"):
        assert lengths_of(check, jets([5, 0, 9]), asked(mean_over_padding)) == (Lengths(9, 9),)
    assert lengths_of(PaddingCheck(spec_of(var_length=9)), jets([5, 0, 9]), asked(total)) == (Lengths(0, 9),)


@pytest.mark.parametrize(
    ("first", "model"),
    [
        (jets([3, 9], value=0.0), mean_over_padding),  # the mean of zeros is zero at any length
        (jets([3, 9], value=5.0), greatest),  # padding is never the maximum of positive numbers
        (jets([1, 1, 1], value=1.0), greatest),
    ],
)
def test_values_that_hide_the_effect_of_padding_do_not_decide(first, model):
    with pytest.warns(UserWarning, match="scores depend on the padding"):
        assert lengths_of(PaddingCheck(spec_of()), first, asked(model)) == (Lengths(exact=True),)


@pytest.mark.parametrize(("noise", "rule"), [(3e-4, Lengths()), (0.3, Lengths(exact=True))])
def test_noise_from_the_batch_size_is_not_mistaken_for_padding(noise, rule):
    """A GPU that computes in TF32 chooses its kernels by shape."""

    def rounded(batch):
        return {"y": total(batch)["y"] * np.float32(1 + noise * (batch.size % 3 - 1))}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lengths_of(PaddingCheck(spec_of()), jets(MANY), asked(rounded)) == (rule,)
        assert lengths_of(PaddingCheck(spec_of()), jets(MANY), asked(mean_over_padding)) == (Lengths(exact=True),)


def test_a_nan_differs_from_every_number():
    def ratio(batch):
        x = batch.tensors[0]
        with np.errstate(invalid="ignore"):
            return {"y": (x / x).sum(axis=(1, 2))}  # 0/0 where there is padding

    check = PaddingCheck(spec_of(max_length=32))
    with pytest.warns(UserWarning, match="unpadded"):
        assert lengths_of(check, jets(MANY[:5]), asked(ratio)) == (Lengths(0, 32, exact=True),)


def test_jets_whose_scores_are_nan_anyway_decide_nothing():
    nan, check = jets([3, 5], value=np.nan), PaddingCheck(spec_of())

    def model(batch):
        made = bool(np.any(np.isfinite(batch.tensors[0]) & (batch.tensors[0] != PAD)))
        return InvalidInput("not these") if made else {"y": np.full(batch.size, np.nan, np.float32)}

    assert lengths_of(check, nan, lambda batches: [model(batch) for batch in batches]) == (Lengths(exact=True),)
    assert lengths_of(check, jets([3, 5]), asked(total)) == (Lengths(),)


def test_the_shortest_length_that_the_model_accepts_is_found():
    inputs = jets([2, 3, 3, 4, *[60] * 20])
    (found,) = lengths_of(PaddingCheck(spec_of()), inputs, asked(neighbours(20)))
    assert found == Lengths(32)
    with pytest.warns(UserWarning, match="every row is padded to 64: it refuses shorter ones"):
        assert lengths_of(PaddingCheck(spec_of(max_length=64)), inputs, asked(neighbours(64))) == (Lengths(64, 64),)


def test_rows_without_a_right_score_are_refused_by_input_name():
    def model(batch):
        return neighbours(20)(batch) | mean_over_padding(batch)

    with pytest.raises(InvalidInput, match=r"'jets' refuses rows of length 2 in 'x' .* k is too large"):
        lengths_of(PaddingCheck(spec_of()), jets([2, 30]), asked(model))


def test_the_recipes_minimum_length_is_respected():
    check, sent = PaddingCheck(spec_of(min_length=40)), []
    assert lengths_of(check, jets(MANY), asked(total, sent)) == (Lengths(40),)
    assert min(batch.tensors[0].shape[2] for batch in sent) >= 40


def test_a_trial_respects_the_models_batch_size():
    sent = []
    lengths_of(PaddingCheck(spec_of()), jets(MANY * 5, max_batch_size=2), asked(total, sent))
    assert all(0 < batch.size <= 2 for batch in sent)


def test_jets_of_the_maximum_length_decide_nothing():
    check = PaddingCheck(spec_of(max_length=64))
    assert lengths_of(check, jets([64, 64]), never) == (Lengths(0, 64),)
    with pytest.warns(UserWarning, match="unpadded"):
        assert lengths_of(check, jets([60, 64]), asked(mean_over_padding)) == (Lengths(0, 64, exact=True),)


def test_a_fixed_length_is_not_tried():
    fixed = PaddingCheck(spec_of(shape=(1, 128)))
    assert lengths_of(fixed, jets(MANY), never) == (Lengths(128, 128),)
    assert lengths_of(PaddingCheck(spec_of(min_length=32, max_length=32)), jets([3]), never) == (Lengths(32, 32),)


@pytest.mark.parametrize("later", [[2], [0], [91]])
def test_rows_of_new_lengths_are_tried_when_they_come(later):
    def wrong_for_some(batch):  # like a network whose mask is wrong in rare cases
        values = total(batch)["y"]
        wrong = np.isin((batch.tensors[0] != PAD).sum(axis=(1, 2)), later)
        return {"y": values + wrong * np.float32(batch.tensors[0].shape[2])}

    check = PaddingCheck(spec_of())
    assert lengths_of(check, jets(MANY), asked(wrong_for_some)) == (Lengths(),)
    if later == [0]:
        assert lengths_of(check, jets(later), asked(wrong_for_some)) == (Lengths(empty_apart=True),)
    else:
        with pytest.warns(UserWarning, match="unpadded"):
            assert lengths_of(check, jets([*later, 17]), asked(wrong_for_some)) == (Lengths(exact=True),)


def test_refused_empty_rows_are_padded_or_refused_by_input_name():
    assert lengths_of(PaddingCheck(spec_of()), jets([0, 4]), asked(neighbours(1))) == (Lengths(8),)
    with pytest.raises(InvalidInput, match="refuses rows of length 0 in 'x'"):
        lengths_of(PaddingCheck(spec_of()), jets([0, 4]), asked(greatest))


def two(first, second):
    rows = [[[1.0 + number for number in range(count)] for count in counts] for counts in (first, second)]
    return rows_of([ragged(tensor(name, 1, -1), each) for name, each in zip("xz", rows, strict=True)], [SCORE]).inputs


def mean_of_the_second(batch):
    with np.errstate(invalid="ignore", divide="ignore"):
        x, z = (each.sum(axis=(1, 2)) for each in batch.tensors)
        return {"y": x + np.nan_to_num(z / np.float32(batch.tensors[1].shape[2]))}


def test_each_collection_is_tried_before_it_is_padded():
    check = PaddingCheck(spec_of(recipe=False))
    assert lengths_of(check, two([3, 9], [0, 0]), asked(mean_of_the_second)) == (Lengths(), Lengths())
    with pytest.warns(UserWarning, match="rows of one length of 'z' are sent together"):
        found = lengths_of(check, two([3, 9], [2, 4]), asked(mean_of_the_second))
    assert found == (Lengths(), Lengths(exact=True))


def test_a_finding_for_inputs_of_equal_lengths_does_not_apply_to_one():
    check = PaddingCheck(spec_of(recipe=False))
    with pytest.warns(UserWarning, match="unpadded"):
        lengths_of(check, two([2, 4], [2, 4]), asked(mean_of_the_second))
    with pytest.warns(UserWarning, match="of 'z' are sent together"):
        found = lengths_of(check, two([2, 4], [4, 2]), asked(mean_of_the_second))
    assert found == (Lengths(), Lengths(exact=True))


def test_a_finding_holds_only_for_the_padding_values_and_inputs_tried():
    def right_for_zero(batch):
        return total(batch)

    def inputs(pad, *, weight):
        x = ragged(tensor("x", 1, -1), [[1.0, 2.0], [3.0] * 9], pad=pad)
        w = DenseInput(tensor("w", 1), np.ones((2, 1), np.float32))
        return rows_of([x, w] if weight else [x], [SCORE]).inputs

    check = PaddingCheck(spec_of(recipe=False))
    lengths_of(check, inputs(0.0, weight=False), asked(right_for_zero))
    with pytest.warns(UserWarning, match="unpadded"):
        assert lengths_of(check, inputs(-1.0, weight=False), asked(right_for_zero)) == (Lengths(exact=True),)
    sent = []
    lengths_of(check, inputs(0.0, weight=True), asked(right_for_zero, sent))
    assert sent


@pytest.mark.parametrize("right", [True, False])
def test_outputs_per_constituent_are_compared_apart_from_padding(right):
    def model(batch):
        x = batch.tensors[0][:, 0]
        weight = np.float32(1.0 if right else 1 / max(x.shape[1], 1))
        return {"y": x * weight, "pairs": x[:, :, None] * x[:, None, :]}

    outputs = (tensor("y", -1), tensor("pairs", -1, -1))
    check = PaddingCheck(spec_of(outputs=outputs))
    if right:
        assert lengths_of(check, jets(MANY), asked(model)) == (Lengths(),)
    else:
        with pytest.warns(UserWarning, match="scores depend on the padding"):
            assert lengths_of(check, jets(MANY), asked(model)) == (Lengths(exact=True),)


def test_threads_that_need_a_finding_at_once_try_once():
    check, sent, started = PaddingCheck(spec_of()), [], threading.Barrier(4)

    def send(batches):
        time.sleep(0.01)  # so that the other threads arrive meanwhile
        return asked(total, sent)(batches)

    def search(_):
        started.wait(timeout=30)
        return lengths_of(check, jets(MANY), send)

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(search, range(4)))
    alone: list = []
    lengths_of(PaddingCheck(spec_of()), jets(MANY), asked(total, alone))
    assert len(sent) == len(alone)
    assert found == {(Lengths(),)}


def test_a_finding_of_another_process_is_adopted_if_none_is_known():
    check = PaddingCheck(spec_of())
    check.adopt({})
    assert check.found == {}
    lengths_of(check, jets(MANY), asked(total))
    mine = check.found
    check.adopt({key: Finding(Lengths(16), note="slow") for key in mine})
    assert check.found == mine
    other = PaddingCheck(spec_of())
    other.adopt(mine)
    assert lengths_of(other, jets(MANY), never) == (Lengths(),)


def arrives(model):
    return pickle.loads(pickle.dumps(model))  # noqa: S301


@pytest.fixture
def connection():
    return Connection(Options(url="grpc://127.0.0.1:1", ca=None, allow_insecure_token=None))


def test_equal_models_of_a_connection_share_their_findings(connection):
    mine, same, other = (Model(connection, spec) for spec in (spec_of(), spec_of(), spec_of(shape=(1, 16))))
    assert mine.spec == same.spec
    assert hash(mine.spec) == hash(same.spec)
    assert mine._checks.padding is same._checks.padding
    assert other._checks.padding is not mine._checks.padding


def test_a_finding_travels_with_a_model_and_is_shared_on_arrival(connection):
    model = Model(connection, spec_of(), cell_budget=77)
    before = arrives(model)
    assert before._checks.padding.found == {}
    model._checks.padding.adopt({((("x", (0.0,)),), ("x",)): Finding(Lengths(minimum=8), note="seen")})
    after, bare = arrives(model), arrives(Model(connection, spec_of()))
    assert after.note == before.note == bare.note == "seen"
    assert after._checks.padding is before._checks.padding is bare._checks.padding
    assert after._cell_budget == 77


def test_findings_of_an_earlier_look_up_are_not_used_on_arrival(connection):
    model = Model(connection, spec_of())
    there = arrives(model)
    there._checks.padding.adopt({((("x", (0.0,)),), ("x",)): Finding(Lengths(), note="pads")})
    connection.checks.clear()  # as `Connection.model` does, because the model may have been overwritten
    assert arrives(Model(connection, spec_of())).note == ""
