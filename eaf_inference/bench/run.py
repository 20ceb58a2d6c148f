"""The benchmark from beginning to end: servers, workloads, figures; what was measured survives an interrupt."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.bench import figures, programs
from eaf_inference.bench.contestant import Job
from eaf_inference.bench.machine import machine, software
from eaf_inference.bench.measuring import Result, take_turns
from eaf_inference.bench.models import write_full_particlenet, write_zero_cost
from eaf_inference.bench.network import simulated_network
from eaf_inference.bench.plan import ENTRIES
from eaf_inference.bench.workloads import ACCELERATOR, WORKLOADS, prepare
from eaf_inference.errors import BadReply, ConfigurationError, InferenceError
from eaf_inference.facility.triton import MODELS, TritonServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eaf_inference.bench.contenders import Entry
    from eaf_inference.bench.workloads import Workload

__all__ = ["Outcome", "bench"]

_MEMORY_JETS = 1_000_000


@dataclass(slots=True)
class Outcome:
    """All that was measured, so far or in all.

    Attributes
    ----------
    figures : dict
        Name → the value of each round.
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
    alone: Sequence[str] = (*figures.FIGURES,),
    rounds: int = 3,
    share: float = 1.0,
    progress: Callable[[str], None],
) -> Outcome:
    """Measure all contenders side by side on a Triton of its own.

    Parameters
    ----------
    workloads, alone : sequence of str
        Which of `WORKLOADS`, and which of the figures that need no contender.
    rounds : int
        Turns of each contender.
    share : float
        Share of a full run's jets.
    progress : callable
        Called with a short line whenever something else begins.

    Returns
    -------
    Outcome
        After an interrupt, what was measured until then.

    Raises
    ------
    BadReply
        A score was wrong: nothing that was measured is worth anything then.
    """
    unknown = [name for name in workloads if name not in WORKLOADS] + [
        name for name in alone if name not in figures.FIGURES
    ]
    if unknown:
        known = ", ".join((*WORKLOADS, *figures.FIGURES))
        raise ConfigurationError(f"The benchmark has no {', '.join(unknown)}. Expected some of {known}.")
    if rounds < 1 or not 0 < share <= 1:
        raise ConfigurationError(f"{rounds} rounds of {share:g} of the jets cannot be run: at least 1, and 0 to 1.")
    outcome = Outcome(machine(), software(), share, rounds)
    try:
        _fetch_programs(workloads, outcome, progress)
        with tempfile.TemporaryDirectory(prefix="eaf-inference-bench-") as directory:
            _measure(Path(directory), workloads, alone, outcome, progress)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def _fetch_programs(workloads: Sequence[str], outcome: Outcome, progress: Callable[[str], None]) -> None:
    if not workloads:
        return
    for fetch in (programs.contender_packages, programs.perf_analyzer):
        try:
            fetch(progress=progress)
        except ConfigurationError as error:
            outcome.remarks.append(str(error))


def _measure(
    directory: Path,
    workloads: Sequence[str],
    alone: Sequence[str],
    outcome: Outcome,
    progress: Callable[[str], None],
) -> None:
    repository = directory / "models"
    repository.mkdir()
    write_zero_cost(repository)
    ACCELERATOR.write(repository)
    files = {
        "particlenet": MODELS / "particlenet" / "1" / "model.onnx",
        "particlenet_full": write_full_particlenet(repository),
    }
    with TritonServer.start([MODELS, repository], progress=progress) as server:
        for key in workloads:
            _run(WORKLOADS[key], files.get(WORKLOADS[key].model), directory, server, outcome, progress)
        _measure_alone(alone, server, outcome, progress)


def _run(
    workload: Workload,
    file: Path | None,
    directory: Path,
    server: TritonServer,
    outcome: Outcome,
    progress: Callable[[str], None],
) -> None:
    # whole chunks: who fills its last batch up with made-up rows must not pay for how a share is cut
    jets = workload.chunk * max(1, round(workload.jets * outcome.share / workload.chunk))
    if file is not None:
        progress(f"{workload.key}: the right scores, by local ONNX Runtime")
        prepare(workload, jets, file, directory)
    url = server.grpc
    with ExitStack() as stack:
        if workload.delay is not None:
            network = simulated_network(url.partition("://")[2], workload.delay, progress=progress)
            url = stack.enter_context(network)

        def job(entry: Entry) -> Job:
            job = Job(workload.key, jets, entry, url, str(file) if file else None, str(directory))
            return replace(job, warm=0) if workload.source == "particlenet" else job  # that network takes its time

        turns = take_turns(workload, ENTRIES[workload.key], outcome.rounds, job, server, progress)
        before = len(outcome.results)
        for results in turns:
            outcome.results[before:] = results
    for result in outcome.results[before:]:
        if result.failure:
            outcome.remarks.append(f"{workload.key}, {result.entry.label}: {result.failure}")


def _measure_alone(
    names: Sequence[str], server: TritonServer, outcome: Outcome, progress: Callable[[str], None]
) -> None:
    where = figures.Where(server.grpc, server.metrics, round(_MEMORY_JETS * outcome.share))
    for turn in range(outcome.rounds):
        for name in names:
            progress(f"{name}, round {turn + 1} of {outcome.rounds}")
            try:
                measured = figures.measure(name, where)
            except BadReply:
                raise
            except InferenceError as error:
                outcome.remarks.append(str(error))
                continue
            for figure, value in measured.items():
                outcome.figures.setdefault(figure, []).append(value)
