"""What Triton, nvidia-smi and the kernel report while clients run."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from pathlib import Path

    from eaf_facility.servers.triton import TritonServer

__all__ = ["GpuWatch", "ServerTimes", "scrape", "server_cpu", "server_times"]

_FIELDS = {
    "utilization.gpu": "utilization %",
    "utilization.memory": "memory utilization %",
    "memory.used": "memory used MiB",
    "memory.total": "memory total MiB",
    "power.draw": "power W",
    "clocks.sm": "SM clock MHz",
    "uuid": "uuid",
}
_EVERY = 200  # ms


@dataclass(slots=True)
class GpuWatch:
    """nvidia-smi's readings, five a second; none without nvidia-smi."""

    file: Path
    readings: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None

    def __enter__(self) -> GpuWatch:
        if shutil.which("nvidia-smi"):
            query = f"--query-gpu={','.join(_FIELDS)}"
            command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", str(_EVERY)]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
            )
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _read(self) -> None:
        assert self._process  # noqa: S101
        assert self._process.stdout  # noqa: S101
        with self.file.open("w", encoding="utf-8") as file:
            file.write(f"time, {', '.join(_FIELDS)}\n")
            for line in self._process.stdout:
                now = time.time()
                file.write(f"{now:.3f}, {line.strip()}\n")
                file.flush()
                values = [each.strip() for each in line.split(",")]
                if len(values) == len(_FIELDS):
                    named = dict(zip(_FIELDS.values(), map(_number, values), strict=True))
                    self.readings.append((now, named))

    def newest(self) -> dict[str, Any]:
        """Return the newest reading, or an empty one."""
        return self.readings[-1][1] if self.readings else {}

    def mean(self, since: float, until: float) -> dict[str, float]:
        """Return the mean of the readings between two times of the wall clock."""
        chosen = [values for moment, values in self.readings if since <= moment <= until]
        means = {}
        for name in _FIELDS.values():
            numbers = [each[name] for each in chosen if isinstance(each[name], float)]
            if numbers:
                means[name] = sum(numbers) / len(numbers)
        return means


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def scrape(url: str) -> str:
    """Return the text of /metrics."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (loopback)
        text: str = answer.read().decode()
    return text


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """Triton's own counts of a model: requests, executions, jets, and nanoseconds by phase, summed over requests."""

    requests: int
    executions: int
    jets: int
    nanoseconds: dict[str, int]

    def since(self, before: ServerTimes) -> dict[str, float]:
        """Return means since an earlier moment: milliseconds a request, and jets of an execution and a request."""
        requests = self.requests - before.requests
        if requests <= 0:
            return {}
        means = {
            f"{phase} ms": (self.nanoseconds[phase] - before.nanoseconds[phase]) / requests / 1e6
            for phase in self.nanoseconds
        }
        jets = self.jets - before.jets
        executions = max(1, self.executions - before.executions)
        return means | {
            "requests": requests,
            "jets a request": jets / requests,
            "jets an execution": jets / executions,
        }


def server_times(server: TritonServer, model: str) -> ServerTimes:
    """Read a model's statistics."""
    with urllib.request.urlopen(f"{server.http}/v2/models/{model}/stats", timeout=5) as answer:  # noqa: S310
        (found,) = json.load(answer)["model_stats"]
    times = found["inference_stats"]
    phases = ("queue", "compute_input", "compute_infer", "compute_output")
    return ServerTimes(
        times["success"]["count"],
        found["execution_count"],
        found["inference_count"],
        {phase: times[phase]["ns"] for phase in phases},
    )


def server_cpu(pid: int) -> dict[str, float]:
    """Return the seconds of processor time of Triton, and of its models' processes together."""
    triton = psutil.Process(pid)
    spent = {"triton": sum(triton.cpu_times()[:2]), "models": 0.0}
    for child in triton.children(recursive=True):
        try:
            spent["models"] += sum(child.cpu_times()[:2])
        except psutil.Error:  # it has just ended
            continue
    return spent
