"""What several rounds come to: medians, ranges, and whether a target is met."""

from __future__ import annotations

import pytest

from eaf_inference.bench.contenders import Entry
from eaf_inference.bench.contestant import Seen
from eaf_inference.bench.measuring import Measure, Result, Spread
from eaf_inference.bench.plan import OURS
from eaf_inference.bench.targets import verdicts

COFFEA = "coffea triton_wrapper"


def result(entry: Entry, rates: list[float], *, cpu: float = 1.0) -> Result:
    """Rounds of 1,000 jets on workload b at these rates; the server takes as much time as the client."""
    measures = [
        Measure(
            Seen(
                jets=1000,
                seconds=1000 / rate,
                cpu=cpu,
                peak_memory=0,
                nbytes=0,
                first=None,
                p50=None,
                p99=None,
                difference=1e-7,
                jets_per_second=rate,
            ),
            1000,
            cpu,
        )
        for rate in rates
    ]
    return Result("b", entry, measures)


def verdict(results: list[Result], what: str):
    return next(each for each in verdicts(results, {}) if each.what.startswith(what))


def test_ours_is_compared_with_the_best_of_the_others_choices_round_by_round():
    results = [
        result(OURS, [200, 300, 400]),
        result(Entry(COFFEA, batch=64), [100, 100, 100]),
        result(Entry(COFFEA, batch=256), [90, 90, 300]),
    ]
    found = verdict(results, "(b) jets/s, ours / coffea")
    assert found.spread == Spread(3.0, 2.0, 4.0)
    assert found.met


def test_a_target_is_missed_by_the_median_and_unknown_without_its_contender():
    ours = result(OURS, [100, 100, 100], cpu=0.9)
    assert verdict([ours, result(Entry(COFFEA, batch=64), [100, 50, 100])], "(b) server CPU").met is False
    assert verdict([ours], "(b) server CPU").met is None
    assert verdict([ours], "(b) largest difference").met


def test_a_spread_shows_its_range():
    assert str(Spread(2.0, 1.0, 3000.0)) == "2 (1–3,000)"
    assert str(Spread.of([0.5, 0.5])) == "0.5"
    assert Spread.of([]) is None


@pytest.mark.parametrize("length", [100, 128])
def test_the_studys_network_gives_the_same_scores_however_far_jets_are_padded(tmp_path, length):
    import numpy as np

    from eaf_inference.bench import particlenet
    from eaf_inference.bench.workloads import local_session, study_inputs

    particlenet.save(tmp_path / "model.onnx")
    session = local_session(tmp_path / "model.onnx")
    inputs = {name: values[:, :, :40] for name, values in study_inputs(4).items()}
    wider = {name: np.pad(values, ((0, 0), (0, 0), (0, length - 40))) for name, values in inputs.items()}
    (short,), (long,) = session.run(None, inputs), session.run(None, wider)
    assert np.abs(short - long).max() < 1e-6
    assert short.std(axis=0).min() > 0
