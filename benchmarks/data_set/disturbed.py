"""Run the driver on a cluster, and kill one process after the other, each at a moment that is observed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.data_set.files import MODEL, input_of
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client

    from eaf_facility.servers.triton import TritonServer

__all__ = ["Driver", "as_jobs", "disturbed"]

_PATIENCE = 300.0  # seconds


class Driver:
    """The user's program in its own process, which writes into a directory."""

    def __init__(self, server: TritonServer, scheduler: str, fileset: Path, directory: Path) -> None:
        self.directory = directory
        self._report = directory.with_suffix(".json")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.data_set.driver"),
                *(server.grpc, scheduler, str(fileset), str(directory), str(self._report)),
            ]
        )
        self.pid = self._process.pid

    @property
    def outputs(self) -> int:
        return sum(1 for _ in self.directory.glob("*/*.parquet"))

    @property
    def drafts(self) -> list[Path]:
        return list(self.directory.glob("*/.*.draft"))

    def when(self, condition: Callable[[], object]) -> None:
        """Wait for a moment of the run."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise InferenceError("The driver ended, or took too long, before the fault that was to come.")
            time.sleep(0.001)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def kill_in_mid_write(self) -> int:
        """Kill it while an output is half written, and return how many were."""
        while True:
            self.when(lambda: self.drafts)
            os.kill(self.pid, signal.SIGSTOP)
            os.waitpid(self.pid, os.WUNTRACED)
            if unfinished := len(self.drafts):
                self.kill()
                return unfinished
            os.kill(self.pid, signal.SIGCONT)

    def report(self) -> dict[str, Any]:
        """Wait for its end, and return what it saw."""
        if code := self._process.wait(_PATIENCE):
            raise InferenceError(f"The driver ended with the code {code}.")
        found: dict[str, Any] = json.loads(self._report.read_text(encoding="utf-8"))
        return found


def disturbed(
    server: TritonServer,
    client: Client,
    scheduler: str,
    fileset: Path,
    directory: Path,
    files: int,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Kill a worker, Triton and the driver, start the driver again, and return what the last one saw."""
    started = time.monotonic()

    def note(what: str) -> None:
        say(f"{time.monotonic() - started:5.1f} s  {driver.outputs:4} outputs  {what}")

    driver = Driver(server, scheduler, fileset, directory)
    note(f"the driver is started (process {driver.pid})")
    driver.when(lambda: driver.outputs >= files // 7)
    pids = client.run(os.getpid)
    victim = _busy(client, driver)
    os.kill(pids[victim], signal.SIGKILL)
    note(f"SIGKILL to a worker that scores files (process {pids[victim]})")
    before = driver.outputs
    driver.when(lambda: driver.outputs >= before + files // 7)
    note(f"SIGKILL to Triton (process {server.pid})")
    server.kill()
    reviver = threading.Thread(target=server.restart)
    reviver.start()
    reviver.join()
    note(f"Triton is ready again (process {server.pid})")
    before = driver.outputs
    driver.when(lambda: driver.outputs >= before + files // 7)
    unfinished = driver.kill_in_mid_write()
    note(f"SIGKILL to the driver, which has {unfinished} output half written")
    driver = Driver(server, scheduler, fileset, directory)
    note(f"the driver is started again (process {driver.pid})")
    report = driver.report()
    note("the driver has ended")
    now = client.run(os.getpid)
    if pids[victim] in now.values() or len(now) != len(pids):
        raise InferenceError(f"The workers are {now}, and were {pids}: not one of them was replaced.")
    return report


def as_jobs(server: TritonServer, fileset: Path, directory: Path) -> str:
    """Score the data set by two jobs at the same time, as a batch system would, and return what they printed."""
    command = [sys.executable, "-m", "eaf_inference.cli", "run", MODEL, str(fileset), "--out", str(directory)]
    options = ["--select", f"{input_of.__module__}:{input_of.__name__}", "--url", server.grpc]
    jobs = [
        subprocess.Popen([*command, *options, "--jobs", f"{number}/2"], stdout=subprocess.PIPE, encoding="utf-8")
        for number in (1, 2)
    ]
    said = [job.communicate(timeout=_PATIENCE)[0] for job in jobs]
    if any(job.returncode != 1 for job in jobs):  # each has damaged files
        raise InferenceError(f"The jobs ended with the codes {[job.returncode for job in jobs]}.")
    return "".join(said)


def _busy(client: Client, driver: Driver) -> str:
    """Wait until a worker has something to do, and return its address."""
    busy: list[str] = []

    def look() -> list[str]:
        busy[:] = [address for address, keys in client.processing().items() if keys]
        return busy

    driver.when(look)
    return busy[0]
