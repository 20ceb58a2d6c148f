"""The websocket: one sampler for all browsers, no sampling without them, and individual intervals."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack

import numpy as np
import pytest
from browser import API, until
from recorded.replay import documented, serve

import eaf_inference
from eaf_facility.process.ports import free_ports
from eaf_inference.metrics.advice import Kind
from eaf_inference.metrics.snapshot import Gpu, Snapshot

METRICS = "/metrics"


@pytest.fixture
def site(configure, tiny_triton):
    """A site with recorded metrics of two replicas that counts requests; the models are a real Triton's."""
    with serve() as site:
        site.pages[METRICS] = site.pages["/second"] = documented("triton_gpu")
        configure(urls=[tiny_triton.grpc], metrics_urls=[site.url + METRICS, site.url + "/second"])
        yield site


async def test_frames_follow_the_load(browser, configure, tiny_triton):
    configure(urls=[tiny_triton.grpc], metrics_urls=[tiny_triton.metrics])

    def load():
        with eaf_inference.connect(tiny_triton.grpc) as connection:
            connection.model("mirror")({"x": np.ones((6400, 2), np.float32)})

    def mirror(snapshot):
        return next((model for model in snapshot["models"] if model["name"] == "mirror"), {})

    async with browser.stream() as stream:
        first = await stream.next("facility")
        assert set(first) == {"type", "facility"}
        frame = await stream.next()
        assert set(frame) == {"type", "snapshot", "average", "advice"}
        assert set(frame["snapshot"]) == set(Snapshot(time=0.0).as_dict())
        assert frame["advice"] is None  # there is no advice in the first five seconds
        await stream.until(lambda each: each["snapshot"]["window"])
        await asyncio.to_thread(load)
        frame = await stream.until(lambda each: mirror(each["snapshot"]).get("inferences_per_second"))
        assert mirror(frame["average"])["inferences_per_second"] > 0
        assert frame["snapshot"]["gpus"] == []
        frame = await stream.until(lambda each: each["advice"])
        assert set(frame["advice"]) == {"kind", "title", "text"}
        assert frame["advice"]["kind"] in {kind.value for kind in Kind}
        assert stream.facility["metrics"]["gpu"] is False  # the server has no GPU
    history = await browser.get("history")
    assert history["interval"] == 1.0
    assert len(history["snapshots"]) >= 3
    assert history["snapshots"] == sorted(history["snapshots"], key=lambda each: each["time"])
    assert history["advice"]
    assert len((await browser.get("history", seconds=1))["snapshots"]) <= 2


async def test_fifty_sockets_share_one_sampler_which_stops_with_them(browser, site):
    await browser.get("facility")
    await asyncio.sleep(1.2)
    assert site.asked[METRICS] == 0
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(browser.stream()) for _ in range(50)]
        await asyncio.gather(*(stream.next() for stream in streams))
        began, before = time.monotonic(), dict(site.asked)
        frames = await asyncio.gather(*(read_for(stream, 3.0) for stream in streams))
        elapsed = time.monotonic() - began
        for path in (METRICS, "/second"):
            assert site.asked[path] - before[path] <= elapsed + 1
        assert min(frames) >= 2
        assert (await streams[0].next())["snapshot"]["gpus"]
        reply = await browser.get("facility")
        assert reply["metrics"]["gpu"] is True
    await asyncio.sleep(0.5)  # for pending requests
    before = dict(site.asked)
    await asyncio.sleep(1.2)
    assert dict(site.asked) == before


async def read_for(stream, seconds) -> int:
    """Count the snapshots in this time."""
    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        await stream.next()
        count += 1
    return count


async def test_each_socket_has_its_interval_and_the_sampler_the_shortest(browser, site):
    async with browser.stream() as slow:
        await slow.say('{"interval": 3}')
        await slow.next()
        before = site.asked[METRICS]
        assert await read_for(slow, 4.0) <= 3
        assert site.asked[METRICS] - before <= 3
        async with browser.stream() as fast:
            counts = await asyncio.gather(read_for(fast, 4.0), read_for(slow, 4.0))
        assert counts[0] >= 3
        assert counts[1] <= 2


async def test_an_interval_is_clamped_and_anything_else_is_ignored(browser, site, jp_serverapp):
    async with browser.stream() as stream:
        await stream.next()
        [socket] = broadcast(jp_serverapp)._members
        for text, interval in (
            ('{"interval": 0}', 1.0),
            ('{"interval": 1e999}', 60.0),
            ('{"interval": -5}', 1.0),
            ('{"interval": 7}', 7.0),
            ('{"interval": NaN}', 7.0),
            ('{"interval": true}', 7.0),
            ('{"interval": "1"}', 7.0),
            ('{"url": "http://127.0.0.1:1/"}', 7.0),
            ("[" * 1000, 7.0),
            ("not JSON", 7.0),
            ("3", 7.0),
            (b"\xff\x00".decode("latin-1"), 7.0),
            ('{"interval": 1' + "0" * 900 + "}", 60.0),
            ('{"interval": 2}', 2.0),
        ):
            await stream.say(text)
            await until(lambda expected=interval: socket.interval == expected, 5)
        await stream.next()
        await stream.say("x" * 2000)
        await stream.until(lambda frame: frame is None)  # closed
    assert broadcast(jp_serverapp)._members == set()


