"""Run the benchmark: start the servers, measure the workloads and our own figures, keep the results on Ctrl-C."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import measurements
from benchmarks.clients import PERF_ANALYZER
from benchmarks.network import simulated_network
from benchmarks.perf_analyzer import perf_analyzer
from benchmarks.plan import ENTRIES
from benchmarks.rounds import Result, take_turns
from benchmarks.workloads import ACCELERATOR, WORKLOADS
from benchmarks.zero_cost import write_zero_cost
from eaf_facility.servers.triton import MODELS, TritonServer
from eaf_facility.study import particlenet
from eaf_facility.study.client_packages import client_packages
from eaf_facility.study.clients import Job
from eaf_facility.study.machine import machine, software
from eaf_facility.study.workloads import prepare
from eaf_inference.errors import BadReply, ConfigurationError, InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eaf_facility.study.clients import Entry
    from eaf_facility.study.workloads import Workload

__all__ = ["Outcome", "bench"]

_MEMORY_JETS = 1_000_000


@dataclass(slots=True)
class Outcome:
    """The results, complete or until an interrupt.

    Attributes
    ----------
    figures : dict
        Name → its value in each round.
    remarks : list
        What could not be measured, and why.
    interrupted : bool
    """

    machine: dict[str, str]
    software: dict[str, str]
    share: float
    rounds: int
    results: list[Result] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    interrupted: bool = False


def bench(
    *,
    workloads: Sequence[str] = (*WORKLOADS,),
    figures: Sequence[str] = (*measurements.FIGURES,),
    rounds: int = 3,
    share: float = 1.0,
    progress: Callable[[str], None],
) -> Outcome:
    """Measure all clients on a Triton that is started for it.

    Parameters
    ----------
    workloads, figures : sequence of str
        Some of `WORKLOADS`, and some of `measurements.FIGURES`, which are of this client alone.
    rounds : int
        Turns of each client.
    share : float
        Fraction of a full run's jets, in (0, 1].
    progress : callable
        Called with a short message at each step.

    Returns
    -------
    Outcome
        After an interrupt, the results until then.

    Raises
    ------
    BadReply
        A score is wrong, which makes all measurements worthless.
    ConfigurationError
        A name, the number of rounds or the share is invalid.
    """
    unknown = [name for name in workloads if name not in WORKLOADS] + [
        name for name in figures if name not in measurements.FIGURES
    ]
    if unknown:
        known = ", ".join((*WORKLOADS, *measurements.FIGURES))
        raise ConfigurationError(f"The benchmark has no {', '.join(unknown)}. Expected some of {known}.")
    if rounds < 1 or not 0 < share <= 1:
        raise ConfigurationError(
            f"Cannot run {rounds} rounds with a share of {share:g} of the jets. Expected at least one round and a "
            "share above 0 and up to 1."
        )
    outcome = Outcome(machine(), software(), share, rounds)
    try:
        _fetch_programs(workloads, outcome, progress)
        with tempfile.TemporaryDirectory(prefix="eaf-inference-bench-") as directory:
            _measure(Path(directory), workloads, figures, outcome, progress)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def _fetch_programs(workloads: Sequence[str], outcome: Outcome, progress: Callable[[str], None]) -> None:
    if not workloads:
        return
    for fetch in (client_packages, perf_analyzer):
        try:
            fetch(progress=progress)
        except ConfigurationError as error:
            outcome.remarks.append(str(error))


def _measure(
    directory: Path,
    workloads: Sequence[str],
    figures: Sequence[str],
    outcome: Outcome,
    progress: Callable[[str], None],
) -> None:
    repository = directory / "models"
    repository.mkdir()
    write_zero_cost(repository)
    ACCELERATOR.write(repository)
    files = {
        "particlenet": MODELS / "particlenet" / "1" / "model.onnx",
        particlenet.NAME: particlenet.write_particlenet(repository),
    }
    with TritonServer.start([MODELS, repository], progress=progress) as server:
        for key in workloads:
            _run(WORKLOADS[key], files.get(WORKLOADS[key].model), directory, server, outcome, progress)
        _measure_figures(figures, server, outcome, progress)


def _run(
    workload: Workload,
    file: Path | None,
    directory: Path,
    server: TritonServer,
    outcome: Outcome,
    progress: Callable[[str], None],
) -> None:
    # whole chunks: a client that fills up its last batch must not pay for an odd share
    jets = workload.chunk * max(1, round(workload.jets * outcome.share / workload.chunk))
    if file is not None:
        progress(f"{workload.key}: computing the expected scores with local ONNX Runtime")
        prepare(workload, jets, file, directory)
    url = server.grpc
    with ExitStack() as stack:
        if workload.delay is not None:
            network = simulated_network(url.partition("://")[2], workload.delay, progress=progress)
            url = stack.enter_context(network)

        def job(entry: Entry) -> Job:
            job = Job(workload, jets, entry, url, str(file) if file else None, str(directory))
            # the full-size network is slow, and perf_analyzer warms up by itself
            starts_cold = workload.source == "particlenet" or entry.name == PERF_ANALYZER.name
            return replace(job, warm=0) if starts_cold else job

        turns = take_turns(workload, ENTRIES[workload.key], outcome.rounds, job, server, progress)
        before = len(outcome.results)
        for results in turns:
            outcome.results[before:] = results
    for result in outcome.results[before:]:
        if result.failure:
            outcome.remarks.append(f"{workload.key}, {result.entry.label}: {result.failure}")


def _measure_figures(
    names: Sequence[str], server: TritonServer, outcome: Outcome, progress: Callable[[str], None]
) -> None:
    where = measurements.Where(server.grpc, server.metrics, round(_MEMORY_JETS * outcome.share))
    for turn in range(outcome.rounds):
        for name in names:
            progress(f"{name}, round {turn + 1} of {outcome.rounds}")
            try:
                measured = measurements.measure(name, where)
            except BadReply:
                raise
            except InferenceError as error:
                outcome.remarks.append(str(error))
                continue
            for figure, value in measured.items():
                outcome.figures.setdefault(figure, []).append(value)
