"""The times between two scrapes of a Triton, against a small HTTP server."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client is jupyter_server's, which is not installed")

from recorded.replay import scrapes, serve

from eaf_inference.metrics import http
from eaf_inference.metrics.triton import TritonMetrics


@pytest.fixture
def window(monkeypatch):
    """A function that scrapes at a monotonic time and a time of day, and returns the seconds of the rates."""
    now, wall = [0.0], [0.0]
    clocks = SimpleNamespace(monotonic=time.monotonic, time=lambda: wall[0])
    monkeypatch.setattr("eaf_inference.metrics.triton.time", clocks)
    with serve() as site:
        site.pages["/metrics"] = scrapes("idle")[0][1]
        source = TritonMetrics(f"{site.url}/metrics", clock=lambda: now[0])

        async def read():
            return await source.read(http.make_fetch())

        def window(seconds, of_day=None):
            now[0] = seconds
            wall[0] = 1.7e9 + (seconds if of_day is None else of_day)
            return asyncio.run(read()).window

        yield window


def test_a_rate_over_a_long_pause_is_none(window):
    assert [window(seconds) for seconds in (0.0, 59.0, 200.0, 201.0)] == [None, 59.0, None, 1.0]


def test_a_tick_that_is_late_at_the_longest_interval_has_a_rate(window):
    assert [window(0.0), window(61.0)] == [None, 61.0]


def test_a_rate_over_a_sleep_of_this_machine_is_none(window):
    assert [window(0.0), window(1.0)] == [None, 1.0]
    assert [window(2.0, of_day=8 * 3600.0), window(3.0, of_day=8 * 3600.0 + 1)] == [None, 1.0]
    assert window(4.0, of_day=-60.0) == 1.0  # the clock was set back
