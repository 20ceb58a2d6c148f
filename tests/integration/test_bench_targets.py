"""Medians and ranges over several rounds, and whether a target is met."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rounds import Measurement, Result, Spread
from benchmarks.targets import verdicts
from eaf_facility.study import particlenet
from eaf_facility.study.client_main import RoundResult
from eaf_facility.study.clients import COFFEA, EAF_INFERENCE, Entry
from eaf_facility.study.workloads import local_session, particlenet_inputs


def result(entry: Entry, rates: list[float], *, cpu: float = 1.0) -> Result:
    """Make rounds of 1,000 jets on workload b at these rates; server and client take the same processor time."""
    measurements = [
        Measurement(
            RoundResult(
                jets=1000,
                seconds=1000 / rate,
                cpu=cpu,
                peak_memory=0,
                nbytes=0,
                first=None,
                p50=None,
                p99=None,
                difference=1e-7,
                inferences_per_second=rate,
            ),
            1000,
            cpu,
        )
        for rate in rates
    ]
    return Result("b", entry, measurements)


def verdict(results: list[Result], what: str):
    return next(each for each in verdicts(results, {}) if each.what.startswith(what))


def test_our_client_is_compared_with_the_best_other_entry_by_round():
    results = [
        result(EAF_INFERENCE, [200, 300, 400]),
        result(COFFEA.using(batch=64), [100, 100, 100]),
        result(COFFEA.using(batch=256), [90, 90, 300]),
    ]
    found = verdict(results, "(b) jets/s, ours / coffea")
    assert found.spread == Spread(3.0, 2.0, 4.0)
    assert found.met


def test_a_target_is_judged_by_the_median_and_unknown_if_not_measured():
    ours = result(EAF_INFERENCE, [100, 100, 100], cpu=0.9)
    assert verdict([ours, result(COFFEA.using(batch=64), [100, 50, 100])], "(b) server CPU").met is False
    assert verdict([ours], "(b) server CPU").met is None
    assert verdict([ours], "(b) largest difference").met


def test_a_spread_shows_its_range():
    assert str(Spread(2.0, 1.0, 3000.0)) == "2 (1–3,000)"
    assert str(Spread.of([0.5, 0.5])) == "0.5"
    assert Spread.of([]) is None


@pytest.mark.parametrize("length", [100, 128])
def test_the_full_size_particlenet_ignores_padding(tmp_path, length):
    particlenet.save(tmp_path / "model.onnx")
    session = local_session(tmp_path / "model.onnx")
    inputs = {name: values[:, :, :40] for name, values in particlenet_inputs(4).items()}
    wider = {name: np.pad(values, ((0, 0), (0, 0), (0, length - 40))) for name, values in inputs.items()}
    (short,), (long,) = session.run(None, inputs), session.run(None, wider)
    assert np.abs(short - long).max() < 1e-6
    assert short.std(axis=0).min() > 0
