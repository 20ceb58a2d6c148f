"""NVIDIA's perf_analyzer: what a C++ client reaches that sends one buffer again and again and reads no score."""

from __future__ import annotations

import csv
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.bench.models import CONSTITUENTS
from eaf_inference.bench.programs import perf_analyzer
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from eaf_inference.bench.contenders import Entry, Notes, Service
    from eaf_inference.bench.workloads import Data, Workload

__all__ = ["Contestant"]

_WINDOW = 2000  # ms that it measures at a time
_WINDOWS = 3  # of which it takes the mean
_ANYTHING = 1000  # % by which they may differ: the spread among rounds is ours to show
_CHANNELS = {"particlenet": {"points": 2, "features": 5, "mask": 1}, "jets": {"points": 2, "features": 7, "mask": 1}}


class Contestant:
    """perf_analyzer with one size of its batches and one number of requests in flight."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None:
        self._program = perf_analyzer()
        self._workload, self._batch = workload, entry.batch or 1
        self._command = [
            *(str(self._program.path), "-m", workload.model, "-i", "grpc", "-u", service.address),
            *("-b", str(self._batch), "--concurrency-range", str(entry.in_flight or 1)),
            *("-p", str(_WINDOW), "-r", str(_WINDOWS), "-s", str(_ANYTHING), "--percentile", "99"),
        ]

    def run(self, data: Data, notes: Notes) -> None:
        channels = _CHANNELS.get(self._workload.source, {})
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
        notes.known = {
            "jets_per_second": float(row["Inferences/Second"]),
            "p50": float(row["p50 latency"]) / 1e6,
            "p99": float(row["p99 latency"]) / 1e6,
        }
