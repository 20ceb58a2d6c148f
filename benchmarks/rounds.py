"""Measure several clients in turns, each from inside its process and from the server's side.

Machines are noisy. So the clients take turns within each round, in an order that rotates, and ratios are taken within
a round. Reports give the median and the range over the rounds.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from eaf_facility.study.client_process import ClientProcess
from eaf_inference.errors import BadReply, InferenceError
from eaf_inference.inference import protocol
from eaf_inference.inference.direct import ask_triton
from eaf_inference.inference.pipeline import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_facility.servers.triton import TritonServer
    from eaf_facility.study.client_main import RoundResult
    from eaf_facility.study.clients import Entry, Job
    from eaf_facility.study.workloads import Workload

__all__ = ["METRICS", "Measurement", "Result", "Spread", "take_turns"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the range of some values."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def __str__(self) -> str:
        if self.least == self.most:
            return _number(self.median)
        return f"{_number(self.median)} ({_number(self.least)}–{_number(self.most)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One round of one client.

    Attributes
    ----------
    client : RoundResult
        What the client's process measured.
    served : float
        Inferences that the server counted, including rows that a client added to fill a batch.
    server_cpu : float
        Processor seconds of Triton and its child processes.
    """

    client: RoundResult
    served: float
    server_cpu: float

    @property
    def jets(self) -> float:
        return self.client.jets if self.client.jets is not None else self.served


# Column of the table → its value for a round, or None if it cannot be known.
METRICS: dict[str, Callable[[Measurement], float | None]] = {
    "jets/s": lambda each: each.client.inferences_per_second,
    "client CPU µs/jet": lambda each: each.client.cpu / each.jets * 1e6 if each.jets else None,
    "server CPU µs/jet": lambda each: each.server_cpu / each.jets * 1e6 if each.served and each.jets else None,
    "bytes/jet": lambda each: each.client.nbytes / each.jets if each.client.nbytes else None,
    "peak RSS MB": lambda each: each.client.peak_memory / 1e6,
    "p50 ms": lambda each: None if each.client.p50 is None else each.client.p50 * 1e3,
    "p99 ms": lambda each: None if each.client.p99 is None else each.client.p99 * 1e3,
    "first result ms": lambda each: None if each.client.first is None else each.client.first * 1e3,
    "largest difference": lambda each: each.client.difference,
}


@dataclass(slots=True)
class Result:
    """All rounds of one entry on one workload, and why it failed, if it did."""

    workload: str
    entry: Entry
    measurements: list[Measurement] = field(default_factory=list)
    failure: str = ""

    def values(self, metric: str) -> list[float | None]:
        return [METRICS[metric](each) for each in self.measurements]

    def spread(self, metric: str) -> Spread | None:
        return Spread.of([value for value in self.values(metric) if value is not None])


def take_turns(
    workload: Workload,
    entries: Sequence[Entry],
    rounds: int,
    job: Callable[[Entry], Job],
    server: TritonServer,
    progress: Callable[[str], None],
) -> Iterator[list[Result]]:
    """Measure all entries and yield the results, which are updated in place, after each turn.

    A client that fails drops out with its error; a wrong score raises `BadReply`.
    """
    results = [Result(workload.key, entry) for entry in entries]
    with ExitStack() as stack:
        running: dict[int, ClientProcess] = {}
        for number, result in enumerate(results):
            progress(f"{workload.key}: starting {result.entry.label}")
            try:
                process = stack.enter_context(ClientProcess(job(result.entry)))
                process.wait_until_ready()
                running[number] = process
            except BadReply:
                raise
            except InferenceError as error:
                result.failure = str(error)
        for turn in range(rounds):
            for number in _rotated(sorted(running), turn):
                result = results[number]
                progress(f"{workload.key}, round {turn + 1} of {rounds}: {result.entry.label}")
                cpu, served = _processor_seconds(server.pid), _inferences(server, workload.model)
                try:
                    client = running[number].round()
                except BadReply:
                    raise
                except InferenceError as error:
                    result.failure = str(error)
                    del running[number]
                    continue
                served = _inferences(server, workload.model) - served
                cpu = _processor_seconds(server.pid) - cpu
                result.measurements.append(Measurement(client, served, cpu))
                yield results
    yield results


def _rotated(numbers: list[int], turn: int) -> list[int]:
    first = turn % max(len(numbers), 1)
    return numbers[first:] + numbers[:first]


def _processor_seconds(pid: int) -> float:
    """Return the processor time of a process and its descendants."""
    process = psutil.Process(pid)
    return float(sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True))))


def _inferences(server: TritonServer, model: str) -> float:
    """Return the number of inferences of a model since this Triton started."""
    question = Question("ModelStatistics", protocol.ModelStatisticsRequest(name=model))
    [statistics] = ask_triton(server.grpc, question)
    return float(sum(each.inference_count for each in statistics.model_stats))
