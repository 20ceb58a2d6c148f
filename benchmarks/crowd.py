"""Compare a crowd of this project's clients with a crowd of blocking ones: ``python -m benchmarks.crowd``.

One Triton has a simulated accelerator, which takes a stated time for each request and cell and computes nothing. Each
client is a thread with a connection of its own, in one of several processes. A blocking client keeps one request of a
fixed size in flight. Jets have 72 ± 25 constituents. Every score is checked.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import eaf_inference
from benchmarks.sizes import jets, rate_of
from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.accelerator import SimulatedAccelerator
from eaf_inference.inference.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.inference.model import Model

BATCH = 256
REQUEST, CELL = 10e-3, 400e-9  # seconds: 57 full batches a second are little work for two cores
ACCELERATOR = SimulatedAccelerator(REQUEST, CELL, batch=BATCH, length=-1)
FULL = BATCH * 72  # cells
_ready: Any = None  # in a process of clients, a barrier


@dataclass(frozen=True, slots=True)
class Setting:
    """What the clients of a crowd do: a fixed size, or the learned one; blocking, or as this project's client."""

    label: str
    clients: int
    cell_budget: int | None
    blocking: bool


@dataclass(slots=True)
class Measured(Traffic):
    """A client's traffic: when each reply came, its latency and its rows."""

    replies: list[tuple[float, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        Traffic.__init__(self)

    def answered(self, inferences: int, nbytes: int, seconds: float) -> None:
        """Count a reply."""
        Traffic.answered(self, inferences, nbytes, seconds)
        self.replies.append((time.monotonic(), seconds, inferences))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the crowds in turns, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--settling", type=float, default=10.0, help="seconds before the measurement (default: 10)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default: 8)")
    options = parser.parse_args(arguments)
    many, few = options.clients, max(options.clients // 16, 1)
    settings = (
        Setting("blocking, 8,192 cells", many, 8192, blocking=True),
        Setting("ours, 8,192 cells", many, 8192, blocking=False),
        Setting("blocking, full batches", many, FULL, blocking=True),
        Setting("ours, full batches", many, FULL, blocking=False),
        Setting("ours, default settings", few, None, blocking=False),
        Setting("ours, default settings", many, None, blocking=False),
    )
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory) / "models"
        repository.mkdir()
        ACCELERATOR.write(repository)
        print(
            "clients  setting                    jets/s    p50 ms    p99 ms   jets a request  requests/s", flush=True
        )
        with TritonServer.start([repository]) as triton:
            for setting in settings:
                print(_line(setting, _crowd(triton.grpc, setting, options, directory), options.seconds), flush=True)
    return 0


def _crowd(url: str, setting: Setting, options: argparse.Namespace, cache: str) -> list[tuple[float, int]]:
    """Return the latency and rows of each reply while a crowd was measured."""
    processes = min(options.processes, setting.clients)
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=cache)  # nothing is known from an earlier crowd
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_wait_for, initargs=(ready,)) as pool:
        shares = [len(range(own, setting.clients, processes)) for own in range(processes)]
        own = [replace(setting, clients=share) for share in shares]
        parts = [pool.submit(_process, url, each, options.settling, options.seconds) for each in own]
        return [reply for part in parts for reply in part.result()]


def _wait_for(ready: Any) -> None:
    """Remember, in a new process, the barrier at which all wait until they have connected."""
    global _ready
    _ready = ready


def _process(url: str, setting: Setting, settling: float, seconds: float) -> list[tuple[float, int]]:
    """Run the clients of one process."""
    sample = jets(16 * BATCH)
    with ExitStack() as stack:
        models = []
        for _ in range(setting.clients):
            connection = stack.enter_context(eaf_inference.connect(url))
            models.append(connection.model(ACCELERATOR.name, cell_budget=setting.cell_budget))
            if setting.blocking:
                connection.limits = replace(connection.limits, max_in_flight=1)
        _ready.wait()
        began = time.monotonic() + settling

        def client(model: Model) -> list[tuple[float, int]]:
            measured = Measured()
            while time.monotonic() < began + seconds:
                rate_of(model, sample, traffic=measured)
            return [(took, rows) for ended, took, rows in measured.replies if began <= ended < began + seconds]

        with ThreadPoolExecutor(setting.clients) as pool:
            return [reply for each in pool.map(client, models) for reply in each]


def _line(setting: Setting, replies: list[tuple[float, int]], seconds: float) -> str:
    latencies = np.array([each for each, _ in replies]) * 1e3
    rows = sum(rows for _, rows in replies)
    return (
        f"{setting.clients:>7}  {setting.label:<24} {rows / seconds:>8,.0f}  {np.percentile(latencies, 50):>8,.0f}  "
        f"{np.percentile(latencies, 99):>8,.0f}  {rows / len(replies):>14,.0f}  {len(replies) / seconds:>10,.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
