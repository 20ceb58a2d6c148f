"""One reader and any number of listeners, against a small HTTP server that counts requests."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client is jupyter_server's, which is not installed")

from recorded.replay import scrapes, serve
from waiting import until

from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import StaticToken
from eaf_inference.metrics import http
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.metrics.triton import TritonMetrics

QUICK = 0.05  # seconds


@pytest.fixture
def site():
    with serve() as site:
        site.pages["/metrics"] = scrapes("idle")[0][1]
        yield site


def sampler_of(site, *paths, timeout=3.0, **settings):
    urls = [f"{site.url}{path}" for path in paths or ("/metrics",)]
    return Sampler([TritonMetrics(url, timeout=timeout) for url in urls], **{"interval": QUICK, **settings})


async def take(snapshots, number):
    """Return the next snapshots, this many."""
    taken = []
    async for snapshot in snapshots:
        taken.append(snapshot)
        if len(taken) == number:
            break
    return taken


async def until_one(snapshots, condition):
    """Return the first snapshot for which the condition is true."""

    async def look():
        async for snapshot in snapshots:
            if condition(snapshot):
                return snapshot
        raise AssertionError("the sampler ended")

    return await asyncio.wait_for(look(), 20)


def follow(sampler, look):
    """Run `look(snapshots)` with a new listener."""

    async def main():
        with sampler.listen() as snapshots:
            found = await look(snapshots)
        await sampler.close()
        assert sampler._reader.exception() is None
        return found

    return asyncio.run(main())


def test_fifty_listeners_share_one_reader(site):
    sampler = sampler_of(site)

    async def one():
        with sampler.listen() as snapshots:
            return await take(snapshots, 5)

    async def main():
        taken = await asyncio.gather(*(one() for _ in range(50)))
        await sampler.close()
        return taken

    taken = asyncio.run(main())
    assert all(each == taken[0] for each in taken)
    assert len(sampler.history) == 5
    assert 1 <= site.asked["/metrics"] <= 5


def test_sources_are_read_only_while_there_are_listeners(site):
    async def main():
        sampler = sampler_of(site)
        await asyncio.sleep(4 * QUICK)
        assert site.asked.total() == 0
        with sampler.listen() as first, sampler.listen() as second:
            await asyncio.gather(take(first, 2), take(second, 2))
        await sampler.close()
        asked = site.asked.total()
        await asyncio.sleep(4 * QUICK)
        assert site.asked.total() == asked
        with sampler.listen() as again:
            await take(again, 1)
        assert site.asked.total() > asked
        await sampler.close()

    asyncio.run(main())


def test_a_listener_that_returns_at_once_continues(site):
    async def main():
        sampler = sampler_of(site)
        for _ in range(5):
            with sampler.listen() as snapshots:
                await take(snapshots, 1)
            with sampler.listen() as snapshots:
                assert len(await asyncio.wait_for(take(snapshots, 2), 10)) == 2
        await sampler.close()

    asyncio.run(main())


def test_a_slow_listener_gets_the_newest_snapshot_only(site):
    sampler = sampler_of(site)

    async def look(snapshots):
        await take(snapshots, 1)
        before = len(sampler.history)
        while len(sampler.history) < before + 4:
            await asyncio.sleep(QUICK)
        newest = sampler.history[-1]
        return newest, (await take(snapshots, 1))[0]

    newest, got = follow(sampler, look)
    assert got == newest


def test_rates_come_from_two_answers_and_history_is_bounded(site):
    sampler = sampler_of(site, history=4 * QUICK)
    last = follow(sampler, lambda snapshots: until_one(snapshots, lambda each: each.window and sampler.history[3:]))
    assert {model.inferences_per_second for model in last.models} == {0.0}
    assert last.sources[0].error is None
    assert last.sources[0].age < 5
    assert len(sampler.history) == 4
    json.dumps([snapshot.as_dict() for snapshot in sampler.history], allow_nan=False)


def test_history_keeps_the_busiest_models_only(site):
    site.pages["/metrics"] = "".join(f'nv_inference_count{{model="{n}",version="1"}} 1\n' for n in range(30))
    sampler = sampler_of(site)
    snapshot = follow(sampler, lambda snapshots: until_one(snapshots, lambda each: each.models))
    assert (len(snapshot.models), len(sampler.history[-1].models)) == (30, 20)


def test_history_stays_in_order_after_the_clock_was_set_back(site, monkeypatch):
    wall = itertools.chain([9000.0, 9001.0], itertools.count(1400.0))
    clocks = SimpleNamespace(monotonic=time.monotonic, time=lambda: next(wall))
    monkeypatch.setattr("eaf_inference.metrics.sampler.time", clocks)
    sampler = sampler_of(site)
    follow(sampler, lambda snapshots: until_one(snapshots, lambda each: 1402 <= each.time < 9000))
    assert [snapshot.time for snapshot in sampler.history][:3] == [1400.0, 1401.0, 1402.0]


def test_a_failing_source_is_read_less_often_and_recovers(site):
    sampler = sampler_of(site)
    site.pages["/metrics"] = (503, "")

    async def look(snapshots):
        taken = await take(snapshots, 30)
        asked = site.asked["/metrics"]
        site.pages["/metrics"] = scrapes("idle")[0][1]
        return taken, asked, await until_one(snapshots, lambda snapshot: snapshot.models)

    taken, asked, recovered = follow(sampler, look)
    assert 2 <= asked <= 8  # of 30 ticks
    source = taken[-1].sources[0]
    assert source.error == "it answers 503 Service Unavailable"
    assert source.age is None
    assert max(each.sources[0].retry_in or 0.0 for each in taken) > 4 * QUICK
    assert taken[-1].instances[0].up is False
    assert taken[-1].models == ()
    assert recovered.sources[0].error is None
    assert recovered.instances[0].up is True


def test_a_long_failing_source_is_read_again_within_seconds(site):
    sampler = Sampler([TritonMetrics(f"{site.url}/metrics")])
    [watched] = sampler._watched
    for _ in range(100):
        sampler._failed(watched, "it is dead")
    assert 3.0 < watched.as_source(time.monotonic()).retry_in <= 5.0


def test_a_silent_replica_delays_nothing_and_is_not_read_twice(site):
    site.pages["/silent"] = 60.0
    sampler = sampler_of(site, "/metrics", "/silent", timeout=1.0)

    async def look(snapshots):
        await take(snapshots, 8)
        asked = dict(site.asked)
        return asked, await until_one(snapshots, lambda snapshot: snapshot.sources[1].error)

    asked, snapshot = follow(sampler, look)
    assert asked["/silent"] == 1
    assert asked["/metrics"] > 1
    assert snapshot.sources[1].error == "no answer within 1 s"
    assert snapshot.sources[0].error is None
    assert [instance.up for instance in snapshot.instances] == [True, False]


def test_a_source_that_failed_keeps_the_time_of_its_last_answer(site):
    sampler = sampler_of(site)

    async def look(snapshots):
        await take(snapshots, 2)
        site.pages["/metrics"] = (500, "")
        return await until_one(snapshots, lambda snapshot: snapshot.sources[0].error)

    source = follow(sampler, look).sources[0]
    assert 0 < source.age < 10


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ((401, ""), "not authorised (401)"),
        ((403, ""), "not authorised (403)"),
        ((302, "/elsewhere"), "it answers 302 Found"),
        ((200, "<html>"), "its answer is not in Prometheus' text format"),
        ((200, "#" * 300_000), "its answer is larger than 200000 bytes"),
    ],
)
def test_an_invalid_answer_is_reported_and_not_followed(site, page, error, monkeypatch):
    monkeypatch.setattr(http, "_LARGEST_BODY", 200_000)
    site.pages["/metrics"] = page
    snapshot = follow(sampler_of(site), lambda snapshots: until_one(snapshots, lambda each: each.sources[0].error))
    assert snapshot.sources[0].error == error
    assert set(site.asked) == {"/metrics"}


def test_a_closed_port_and_an_unknown_host_are_reported():
    sampler = Sampler([TritonMetrics("http://127.0.0.1:9/metrics"), TritonMetrics("http://no.invalid/metrics")])
    snapshot = follow(
        sampler, lambda snapshots: until_one(snapshots, lambda each: all(s.error for s in each.sources))
    )
    assert snapshot.sources[0].error == "Connection refused"
    assert snapshot.sources[1].error


def test_an_error_in_one_source_does_not_stop_the_others(site, caplog):
    class Broken(TritonMetrics):
        async def read(self, _):
            raise ZeroDivisionError("ours")

    sampler = Sampler([Broken(f"{site.url}/metrics"), TritonMetrics(f"{site.url}/metrics")], interval=QUICK)
    snapshot = follow(sampler, lambda snapshots: take(snapshots, 3))[-1]
    assert [source.error for source in snapshot.sources] == ["ZeroDivisionError", None]
    assert "ours" in caplog.text


def test_closing_ends_every_iteration(site):
    async def main():
        sampler, first, got = sampler_of(site), asyncio.Event(), []

        async def listen_on():
            with sampler.listen() as snapshots:
                async for snapshot in snapshots:
                    got.append(snapshot)
                    first.set()

        listener = asyncio.create_task(listen_on())
        await asyncio.wait_for(first.wait(), 10)
        await sampler.close()
        await asyncio.wait_for(listener, 10)
        return got

    assert asyncio.run(main())


def test_a_token_is_sent_to_prometheus_only(site, caplog):
    caplog.set_level(logging.DEBUG)
    site.pages["/api/v1/query"] = json.dumps({"status": "success", "data": {"result": []}})
    source = Prometheus(site.url, credentials=Credentials(StaticToken("sesame")), every=0.0)
    sampler = Sampler([source], interval=QUICK)

    async def look(snapshots):
        answered = [await until_one(snapshots, lambda snapshot: snapshot.sources[0].age is not None)]
        site.pages["/api/v1/query"] = (401, "")
        return [*answered, await until_one(snapshots, lambda snapshot: snapshot.sources[0].error)]

    snapshot = follow(sampler, look)
    assert {headers["Authorization"] for headers in site.headers} == {"Bearer sesame"}
    assert snapshot[-1].sources[0].error == "not authorised (401)"
    assert "sesame" not in repr(snapshot) + repr(source) + caplog.text


def test_prometheus_is_queried_no_more_often_than_configured(site):
    site.pages["/api/v1/query"] = json.dumps({"status": "success", "data": {"result": []}})
    sampler = Sampler([Prometheus(site.url, every=60.0)], interval=QUICK)
    follow(sampler, lambda snapshots: take(snapshots, 5))
    assert site.asked["/api/v1/query"] == 1


def test_a_thread_follows_while_the_main_thread_is_busy(site):
    sampler, shown = sampler_of(site), []
    stop = run_in_thread(sampler, shown.append)
    time.sleep(6 * QUICK)  # this thread does nothing else
    until(lambda: len(shown) >= 3)
    stop()
    asked = site.asked.total()
    time.sleep(4 * QUICK)
    assert site.asked.total() == asked
    assert "eaf-inference-sampler" not in {thread.name for thread in threading.enumerate()}
    stop()  # harmless


def test_the_thread_ends_when_its_callback_stops_it_or_fails(site, caplog):
    holder, ended = [], threading.Event()

    def show_once(_):
        until(lambda: holder)
        holder[0]()
        ended.set()

    holder.append(run_in_thread(sampler_of(site), show_once))
    assert ended.wait(20)
    until(lambda: "eaf-inference-sampler" not in {thread.name for thread in threading.enumerate()})

    def fail(_):
        raise ValueError("the comm is closed")

    stop = run_in_thread(sampler_of(site), fail)
    until(lambda: "the comm is closed" in caplog.text)
    stop()
    assert "eaf-inference-sampler" not in {thread.name for thread in threading.enumerate()}


def test_an_error_in_the_reader_ends_every_iteration(site, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("eaf_inference.metrics.sampler.assemble", fail)

    async def main():
        sampler = sampler_of(site)
        with sampler.listen() as snapshots:
            assert await asyncio.wait_for(take(snapshots, 1), 10) == []
        with pytest.raises(ZeroDivisionError):
            await sampler._reader

    asyncio.run(main())


def test_https_is_verified_against_the_given_authorities(site, tmp_path):
    import ssl

    trustme = pytest.importorskip("trustme")
    ours, theirs = trustme.CA(), trustme.CA()
    for name, authority in (("ours", ours), ("theirs", theirs)):
        authority.cert_pem.write_to_path(tmp_path / name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(context)
    with serve(context) as secure:
        secure.pages["/metrics"] = site.pages["/metrics"]
        url = f"{secure.url}/metrics"
        sampler = Sampler([TritonMetrics(url, ca=tmp_path / name) for name in ("ours", "theirs")], interval=QUICK)
        snapshot = follow(sampler, lambda snapshots: until_one(snapshots, lambda each: each.sources[1].error))
    assert snapshot.sources[0].error is None
    assert snapshot.sources[1].error.startswith("TLS: ")


def test_importing_metrics_imports_no_http_client_and_no_parser():
    names = ("advice", "prometheus", "sampler", "triton")
    code = f"import sys\nfor name in {names}: __import__(f'eaf_inference.metrics.{{name}}')\n"
    code += "print(sorted({'httpx', 'prometheus_client', 'numpy', 'grpc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
