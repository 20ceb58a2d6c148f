"""Rounds of all contenders in turn, each watched from outside as well as from inside, and what they come to.

These machines are noisy: contenders take turns within a round, whose order is turned each time, and a ratio is taken
within each round. What is told of several rounds is the median and the range.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

from eaf_inference.bench.contenders import WITH_TRITONCLIENT
from eaf_inference.bench.contestant import Job, Seen
from eaf_inference.bench.programs import contender_packages
from eaf_inference.errors import BadReply, InferenceError
from eaf_inference.facility.calls import ask_triton
from eaf_inference.inference import protocol
from eaf_inference.inference.pipeline import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from eaf_inference.bench.contenders import Entry
    from eaf_inference.bench.workloads import Workload
    from eaf_inference.facility.triton import TritonServer

__all__ = ["Contestant", "Measure", "Result", "Spread", "processor_seconds", "take_turns"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and between which they lie."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def __str__(self) -> str:
        if self.least == self.most:
            return _plain(self.median)
        return f"{_plain(self.median)} ({_plain(self.least)}–{_plain(self.most)})"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Measure:
    """One round of one contender: what it saw, and what its server took meanwhile.

    Attributes
    ----------
    seen : Seen
    served : float
        Inferences that the server counted: rows that were made up to fill a batch are among them.
    server_cpu : float
        Processor seconds of Triton with all its processes.
    """

    seen: Seen
    served: float
    server_cpu: float

    @property
    def jets(self) -> float:
        return self.seen.jets if self.seen.jets is not None else self.served


# Reported figures: how a table calls it, and how it follows from a measure; None where that cannot be told.
FIGURES: dict[str, Callable[[Measure], float | None]] = {
    "jets/s": lambda each: each.seen.jets_per_second,
    "client CPU µs/jet": lambda each: each.seen.cpu / each.jets * 1e6 if each.jets else None,
    "server CPU µs/jet": lambda each: each.server_cpu / each.jets * 1e6 if each.served and each.jets else None,
    "bytes/jet": lambda each: each.seen.nbytes / each.jets if each.seen.nbytes else None,
    "peak RSS MB": lambda each: each.seen.peak_memory / 1e6,
    "p50 ms": lambda each: None if each.seen.p50 is None else each.seen.p50 * 1e3,
    "p99 ms": lambda each: None if each.seen.p99 is None else each.seen.p99 * 1e3,
    "first result ms": lambda each: None if each.seen.first is None else each.seen.first * 1e3,
    "largest difference": lambda each: each.seen.difference,
}


@dataclass(slots=True)
class Result:
    """All rounds of one contender on one workload, or why there are none (any more)."""

    workload: str
    entry: Entry
    measures: list[Measure] = field(default_factory=list)
    failure: str = ""

    def values(self, figure: str) -> list[float | None]:
        return [FIGURES[figure](measure) for measure in self.measures]

    def spread(self, figure: str) -> Spread | None:
        return Spread.of([value for value in self.values(figure) if value is not None])


class Contestant:
    """The process of one contender, for the length of a `with` block."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eaf_inference.bench.contestant"],
            env=_environment(job.entry),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )

    def __enter__(self) -> Contestant:
        self._say(self._job.as_line())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Return when it has its library, its jets and its connection."""
        self._answer()

    def round(self) -> Seen:
        """Run once through all jets.

        Raises
        ------
        BadReply
            A score is wrong: that ends the whole benchmark.
        InferenceError
            The contender failed.
        """
        self._say("round")
        return Seen(**self._answer())

    def _say(self, line: str) -> None:
        assert self._process.stdin  # noqa: S101  (asked for above)
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise InferenceError(f"{self._job.entry.label} has ended.") from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise InferenceError(f"{self._job.entry.label} died (exit code {self._process.wait()}).")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = BadReply if answer["wrong"] else InferenceError
            raise kind(f"{self._job.entry.label} on workload {self._job.workload}: {answer['error']}")
        return answer


def _environment(entry: Entry) -> dict[str, str]:
    """What a contender's process sees: tritonclient only where it needs it."""
    if entry.name not in WITH_TRITONCLIENT:
        return dict(os.environ)
    paths = [str(contender_packages()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def processor_seconds(pid: int) -> float:
    """Of a process and everything below it."""
    process = psutil.Process(pid)
    return float(sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True))))


def inferences(server: TritonServer, model: str) -> float:
    """Those that this Triton has counted of a model since it was started."""
    question = Question("ModelStatistics", protocol.ModelStatisticsRequest(name=model))
    [counted] = ask_triton(server.grpc, question)
    return float(sum(each.inference_count for each in counted.model_stats))


def take_turns(
    workload: Workload,
    entries: Sequence[Entry],
    rounds: int,
    job: Callable[[Entry], Job],
    server: TritonServer,
    progress: Callable[[str], None],
) -> Iterator[list[Result]]:
    """Measure; gives the results, which grow in place, after each contender's turn.

    A contender that fails drops out with its reason; a wrong score ends it all.
    """
    results = [Result(workload.key, entry) for entry in entries]
    with ExitStack() as stack:
        running: dict[int, Contestant] = {}
        for number, result in enumerate(results):
            progress(f"{workload.key}: {result.entry.label} gets ready")
            try:
                contestant = stack.enter_context(Contestant(job(result.entry)))
                contestant.wait_until_ready()
                running[number] = contestant
            except BadReply:
                raise
            except InferenceError as error:
                result.failure = str(error)
        for turn in range(rounds):
            order = sorted(running)
            for number in order[turn % len(order) :] + order[: turn % len(order)] if order else []:
                result = results[number]
                progress(f"{workload.key}, round {turn + 1} of {rounds}: {result.entry.label}")
                cpu, served = processor_seconds(server.pid), inferences(server, workload.model)
                try:
                    seen = running[number].round()
                except BadReply:
                    raise
                except InferenceError as error:
                    result.failure = str(error)
                    del running[number]
                    continue
                served = inferences(server, workload.model) - served
                cpu = processor_seconds(server.pid) - cpu
                result.measures.append(Measure(seen, served, cpu))
                yield results
    yield results
