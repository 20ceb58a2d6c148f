"""The study's report: its headline, key points, findings, tables and plots."""

from __future__ import annotations

import argparse
import io
import json
import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
from recorded.replay import snapshots
from rich.console import Console

from eaf_facility.study import command
from eaf_facility.study.conclusions import headline, key_points
from eaf_facility.study.curves import curves, fewest_tritons
from eaf_facility.study.findings import findings
from eaf_facility.study.formatting import duration
from eaf_facility.study.outcome import (
    AFFINITY,
    ALONE,
    BLOCKING,
    LEAST_REQUEST,
    PIPELINED,
    TOGETHER,
    Mixture,
    Outcome,
    Predicted,
    Scaled,
    Site,
    Timing,
)
from eaf_facility.study.plots import plots
from eaf_facility.study.report import html, save
from eaf_facility.study.run import study
from eaf_facility.study.server_metrics import server_load
from eaf_facility.study.tables import details, summary
from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.metrics.snapshot import ModelLoad, ReplicaLoad

SIMULATED = QUICK = True
REAL = False


def points(client=BLOCKING, *measured, replicas=1, simulated=SIMULATED):
    """Make points of (workers, jets/s, seconds in the queue) with requests of 16 jets."""
    window = 2 if client == PIPELINED else 0
    tail = {"p50": 0.5, "p99": 1.0, "window": window} if simulated else {}
    return [
        Scaled(client, replicas, workers, simulated, rate, rate / 16, queue, **tail)
        for workers, rate, queue in measured
    ]


SATURATING = points(BLOCKING, (1, 256, 0), (4, 1000, 0.003), (16, 1500, 0.1), (64, 1520, 0.57))


def predicted(workers=44, rates=((4, 62.0, 0.01), (16, 93.0, 0.11)), measured_with=2):
    return Predicted(measured_with, 0.33, 0.01, 1500.0, rates, workers, "More workers fit.")


def outcome(**parts):
    parts.setdefault("accelerator", "What was simulated: accelerators.")
    return Outcome({"when": "today"}, {"Triton": "2.40"}, QUICK, "this machine", **parts)


def mixture(title, models, replicas, rate):
    return Mixture(title, models, replicas, replicas, rate, 0.3, 0.9)


TIMINGS = [
    Timing("b", "our ParticleNet", "local ONNX Runtime, batch 64", ((0, 0.0), (100, 1.0), (200, 2.0)), 0.0),
    Timing("b", "our ParticleNet", PIPELINED, ((0, 0.0), (100, 0.5), (200, 1.0)), 1e-7),
]
MIXTURES = [
    mixture(ALONE, 1, 1, 92.0),
    mixture(TOGETHER, 4, 1, 20.0),
    mixture(LEAST_REQUEST, 4, 4, 79.0),
    mixture(AFFINITY, 4, 4, 230.0),
]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param(
            {"scaled": SATURATING, "predicted": predicted(44)},
            "One simulated Triton carries 44 workers like these with queue times up to 400 ms; "
            "above 16, more workers hardly add jets/s.",
            id="prediction and measurement agree",
        ),
        pytest.param(
            {"scaled": SATURATING, "predicted": predicted(8)},
            "One simulated Triton carries at least 16 and fewer than 64 workers like these with queue times up to "
            "400 ms (measured; 8 were predicted); above 16, more workers hardly add jets/s.",
            id="they disagree",
        ),
        pytest.param(
            {"scaled": SATURATING},
            "One simulated Triton carries at least 16 and fewer than 64 workers like these with queue times up to "
            "400 ms; above 16, more workers hardly add jets/s.",
            id="nothing predicted",
        ),
        pytest.param(
            {"predicted": predicted(44)},
            "By prediction, one simulated Triton carries 44 workers like these with queue times up to 400 ms.",
            id="nothing measured with more workers",
        ),
        pytest.param(
            {"predicted": predicted(44, measured_with=1), "accelerator": ""},
            "By prediction, the facility carries 44 requests in flight with queue times up to 400 ms.",
            id="a facility's prediction",
        ),
        pytest.param(
            {"scaled": points(PIPELINED, (1, 900, 0.001), (4, 2000, 0.1), simulated=REAL, replicas=2)},
            "2 Tritons carry at least 4 workers like these with queue times up to 400 ms; "
            "jets/s still rise at 4 workers, the most measured.",
            id="no saturation reached",
        ),
        pytest.param(
            {"scaled": points(PIPELINED, (1, 900, 0.001), simulated=REAL)},
            "One Triton carries at least 1 worker like these with queue times up to 400 ms; "
            "more workers were not measured.",
            id="one worker only",
        ),
        pytest.param(
            {"scaled": points(BLOCKING, (8, 1500, 0.7), (16, 1500, 1.4))},
            "One simulated Triton carries fewer than 8 workers like these with queue times up to 400 ms; "
            "above 8, more workers hardly add jets/s.",
            id="all wait too long",
        ),
        pytest.param(
            {"mixtures": MIXTURES},
            "4 models that share one simulated Triton get 20 requests/s together; one model alone gets 92.",
            id="several models only",
        ),
        pytest.param(
            {"timings": TIMINGS},
            "eaf-inference scores 200 jets/s (local ONNX Runtime, batch 64: 100) with our ParticleNet.",
            id="timing only",
        ),
        pytest.param(
            {"timings": TIMINGS[1:]}, "eaf-inference scores 200 jets/s with our ParticleNet.", id="ours only"
        ),
        pytest.param({"timings": TIMINGS[:1]}, "Nothing was measured.", id="interrupted before ours"),
        pytest.param({}, "Nothing was measured.", id="nothing"),
    ],
)
def test_the_headline_follows_from_what_was_measured(parts, expected):
    assert headline(outcome(**parts)) == expected


