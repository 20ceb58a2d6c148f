"""Variations without a server: for any lists, the scores are those of a plain loop, and each new row is sent once."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from builders import jagged, nested_lists, run, tensor
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.named_inputs import varied
from eaf_inference.inference.spec import ModelSpec
from eaf_inference.inference.variations import VariedJob, score_variations

SPEC = ModelSpec(
    name="jets",
    version="",
    max_batch_size=4,
    inputs=(tensor("x", -1), tensor("v", 1)),
    outputs=(tensor("total", 1), tensor("each", -1)),
    recipe=None,
    labels={},
)


class Model:
    """A model that is a function of a batch's tensors, and counts its rows."""

    def __init__(self):
        self.rows = 0

    def _prepare(self, data):
        return prepare(data, SPEC)

    def map(self, jobs, **_):
        for job in jobs:
            run(job.part if isinstance(job, VariedJob) else job, self.answer, cell_budget=16, backwards=True)
            yield (job.finished() if isinstance(job, VariedJob) else job).result()

    def answer(self, batch):
        x, v = batch.tensors
        self.rows += batch.size
        return {"total": x.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float32) + v, "each": 2 * x}


def given_to_the_model(events):
    x = jagged(events, 2)
    return {"x": x, "v": ak.num(x, axis=2)[..., np.newaxis]}


def rows_in(events):
    return [np.array(row, np.float32).tobytes() for event in events for row in event]


@given(st.lists(nested_lists(2), min_size=1, max_size=4), st.data())
def test_variations_of_any_lists_have_the_scores_of_a_plain_loop(several, data):
    # rows of the first array occur in the others too, in other places
    known = [row for event in several[0] for row in event]
    for events in several[1:]:
        for event in events:
            event += data.draw(st.lists(st.sampled_from(known), max_size=3)) if known else []
    inputs = {f"{number}": given_to_the_model(events) for number, events in enumerate(several)}
    model = Model()
    scores = score_variations(model, inputs.items())
    fresh = [sum(row not in rows_in(several[0]) for row in rows_in(events)) for events in several[1:]]
    assert model.rows == len(known) + sum(fresh)
    for name, own in inputs.items():
        [expected] = Model().map([prepare(own, SPEC)])
        assert scores[name].to_list() == expected.to_list()
        assert scores[name].type == expected.type


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_that_a_variation_changes_in_place_stays_as_it_was(library):
    table = pytest.importorskip(library).DataFrame({"x": [1.0, 2.0]})

    def in_place(given):
        if library == "pandas":
            given["x"] *= 2
        else:
            given[0, "x"] = 100.0
        return given

    made = dict(varied(table, {"up": in_place, "same": lambda given: given}))
    assert list(made["up"]["x"]) != [1.0, 2.0]
    assert list(made["same"]["x"]) == list(table["x"]) == [1.0, 2.0]
