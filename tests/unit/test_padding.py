"""What the padding check concludes of models that are functions: right masks, wrong ones, too few neighbours."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders import job_of, ragged, recipe_text, tensor

from eaf_inference.connection import Connection
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.batching import Lengths
from eaf_inference.inference.model import Model
from eaf_inference.inference.padding import Found, PaddingCheck
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.registry import Options

PAD = 0.0


def spec_of(*, shape=(1, -1), recipe=True, **lengths) -> ModelSpec:
    text = recipe_text({"x": {"a": {}}}, **lengths)
    return ModelSpec(
        name="jets",
        version="",
        max_batch_size=64,
        inputs=(tensor("x", *shape),),
        outputs=(tensor("y"),),
        recipe=Recipe.parse(text, model="jets") if recipe else None,
        labels={},
    )


def jets(counts, *, max_batch_size=64, outputs=()):
    rows = [[1.0 + number % 7 for number in range(count)] for count in counts]
    return job_of([ragged(tensor("x", 1, -1), rows, pad=PAD)], outputs, max_batch_size=max_batch_size)


def masked_mean(batch):
    (x,) = batch.tensors
    return {"y": x.sum(axis=(1, 2)) / np.maximum((x != PAD).sum(axis=(1, 2)), 1)}


def mean_over_padding(batch):
    return {"y": batch.tensors[0].mean(axis=(1, 2))}


def neighbours(number):
    """A model that fails with fewer points than it looks for neighbours."""

    def model(batch):
        if batch.tensors[0].shape[2] < number:
            raise InvalidInput("k is too large")
        return masked_mean(batch)

    return model


MANY = [3, 5, 9, 17, 30, 45, 60, 61, 62, 70, 80, 90, 20, 33]


def test_a_model_with_right_masks_is_padded_as_little_as_possible():
    check = PaddingCheck(spec_of())
    assert check.lengths(jets(MANY * 4), masked_mean) == Lengths(minimum=8)
    assert check.note == ""


@pytest.mark.parametrize(
    ("declared", "lengths", "note"),
    [
        ({}, Lengths(exact=True), "rows of one length are sent together, unpadded: its scores depend on the padding"),
        ({"min_length": 17}, Lengths(minimum=17, exact=True), "rows of one length are sent together"),
        ({"max_length": 100}, Lengths(100, 100), "every row is padded to 100: its scores depend on the padding"),
    ],
)
def test_a_model_with_wrong_masks_is_found_out_and_the_user_is_told(declared, lengths, note):
    check = PaddingCheck(spec_of(**declared))
    with pytest.warns(UserWarning, match=f"Model 'jets': {note}"):
        assert check.lengths(jets([2, 3, *MANY]), mean_over_padding) == lengths
    assert note in check.note
    assert check.lengths(jets([4]), lambda _: pytest.fail("it was tried again")) == lengths


def test_the_least_length_that_the_model_takes_is_found():
    job = jets([2, 3, 3, 4, *[60] * 20])
    assert PaddingCheck(spec_of()).lengths(job, neighbours(20)).minimum >= 20
    with pytest.warns(UserWarning, match="every row is padded to 64: it refuses shorter ones"):
        assert PaddingCheck(spec_of(max_length=64)).lengths(job, neighbours(64)) == Lengths(64, 64)


def test_the_least_length_that_the_recipe_declares_is_kept():
    check = PaddingCheck(spec_of(min_length=40))
    sent = []

    def model(batch):
        sent.append(batch.tensors[0].shape[2])
        return masked_mean(batch)

    assert check.lengths(jets(MANY), model).minimum >= 40
    assert min(sent) >= 40


def test_no_more_rows_are_tried_at_once_than_the_model_takes():
    def model(batch):
        assert 0 < batch.size <= 2
        return masked_mean(batch)

    check = PaddingCheck(spec_of())
    assert check.lengths(jets(MANY * 5, max_batch_size=2), model).exact is False


def test_jets_that_fill_the_greatest_length_anyway_decide_nothing():
    check = PaddingCheck(spec_of(max_length=64))
    assert check.lengths(jets([60, 64]), lambda _: pytest.fail("there was nothing to try")) == Lengths(1, 64)
    assert check.lengths(jets([3] * 8), masked_mean) == Lengths(8, 64)


def test_empty_jets_decide_nothing_and_fixed_models_are_not_asked():
    check = PaddingCheck(spec_of())
    assert check.lengths(jets([0, 0]), lambda _: pytest.fail("empty jets were sent")) == Lengths()
    fixed = PaddingCheck(spec_of(shape=(1, 128)))
    assert fixed.lengths(jets(MANY), lambda _: pytest.fail("the length is fixed")) == Lengths(128, 128)
    assert fixed.maximum == 128


@pytest.mark.parametrize("right", [True, False])
def test_outputs_with_a_value_a_constituent_are_compared_where_both_have_one(right):
    def model(batch):
        x = batch.tensors[0][:, 0]
        weight = 1.0 if right else 1 / x.shape[1]
        return {"y": x * weight, "pairs": x[:, :, None] * x[:, None, :]}

    outputs = [tensor("y", -1), tensor("pairs", -1, -1)]
    check = PaddingCheck(spec_of())
    if right:
        assert not check.lengths(jets(MANY, outputs=outputs), model).exact
    else:
        with pytest.warns(UserWarning, match="scores depend on the padding"):
            assert check.lengths(jets(MANY, outputs=outputs), model).exact


def test_threads_that_need_the_finding_at_once_search_once():
    check, sent, started = PaddingCheck(spec_of()), [], threading.Barrier(4)

    def send(batch):
        sent.append(batch)
        time.sleep(0.01)  # the others come meanwhile
        return masked_mean(batch)

    def search(_):
        started.wait(timeout=30)
        return check.lengths(jets(MANY), send)

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(search, range(4)))
    alone: list = []
    PaddingCheck(spec_of()).lengths(jets(MANY), lambda batch: (alone.append(batch), masked_mean(batch))[1])
    assert len(sent) == len(alone)
    assert found == {check.found.lengths}


def test_a_finding_is_adopted_where_there_is_none_yet():
    check, mine, theirs = PaddingCheck(spec_of()), Found(Lengths(minimum=8)), Found(Lengths(minimum=16), "slow")
    check.adopt(None)
    assert check.found is None
    check.adopt(mine)
    check.adopt(theirs)
    assert check.found is mine
    assert check.lengths(jets(MANY), None) == mine.lengths


def arrives(model):
    return pickle.loads(pickle.dumps(model))  # noqa: S301


@pytest.fixture
def connection():
    return Connection(Options(url="grpc://127.0.0.1:1", ca=None, allow_insecure_token=None))


def test_all_models_of_a_connection_share_the_finding_of_their_specification(connection):
    mine, same, other = (Model(connection, spec) for spec in (spec_of(), spec_of(), spec_of(shape=(1, 16))))
    assert mine.spec == same.spec
    assert hash(mine.spec) == hash(same.spec)
    assert mine._padding is same._padding
    assert other._padding is not mine._padding


def test_a_finding_travels_with_a_model_and_serves_those_that_arrive_after_it(connection):
    model = Model(connection, spec_of(), cell_budget=77)
    before = arrives(model)
    assert before._padding.found is None
    model._padding.adopt(Found(Lengths(minimum=8), "seen"))
    after, bare = arrives(model), arrives(Model(connection, spec_of()))
    assert after.note == before.note == bare.note == "seen"
    assert after._padding is before._padding is bare._padding
    assert after._cell_budget == 77