def test_key_points_compare_prediction_and_measurement():
    agreeing = key_points(outcome(scaled=SATURATING, predicted=predicted(44)))
    assert agreeing[1] == (
        "Prediction and measurement agree. Predicted from a load of 2 workers: 44 workers wait at most 400 ms. "
        "Measured: 16 workers wait 100 ms, 64 workers wait 570 ms."
    )
    wrong_side = key_points(outcome(scaled=SATURATING, predicted=predicted(8)))
    assert wrong_side[1].startswith("Prediction and measurement disagree. ")
    # a very different throughput, as if other programs had kept the processors busy
    slow = key_points(outcome(scaled=SATURATING, predicted=predicted(16, ((16, 34.0, 0.39),))))
    assert slow[1].startswith("Prediction and measurement disagree. ")
    assert "Predicted with 16 workers: 34 requests/s; measured: 94. Other programs on the machine lower" in slow[1]


def test_a_prediction_without_measurement_is_not_compared():
    alone = key_points(outcome(predicted=predicted(44)))
    assert alone == ["Predicted from a load of 2 workers. More were not measured."]
    # a facility's prediction is about requests in flight, not workers
    real = points(PIPELINED, (1, 900, 0.001), (4, 2000, 0.1), simulated=REAL)
    facility = key_points(outcome(scaled=real, predicted=predicted(44, measured_with=1), accelerator=""))
    assert facility[1].startswith(
        "Predicted from this process's own load: 44 requests in flight wait at most 400 ms."
    )


def test_more_tritons_are_recommended_only_if_measured():
    more = points(BLOCKING, (16, 3000, 0.01), (64, 3000, 0.2), (256, 3000, 1.3), replicas=2)
    text = key_points(outcome(scaled=[*SATURATING, *more]))
    assert "More Tritons carry more workers within 400 ms, as measured: 64 workers with 2 Tritons." in text
    assert "With 256 workers requests wait 1.30 s even with 2 Tritons, the most measured." in text


def test_the_fewest_tritons_that_keep_the_queue_short_are_found():
    one = points(PIPELINED, (1, 1, 0.0), (8, 1, 0.7), (64, 1, 3.0))
    two = points(PIPELINED, (1, 1, 0.0), (8, 1, 0.2), (64, 1, 1.5), replicas=2)
    assert fewest_tritons([*two, *one], PIPELINED) == [(1, 1), (8, 2)]


def test_findings_report_throughput_and_latency_beyond_saturation():
    measured = points(PIPELINED, (1, 800, 0), (4, 1600, 0), (16, 1568, 0), (64, 1552, 0))
    assert findings(outcome(scaled=measured)) == [
        "1 simulated Triton, eaf-inference: with 16 or more workers, throughput is at least 97 % of the peak.",
        "1 simulated Triton, eaf-inference: with 64 workers, 99 % of the requests take at most 1.00 s.",
    ]


def test_the_summary_has_a_row_for_each_client_and_number_of_tritons():
    more = points(PIPELINED, (1, 300, 0), (4, 1000, 0.5), (64, 2000, 1.0), replicas=2)
    simulated, timing = summary(outcome(scaled=[*SATURATING, *more], timings=TIMINGS))
    assert simulated.rows == [
        (BLOCKING, "1", "16", "1,520", "16", "1.00 s", "1.00 s"),
        (PIPELINED, "2", "not reached", "2,000", "1", "1.00 s", "1.00 s"),
    ]
    assert simulated.heads[-1] == "p99 with 64 workers"
    assert timing.rows[1] == (PIPELINED, "1.00 s", "200", "2.00", "1e-07")
    (real,) = summary(outcome(scaled=points(PIPELINED, (1, 900, 0.001), simulated=REAL)))
    assert real.rows == [(PIPELINED, "1", "not reached", "900", "≥ 1")], "p99 was not measured, so it has no column"


def test_missing_numbers_are_shown_as_not_measured():
    (table,) = (each for each in details(outcome(predicted=predicted())) if each.title.startswith("Prediction"))
    assert table.rows[0] == ("4", "62.0", "not measured", "10 ms", "not measured")
    assert [duration(each) for each in (0.0, 0.00012, 0.0054, 0.34, 5.361)] == [
        *("0 ms", "0.12 ms", "5.4 ms", "340 ms", "5.36 s")
    ]


