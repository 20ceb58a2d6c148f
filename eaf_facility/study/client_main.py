"""The program of a client's process, which has its processor time and memory to itself.

Run as ``python -m eaf_facility.study.client_main``. The first line of standard input is the `Job` as JSON; each
further line asks for one round. Each answer is one line of JSON. The program ends with its standard input.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from eaf_facility.study.clients import Job, RequestLog, load_client
from eaf_facility.study.workloads import TOLERANCE, Data
from eaf_inference.errors import BadReply, InferenceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eaf_facility.study.clients import Client

__all__ = ["RoundResult", "main"]

_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What a client's process measured in one round, in seconds and bytes.

    Attributes
    ----------
    jets : int or None
        Jets scored; None if only the server knows.
    difference : float or None
        The largest difference from the expected scores; None if the client reads no scores.
    points : list of (int, float)
        After each chunk, the jets scored so far and the seconds since the start.
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
    inferences_per_second: float
    points: list[tuple[int, float]] = field(default_factory=list)


def run_round(client: Client, data: Data) -> RoundResult:
    """Score all jets once; raise `BadReply` if a score is wrong."""
    log = RequestLog()
    gc.collect()
    cpu, began = _cpu(), time.monotonic()
    scores: list[NDArray[Any]] = []
    points: list[tuple[int, float]] = []
    for part in client.run(data, log) or ():
        scores.append(np.asarray(part))
        points.append(((points[-1][0] if points else 0) + len(scores[-1]), time.monotonic() - began))
    seconds, cpu = time.monotonic() - began, _cpu() - cpu
    latencies, reported = log.latencies, log.reported
    jets = points[-1][0] if points else None
    return RoundResult(
        jets=jets,
        seconds=seconds,
        cpu=cpu,
        peak_memory=max(resource.getrusage(who).ru_maxrss for who in _PROCESSES) * 1024,
        nbytes=log.nbytes,
        first=points[0][1] if points else None,
        p50=float(np.percentile(latencies, 50)) if latencies else reported.get("p50"),
        p99=float(np.percentile(latencies, 99)) if latencies else reported.get("p99"),
        difference=_difference(scores, data) if scores else None,
        inferences_per_second=reported.get("inferences_per_second") or (jets or 0) / seconds,
        points=points,
    )


def _cpu() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, _PROCESSES))


def _difference(scores: list[NDArray[Any]], data: Data) -> float:
    largest = 0.0
    for array, chunk in zip(scores, data.chunks(), strict=True):
        if array.shape != chunk.expected.shape:
            raise BadReply(f"{len(chunk)} jets gave scores of shape {array.shape}. Expected {chunk.expected.shape}.")
        largest = max(largest, float(np.abs(array - chunk.expected).max()))
    if not largest <= TOLERANCE:
        raise BadReply(f"A score is wrong by {largest:.2g}. At most {TOLERANCE:g} is allowed for rounding.")
    return largest


def _prepare(job: Job) -> tuple[Client, Data]:
    directory = Path(job.directory)
    client = load_client(job)
    data = Data(job.workload, job.jets, directory)
    if job.warm:
        run_round(client, Data(job.workload, min(job.jets, job.warm), directory))
    return client, data


def main(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until their stream ends."""

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        client, data = _prepare(Job.from_json(requests.readline()))
        answer({"ready": True})
        for _ in requests:
            answer(asdict(run_round(client, data)))
    except InferenceError as error:
        answer({"error": str(error), "wrong": isinstance(error, BadReply)})
    except Exception as error:  # noqa: BLE001  (any library's own error: the table reports it)
        answer({"error": f"{type(error).__name__}: {error}", "wrong": False})


if __name__ == "__main__":
    # Ctrl-C is for the parent process, which then closes this standard input
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps what libraries print out of the answers
    main(sys.stdin, stdout)
