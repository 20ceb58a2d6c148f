"""Measure the extension's cost for an idle Jupyter server with 0, 1 and 50 open panels.

python tests/server/measure_idle_cpu.py [SECONDS]

A real JupyterLab server watches a real, idle Triton. A panel is a websocket with an interval of 1 s that also
requests the user's clusters, like a browser's. CPU time is the user and system time of the server's process.
Triton's metrics pass through a small relay of this program, which counts the scrapes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import psutil
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

sys.path.extend(str(Path(__file__).parents[1] / each) for each in ("", "ui"))
from lab import running_lab
from recorded.replay import serve

from eaf_facility.servers.triton import TritonServer

PANELS = (0, 1, 50)
INTERVAL = 1.0
SETTLES = 15.0  # seconds: the first look, imports, an empty history


class Panel:
    """A panel as the server sees it; counts the snapshots that it receives."""

    def __init__(self, lab) -> None:
        self.snapshots = 0
        self._api = f"{lab.url}eaf-inference/api/"
        self._headers = {"Authorization": f"token {lab.token}"}
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        self._listening.cancel()
        [error] = await asyncio.gather(self._listening, return_exceptions=True)
        if isinstance(error, Exception):  # not a cancellation, so the socket failed
            raise error

    async def _listen(self) -> None:
        url = self._api.replace("http", "ws", 1) + "stream"
        socket = await websocket_connect(HTTPRequest(url, headers=self._headers))
        try:
            await socket.write_message(json.dumps({"interval": INTERVAL, "clusters": True}))
            while (text := await socket.read_message()) is not None:
                self.snapshots += json.loads(text)["type"] == "snapshot"
            raise RuntimeError("the server closed the socket")
        finally:
            socket.close()


async def measure(lab, server: psutil.Process, site, count: int, seconds: float) -> None:
    panels = [Panel(lab) for _ in range(count)]
    await asyncio.sleep(SETTLES)
    cpu, asked = sum(server.cpu_times()[:2]), site.asked.total()
    seen, began = [panel.snapshots for panel in panels], time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    cpu, asked = sum(server.cpu_times()[:2]) - cpu, site.asked.total() - asked
    got = [panel.snapshots - before for panel, before in zip(panels, seen, strict=True)]
    await asyncio.gather(*(panel.close() for panel in panels))
    snapshots = f"{min(got)} to {max(got)}" if got else "none"
    scrapes = asked * INTERVAL / took
    print(
        f"{count:6} {100 * cpu / took:11.2f} % {scrapes:24.2f} {snapshots:>24} {os.getloadavg()[0]:10.2f}", flush=True
    )


def main(seconds: float = 60.0) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(TritonServer.start())
        site = stack.enter_context(serve())
        site.answer = lambda _: (200, urllib.request.urlopen(triton.metrics, timeout=3).read().decode())  # noqa: S310
        lab = stack.enter_context(running_lab(home, urls=[triton.grpc], metrics_urls=[f"{site.url}/metrics"]))
        below = psutil.Process().children(recursive=True)  # its reaper names the same program, further behind
        (server,) = (each for each in below if each.cmdline()[1:3] == ["-m", "jupyterlab"])
        print(f"{os.cpu_count()} CPUs ({platform.processor() or platform.machine()}), {seconds:.0f} s each")
        print("panels   of one core   scrapes in an interval   snapshots of a panel   load average")
        for count in PANELS:
            asyncio.run(measure(lab, server, site, count, seconds))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