def test_the_page_has_headline_tables_plots_and_details_in_this_order():
    whole = outcome(scaled=SATURATING, predicted=predicted(44), mixtures=MIXTURES, timings=TIMINGS)
    page = html(whole)
    places = [page.index(each) for each in (f"<h1>{headline(whole)}", "<table", '<div class="plots"', "<details>")]
    assert places == sorted(places)
    assert page.count('<div class="plot">') == sum(len(group) for group in plots(whole).values()) == 9
    # nothing is loaded from elsewhere; the only link is to the paper
    assert not re.search(r"<link|<img|<script[^>]* src=", page)
    assert re.findall(r'<a href="([^"]*)"', page) == ["https://arxiv.org/abs/2312.06838"]


def test_a_page_without_measurements_says_why_and_has_no_plots():
    page = html(outcome(remarks=["workers: the server is away."], interrupted=True))
    assert "<h1>Nothing was measured.</h1>" in page
    assert "Not measured as planned: workers: the server is away." in page
    assert "Interrupted" in page
    assert "<script" not in page


def test_names_are_escaped_in_the_page(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    named = Outcome(
        {evil: evil},
        {evil: evil},
        QUICK,
        evil,
        timings=[Timing("b", evil, evil, ((0, 0.0), (100, 1.0)), 0.0)],
        scaled=points(PIPELINED, (1, 100, 0.1), (2, 100, 0.5)),
        mixtures=[mixture(evil, 4, 4, 1.0)],
        predicted=Predicted(2, 0.3, 0.01, 1.0, ((1, 1.0, 0.0),), 4, evil),
        remarks=[evil],
        accelerator=evil,
    )
    report, numbers = save(named, tmp_path)
    page = report.read_text()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert json.loads(numbers.read_text())["headline"] == headline(named)


def test_the_terminal_output_begins_with_headline_and_tables(tmp_path, monkeypatch):
    whole = outcome(scaled=SATURATING, predicted=predicted(44), timings=TIMINGS)
    monkeypatch.setattr("eaf_facility.study.run.study", lambda **_: whole)
    options = argparse.Namespace(quick=True, parts=None, url=None, prometheus=None, gateway=None, output=tmp_path)
    stream = io.StringIO()
    assert command.run(options, Console(file=stream, width=200), lambda _: None) == 0
    text = stream.getvalue()
    places = [
        text.index(each) for each in (headline(whole), "Simulated workers and Tritons", "Timing", "- The advice")
    ]
    assert text.strip().startswith(headline(whole))
    assert places == sorted(places)


def test_remarks_name_the_option_for_a_missing_service():
    alone = study(parts=["workers", "models", "capacity"], site=Site("grpc://127.0.0.1:9"), progress=lambda _: None)
    assert alone.remarks == [
        "workers: this part needs the facility's Dask Gateway and Prometheus: pass --gateway and --prometheus",
        "models: this part runs on simulated accelerators only, not on a facility",
        "capacity: this part needs the facility's Prometheus: pass --prometheus",
    ]
    with (
        pytest.raises(ConfigurationError, match=r"^Queue times need Prometheus: pass --prometheus\.$"),
        server_load(Site("grpc://127.0.0.1:9"), [], "particlenet"),
    ):
        pytest.fail("the block ran without Prometheus")


def test_a_missing_queue_time_is_an_error_not_zero(monkeypatch):
    unknown = ModelLoad("particlenet", "1", inferences_per_second=100.0, requests_per_second=10.0)
    recorded = [replace(each, models=(unknown,)) for each in snapshots("client_bound")]
    monkeypatch.setattr("eaf_facility.study.server_metrics.recorded_snapshots", lambda _: nullcontext(recorded))
    site = Site("grpc://127.0.0.1:9", "http://127.0.0.1:9")
    with (
        pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9 has no queue times of 'particlenet'\.$"),
        server_load(site, [], "particlenet"),
    ):
        pass


def test_a_facilitys_load_is_the_mean_over_versions_and_live_tritons(monkeypatch):
    versions = [ModelLoad("particlenet", f"{n}", requests_per_second=n, queue_ms=10.0 * n) for n in (1.0, 3.0)]
    tritons = (ReplicaLoad("a", up=True), ReplicaLoad("b", up=True), ReplicaLoad("gone"))
    recorded = [replace(each, models=tuple(versions), instances=tritons) for each in snapshots("client_bound")]
    monkeypatch.setattr("eaf_facility.study.server_metrics.recorded_snapshots", lambda _: nullcontext(recorded))
    with server_load(Site("grpc://127.0.0.1:9", "http://127.0.0.1:9"), [], "particlenet") as load:
        pass
    assert (load.requests_per_second, load.queue, load.replicas) == (4.0, pytest.approx(0.025), 2)


def test_curves_are_sorted_by_workers():
    (curve,) = curves(reversed(SATURATING))
    assert [each.workers for each in curve.points] == [1, 4, 16, 64]
    assert (curve.saturation.workers, curve.last_within_limit.workers, curve.first_over_limit.workers) == (16, 16, 64)
