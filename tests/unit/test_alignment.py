"""Scores belong to entries only if `select` makes one element of each, in order, not if their numbers agree."""

from __future__ import annotations

from functools import partial

import awkward as ak
import numpy as np
import pytest

from eaf_inference.dataset.alignment import keeps_entries
from eaf_inference.inference.named_inputs import NamedInputs


def events_of(*jets: int) -> ak.Array:
    """Events with these numbers of jets."""
    pt = ak.unflatten(np.linspace(500, 100, sum(jets)), jets)
    return ak.Array({"jets": ak.zip({"pt": pt, "eta": 0 * pt}), "met": np.arange(len(jets)) * 10.0})


KEEPING = {
    "a column": lambda events: events.jets,
    "cut jets": lambda events: events.jets[events.jets.pt > 300],
    "leading jets": lambda events: ak.firsts(events.jets),
    "masked": lambda events: ak.mask(events.jets, events.met > 15),
    "flattened and put back": lambda events: ak.unflatten(ak.flatten(events.jets.pt), ak.num(events.jets)),
    "columns": lambda events: {"x": events.met, "y": events.jets.pt},
    "a list of columns": lambda events: [events.jets.pt, events.jets.eta],
    "numpy": lambda events: np.asarray(events.met),
    "variations": lambda events: NamedInputs(partial(iter, [("a", events.jets), ("b", events.jets)])),
    "a function that needs data": lambda events: events.jets if ak.max(events.met) > 5 else events.jets[:, :1],
    "a function that needs many entries": lambda events: events.jets[: len(events) * int(events.met[5] > 0)],
}
FLATTENING = {
    "flattened": lambda events: ak.flatten(events.jets),
    "flattened columns": lambda events: {"pt": ak.flatten(events.jets.pt)},
    "flattened numpy": lambda events: np.asarray(ak.flatten(events.jets.pt)),
    "one of the variations": lambda events: NamedInputs(
        partial(iter, [("a", events.jets), ("b", ak.flatten(events.jets))])
    ),
}


REORDERING = {
    "sorted": lambda events: events.jets[ak.argsort(events.met, ascending=False)],
    "reversed": lambda events: events.jets[::-1],
    "one group after the other": lambda events: ak.concatenate(
        [events.jets[events.met % 20 > 5], events.jets[events.met % 20 < 5]]
    ),
    "sorted columns": lambda events: {"x": events.met[::-1], "y": events.jets.pt[::-1]},
    "sorted numpy": lambda events: np.sort(-np.asarray(events.met)),
    "one of the variations": lambda events: NamedInputs(
        partial(iter, [("a", events.jets), ("b", events.jets[::-1])])
    ),
}
DEPENDING = {  # on other entries or on the place, without another order
    "a share of the mean": lambda events: events.met / ak.mean(events.met),
    "a rank": lambda events: ak.argsort(ak.argsort(events.met)),
    "every second": lambda events: ak.mask(events.met, np.arange(len(events)) % 2 == 0),
    "random numbers": lambda events: events.met + np.random.default_rng().normal(size=len(events)),
    "not a number": lambda events: events.met * np.nan,
}


@pytest.mark.parametrize("name", REORDERING)
@pytest.mark.parametrize("jets", [(2, 0, 1), (1,) * 30, (0, 2, 4) * 200])
def test_entries_in_another_order_are_not_aligned(name, jets):
    assert not keeps_entries(REORDERING[name], events_of(*jets))


@pytest.mark.parametrize("name", DEPENDING)
def test_what_depends_on_other_entries_is_in_their_order(name):
    for jets in ((2, 0, 1), (1,) * 30, (0, 2, 4) * 200):
        assert keeps_entries(DEPENDING[name], events_of(*jets))


@pytest.mark.parametrize("name", KEEPING)
def test_a_select_that_keeps_entries_is_recognised(name):
    for jets in ((2, 0, 1, 3, 0, 0, 1), (1,) * 30, (0, 2, 4) * 20):
        assert keeps_entries(KEEPING[name], events_of(*jets))


@pytest.mark.parametrize("name", FLATTENING)
@pytest.mark.parametrize("jets", [(2, 0), (0, 2), (1, 0, 2), (1, 1, 2, 0), (1,) * 7 + (0, 2), (0, 1, 2) * 10])
def test_as_many_scores_as_entries_by_chance_are_not_aligned(name, jets):
    assert len(ak.flatten(events_of(*jets).jets)) == len(jets)
    assert not keeps_entries(FLATTENING[name], events_of(*jets))


def test_a_cut_that_drops_nothing_keeps_the_entries():
    assert keeps_entries(lambda events: events.jets[ak.num(events.jets) > 0], events_of(1, 2, 3))
    assert keeps_entries(FLATTENING["flattened"], events_of(1, 1, 1))
    assert keeps_entries(FLATTENING["flattened"], events_of(1, 1)[:0])
