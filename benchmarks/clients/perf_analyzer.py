"""NVIDIA's perf_analyzer: the rate of a C++ client that sends the same buffer repeatedly and reads no scores."""

from __future__ import annotations

import csv
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.perf_analyzer import perf_analyzer
from eaf_facility.study.accelerator import CONSTITUENTS
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from eaf_facility.study.clients import Job, RequestLog
    from eaf_facility.study.workloads import Data

__all__ = ["Client"]

_WINDOW = 2000  # ms of one measurement
_WINDOWS = 3  # measurements, of which it reports the mean
_STABILITY = 1000  # % by which they may differ: our report shows the spread among rounds
_CHANNELS = {"particlenet": {"points": 2, "features": 5, "mask": 1}, "jets": {"points": 2, "features": 7, "mask": 1}}


class Client:
    """perf_analyzer with one batch size and one number of requests in flight."""

    def __init__(self, job: Job) -> None:
        self._program = perf_analyzer()
        self._source = job.workload.source
        self._command = [
            *(str(self._program.path), "-m", job.workload.model, "-i", "grpc", "-u", job.address),
            *("-b", str(job.entry.batch or 1), "--concurrency-range", str(job.entry.in_flight or 1)),
            *("-p", str(_WINDOW), "-r", str(_WINDOWS), "-s", str(_STABILITY), "--percentile", "99"),
        ]

    def run(self, data: Data, log: RequestLog) -> None:
        channels = _CHANNELS.get(self._source, {})
        length = data.recipe.max_length if data.recipe else CONSTITUENTS
        shapes = [f"--shape={name}:{width},{length}" for name, width in channels.items()]
        with tempfile.TemporaryDirectory() as directory:
            report = Path(directory) / "report.csv"
            done = subprocess.run(
                [*self._command, *shapes, "-f", str(report)],
                env=self._program.environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
            if done.returncode or not report.exists():
                last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
                raise InferenceError(f"perf_analyzer failed: {last[0] if last else f'exit code {done.returncode}'}")
            with report.open(encoding="utf-8") as file:
                row = next(csv.DictReader(file))
        log.reported = {
            "inferences_per_second": float(row["Inferences/Second"]),
            "p50": float(row["p50 latency"]) / 1e6,
            "p99": float(row["p99 latency"]) / 1e6,
        }