def broadcast(app):
    [point] = app.extension_manager.extensions["eaf_inference.server"].extension_points.values()
    return point.app._broadcast


async def test_a_slow_reader_misses_snapshots_and_delays_no_one(
    browser, configure, tiny_triton, jp_serverapp, jp_http_port
):
    configure(urls=[tiny_triton.grpc])
    facility = broadcast(jp_serverapp)._facility
    facility.frame = lambda *_: json.dumps({"type": "snapshot", "filling": "x" * 4_000_000})
    _, writer = await open_without_reading(jp_serverapp, jp_http_port)
    async with browser.stream() as stream:
        for _ in range(4):
            await stream.next()
        sockets = broadcast(jp_serverapp)._members
        assert len(sockets) == 2
        waiting = [socket.ws_connection.stream._write_buffer for socket in sockets]
        assert max(map(len, waiting)) < 12_000_000
    writer.close()
    await until(lambda: not broadcast(jp_serverapp)._members)


async def open_without_reading(app, port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    token = app.identity_provider.token
    lines = [
        f"GET {app.base_url}{'/'.join(API)}/stream?token={token} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await reader.readuntil(b"\r\n")
    return reader, writer


async def test_failing_metrics_are_reported(browser, configure, tiny_triton):
    (port,) = free_ports(1)
    configure(urls=[tiny_triton.grpc], metrics_urls=[f"http://127.0.0.1:{port}/metrics"])
    async with browser.stream() as stream:
        frame = await stream.next()
        assert frame["snapshot"]["models"] == []
        assert frame["snapshot"]["sources"][0]["error"]
        assert frame["advice"]["kind"] == "nothing measured"
    assert (await browser.get("facility"))["state"] == "connected"


async def test_a_facility_that_starts_later_reaches_waiting_browsers(browser, configure, tiny_triton):
    async with browser.stream() as stream:
        assert (await stream.next("facility"))["facility"]["state"] == "no-facility"
        assert (await stream.next())["snapshot"]["sources"] == []
        configure(urls=[tiny_triton.grpc], metrics_urls=[tiny_triton.metrics])
        reply = await stream.until(lambda each: each["facility"]["state"] == "connected", "facility")
        assert reply["facility"]["metrics"]["configured"] is True
        await stream.until(lambda each: each["snapshot"]["models"])


async def test_a_long_history_of_many_gpus_is_thinned(browser, configure, jp_serverapp):
    await browser.get("facility")
    now = time.time()
    gpus = tuple(Gpu(id=f"GPU-{number}", utilization=0.5) for number in range(256))
    sampler = broadcast(jp_serverapp)._facility.sampler
    sampler._history = tuple(Snapshot(time=now - 500 + second, gpus=gpus) for second in range(500))
    snapshots = (await browser.get("history"))["snapshots"]
    assert 100 < len(snapshots) < 200
    assert snapshots[-1]["time"] == pytest.approx(now - 1, abs=0.01)


async def test_the_samples_of_an_hour_are_kept_for_charts(browser, site):
    async with browser.stream() as stream:
        await stream.until(lambda frame: frame["snapshot"]["gpus"])
        frame = await stream.next()
    minute, hour = await browser.get("timeline", seconds=60), await browser.get("timeline")
    assert (minute["step"], hour["step"]) == (1.0, 5.0)
    assert len(minute["times"]) >= 2
    assert minute["times"][-1] >= frame["snapshot"]["time"] - 0.001
    assert 1 <= len(hour["times"]) <= len(minute["times"])
    reported = {gpu["id"]: gpu["utilization"] for gpu in frame["snapshot"]["gpus"]}
    for reply in minute, hour:
        assert {gpu["id"]: gpu["utilization"][-1] for gpu in reply["gpus"]} == reported


async def test_after_a_bug_closed_the_sockets_new_ones_work(browser, configure, jp_serverapp, caplog):
    facility = broadcast(jp_serverapp)._facility
    facility.frame = lambda *_: 1 / 0
    async with browser.stream() as stream:
        assert await stream.next() is None
    assert "the stream of metrics failed" in caplog.text
    del facility.frame
    async with browser.stream() as stream:
        assert await stream.next()


async def test_stopping_jupyter_closes_open_sockets(jp_serverapp, browser, configure):
    async with browser.stream() as stream:
        await stream.next()
        await broadcast(jp_serverapp).close()
        await stream.until(lambda frame: frame is None)
