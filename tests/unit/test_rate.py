"""Jets per second over the current run."""

from __future__ import annotations

import pytest

from eaf_inference.inference.rate import Rate
from eaf_inference.inference.traffic import Retrying, Traffic


def counted(*moments):
    """Make a rate from requests: when each was sent and answered, and its inferences."""
    rate, total = Rate(), 0
    for sent, answered, inferences in moments:
        rate.began(sent, total, alone=True)
        total += inferences
        rate.counted(answered, total)
    return rate


def test_the_rate_is_unknown_before_the_first_reply():
    rate = Rate()
    assert rate.per_second(0.0, busy=False) is None
    rate.began(10.0, 0, alone=True)
    assert rate.per_second(12.0, busy=True) is None


def test_the_rate_covers_the_run_including_short_pauses():
    rate = counted((100.0, 102.0, 1000), (106.0, 110.0, 1000))
    assert rate.per_second(110.0, busy=False) == 200.0
    assert rate.per_second(120.0, busy=True) == 100.0  # a request is in flight
    assert rate.per_second(114.9, busy=False) == 200.0
    assert rate.per_second(115.0, busy=False) == 0.0


def test_a_pause_of_five_seconds_begins_a_new_run():
    assert counted((0.0, 10.0, 10_000), (15.0, 16.0, 100)).per_second(16.0, busy=False) == 100.0


def test_a_long_request_is_not_a_pause():
    rate = Rate()
    rate.began(0.0, 0, alone=True)
    rate.began(8.0, 0, alone=False)
    rate.counted(10.0, 1000)
    assert rate.per_second(10.0, busy=True) == 100.0


def test_the_last_minute_of_a_long_run_counts():
    rate = counted(*((float(n), n + 1.0, 10 if n < 120 else 1000) for n in range(200)))
    assert rate.per_second(200.0, busy=False) == pytest.approx(1000, rel=0.01)
    assert len(rate._moments) <= 62


def test_replies_in_quick_succession_are_kept_as_one():
    rate = counted(*((n / 1000, n / 1000 + 0.001, 1) for n in range(10_000)))
    assert rate.per_second(10.0, busy=False) == pytest.approx(1000, rel=0.01)
    assert len(rate._moments) <= 42


def test_a_call_and_its_connection_count_the_same():
    whole, call = Traffic(), Traffic()
    call.part_of(whole)
    call.sent(again=False)
    call.answered(50, 1, 0.1)
    assert call.inferences_per_second > 0
    assert whole.inferences_per_second > 0
    call.retries_until(Retrying("server gone", ends=0.0))
    assert str(whole.retrying) == "server gone, retrying, 0 s left"


def test_jets_scored_by_workers_count_from_the_submission_on():
    traffic = Traffic()
    traffic.submitted()
    assert traffic.inferences_per_second is None  # no worker has reported yet
    traffic.scored_elsewhere(500)
    assert traffic.inferences_per_second > 0
    traffic.submission_ended()
    assert (traffic.inferences, traffic.elsewhere) == (0, 500)


def test_an_outage_of_five_seconds_ends_the_run(monkeypatch):
    now = 0.0
    monkeypatch.setattr("eaf_inference.inference.traffic.time.monotonic", lambda: now)
    traffic = Traffic()
    traffic.sent(again=False)
    now = 10.0
    traffic.answered(1000, 1, 10.0)
    assert traffic.inferences_per_second == 100.0
    for each in (11.0, 14.0, 17.0):
        now = each
        traffic.sent(again=True)
        traffic.failed()
        traffic.retries_until(Retrying("server gone", ends=100.0))
    assert traffic.inferences_per_second == 0.0
    traffic.sent(again=True)
    now = 20.0
    traffic.answered(50, 1, 3.0)
    traffic.retries_until(None)
    traffic.sent(again=False)
    now = 21.0
    traffic.answered(50, 1, 1.0)
    assert traffic.inferences_per_second == pytest.approx(50.0)
