"""The Unix socket from which this server's kernels read the panel's figures."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from browser import until
from recorded.replay import documented, serve

from eaf_inference.metrics.feed import SOCKET, listen

METRICS = "/metrics"


class Kernel:
    """A kernel that records what it receives."""

    def __init__(self, urls) -> None:
        self.history, self.heard, self.ended = None, [], False
        self.stop = listen(urls, earlier=self._begin, hear=self._hear, ended=self._end)

    def _begin(self, history, verdict):
        self.history = history, verdict

    def _hear(self, snapshot, verdict):
        self.heard.append((snapshot, verdict))

    def _end(self):
        self.ended = True


@pytest.fixture
def site(configure, tiny_triton):
    with serve() as site:
        site.pages[METRICS] = documented("triton_gpu")
        configure(urls=[tiny_triton.grpc], metrics_urls=[site.url + METRICS])
        yield site


async def test_a_kernel_receives_the_history_and_the_panels_frames(browser, site, tiny_triton):
    async with browser.stream() as stream:
        for _ in range(3):
            await stream.next()
        kernel = Kernel([tiny_triton.grpc])
        await until(lambda: len(kernel.heard) >= 2, 20)
        history, verdict = kernel.history
        assert len(history) >= 3
        assert verdict.average.busy.value == 0.42
        frame = await stream.next()
        await until(lambda: kernel.heard[-1][0].time >= frame["snapshot"]["time"], 20)
        reply = {snapshot.time: verdict for snapshot, verdict in kernel.heard}
        assert reply[frame["snapshot"]["time"]].as_dict() == {key: frame[key] for key in ("average", "advice")}
        asked = site.asked[METRICS]
        await stream.next()
        assert site.asked[METRICS] <= asked + 2  # one sampler for both
        kernel.stop()


async def test_a_kernel_alone_keeps_the_sampler_running(browser, site, tiny_triton):
    await browser.get("facility")
    kernel = Kernel([tiny_triton.grpc])
    await until(lambda: len(kernel.heard) >= 2, 20)
    kernel.stop()

    async def rests():
        before = site.asked[METRICS]
        await asyncio.sleep(1.5)
        return site.asked[METRICS] == before

    assert await rests() or await rests()
    assert not kernel.ended  # the server did not close the connection


async def test_a_kernel_of_another_server_gets_no_figures(browser, site):
    await browser.get("facility")
    kernel = Kernel(["grpc://127.0.0.1:1"])
    await until(lambda: kernel.ended, 20)
    assert kernel.heard == []


async def test_only_this_user_can_open_the_socket_until_the_server_stops(jp_serverapp, site, tiny_triton):
    path = Path(os.environ[SOCKET])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    kernel = Kernel([tiny_triton.grpc])
    await until(lambda: kernel.heard, 20)
    await jp_serverapp.cleanup_extensions()
    await until(lambda: kernel.ended, 20)
    assert not path.parent.exists()
    assert SOCKET not in os.environ
    assert listen([], earlier=print, hear=print, ended=print) is None
