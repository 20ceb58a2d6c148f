"""A contender in a process of its own, so that its processor time and memory are its alone.

Run as ``python -m eaf_inference.bench.contestant``: the first line of standard input says what to be, each further
one asks for a round; each answer is a line of JSON. It ends with its standard input.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from eaf_inference.bench.contenders import Contender, Entry, Notes, Service, make
from eaf_inference.bench.workloads import TOLERANCE, WORKLOADS, Data, Workload
from eaf_inference.errors import BadReply, InferenceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Job", "Seen", "main"]


@dataclass(frozen=True, slots=True)
class Job:
    """What a contestant measures, and how.

    Attributes
    ----------
    warm : int
        Jets before the first round: connections, thread pools, the padding check; 0 for none.
    chunk : int or None
        Jets that it gets at a time, where not as many as the workload says.
    """

    workload: str
    jets: int
    entry: Entry
    url: str
    file: str | None
    directory: str
    warm: int = 512
    chunk: int | None = None

    def as_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, line: str) -> Job:
        told = json.loads(line)
        return cls(**{**told, "entry": Entry(**told["entry"])})


@dataclass(frozen=True, slots=True)
class Seen:
    """What a contestant saw of one round; seconds and bytes.

    Attributes
    ----------
    jets : int or None
        Those scored; None where only the server knows.
    difference : float or None
        The largest to the right scores; None where the contender reads none.
    points : list of (int, float)
        After each chunk: jets so far, and seconds since the beginning.
    """

    jets: int | None
    seconds: float
    cpu: float
    peak_memory: int
    nbytes: int
    first: float | None
    p50: float | None
    p99: float | None
    difference: float | None
    jets_per_second: float
    points: list[tuple[int, float]] = field(default_factory=list)


def round_of(contender: Contender, data: Data) -> Seen:
    """Run once through all jets; raises `BadReply` where a score is wrong."""
    notes = Notes()
    gc.collect()
    cpu, began = _cpu(), time.monotonic()
    scores: list[NDArray[Any]] = []
    points: list[tuple[int, float]] = []
    for part in contender.run(data, notes) or ():
        scores.append(np.asarray(part))
        points.append(((points[-1][0] if points else 0) + len(scores[-1]), time.monotonic() - began))
    seconds, cpu = time.monotonic() - began, _cpu() - cpu
    checked = _difference(scores, data) if scores else None
    latencies = notes.latencies
    jets = points[-1][0] if points else None
    return Seen(
        jets=jets,
        seconds=seconds,
        cpu=cpu,
        peak_memory=max(resource.getrusage(who).ru_maxrss for who in _ALL) * 1024,
        nbytes=notes.nbytes,
        first=points[0][1] if points else None,
        p50=float(np.percentile(latencies, 50)) if latencies else notes.known.get("p50"),
        p99=float(np.percentile(latencies, 99)) if latencies else notes.known.get("p99"),
        difference=checked,
        jets_per_second=notes.known.get("jets_per_second") or (jets or 0) / seconds,
        points=points,
    )


_ALL = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, _ALL))


def _difference(scores: list[NDArray[Any]], data: Data) -> float:
    largest = 0.0
    for given, chunk in zip(scores, data.chunks(), strict=True):
        if given.shape != chunk.right.shape:
            raise BadReply(f"{len(chunk)} jets gave scores of shape {given.shape}. Expected {chunk.right.shape}.")
        largest = max(largest, float(np.abs(given - chunk.right).max()))
    if not largest <= TOLERANCE:
        raise BadReply(f"A score is wrong by {largest:.2g}. At most {TOLERANCE:g} is allowed for rounding.")
    return largest


def _ready(job: Job) -> tuple[Contender, Data]:
    workload: Workload = WORKLOADS[job.workload]
    workload = replace(workload, chunk=job.chunk or workload.chunk)
    directory = Path(job.directory)
    contender = make(Service(job.url, Path(job.file) if job.file else None), workload, job.entry)
    data = Data(workload, job.jets, directory)
    if job.warm and job.entry.name != "perf_analyzer (C++)":
        round_of(contender, Data(workload, min(job.jets, job.warm), directory))
    return contender, data


def main(asked: IO[str], answers: IO[str]) -> None:
    """Answer until nobody asks any more."""

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        contender, data = _ready(Job.read(asked.readline()))
        say({"ready": True})
        for _ in asked:
            say(asdict(round_of(contender, data)))
    except InferenceError as error:
        say({"error": str(error), "wrong": isinstance(error, BadReply)})
    except Exception as error:  # noqa: BLE001  (a contender's own: it is the table's to say)
        say({"error": f"{type(error).__name__}: {error}", "wrong": False})


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for who started it, and ends its standard input
    spoken = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    main(sys.stdin, spoken)
