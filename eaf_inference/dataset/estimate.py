"""Before a run: what it will take, from a sample of a few chunks. See `Connection.estimate`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.dataset.begin import task_at
from eaf_inference.dataset.extrapolation import Quantity, makespan, total
from eaf_inference.dataset.fileset import files_of
from eaf_inference.dataset.forecast import Estimate
from eaf_inference.dataset.options import Options
from eaf_inference.dataset.population import population_of
from eaf_inference.dataset.sampler import Sampler, Sampling
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.compute_time import ComputeTime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from eaf_inference.dataset.failures import Failures
    from eaf_inference.dataset.place import Place
    from eaf_inference.dataset.population import Chunk, Population
    from eaf_inference.dataset.sampler import Measured
    from eaf_inference.inference.model import Model
    from eaf_inference.inference.transport import Channel

__all__ = ["estimate"]

_TIMEOUT = 10.0  # seconds for a reading of the server's counters …
_READ_EVERY = 1.0  # … and between two of them
_IN_FLIGHT = 3  # chunks for each thread: enough that none waits, and few that are still to come at the end
_CACHED = 0.05  # of the requests
_CHECKS = 10  # requests to each replica for a chunk that check whether the model is still the same, at most
_FEW = 12  # chunks for each thread; with fewer it matters that the last ones run beside no others
_ALONE = 3  # chunks that are measured so
_LISTED = 5  # bad files, or reasons why files cannot be read, that are shown


def estimate(
    place: Callable[[], Place],
    model: Model,
    chunks: Any,
    channels: Sequence[Channel],
    *,
    select: Callable[[Any], Any] | None = None,
    schema: Any = None,
    progress: bool | None = None,
) -> Estimate:
    """Estimate what a run over a data set takes; see `Connection.estimate`.

    Parameters
    ----------
    place : callable
        Returns where to score the sample.
    channels : sequence of Channel
        The replicas, which are asked how long they compute.
    """
    if isinstance(chunks, Iterator):
        raise InvalidInput(
            "The chunks are an iterator, which the estimate would use up. Expected a list or a fileset, so that the "
            "run can go through them again."
        )
    found = list(files_of(chunks))
    if not found:
        raise InvalidInput("The data set is empty. Expected at least one file or array.")
    began = time.monotonic()
    where = place()
    try:
        threads = max(where.threads(), 1)
        task = task_at(where, model, select=select, schema=schema)
        population = population_of(found, model, select, schema=schema, most_bytes=task.most_bytes)
        compute = ComputeTime(channels, model.spec, timeout=_TIMEOUT)
        sampler = Sampler(population.chunks, threads)
    except BaseException:
        where.close()
        raise
    options = Options(on_error="skip", progress=progress, in_flight=max(_IN_FLIGHT * threads, 8))
    run = Sampling(where, task, sampler.groups(), options)
    warm = _measure(run, sampler, compute)
    failed = run.failed
    if not sampler.measured and failed:
        raise failed[0].error
    timed = sampler.timed()
    population = population.without({each.part.number for each in failed})
    work, cost = _total(timed, "seconds", population)
    speedup = float(threads)
    if threads > 1 and sampler.left and population.totals.parts.value < _FEW * threads:
        alone = Sampling(where.again(), task, sampler.few(_ALONE), replace(options, in_flight=1))
        before = len(sampler.measured)
        _measure(alone, sampler, compute)
        speedup = _speedup(sampler.measured[before:], cost, threads)
    requests, _ = _total(timed, "requests", population)
    per_request = compute.per_request(
        sum(each.requests for each in sampler.measured),
        checks=_CHECKS * len(channels) * len(sampler.measured),
        since=warm,
    )
    remarks = [*_remarks(population, failed, compute)]
    if per_request is not None and per_request.shared:
        remarks.append("Others use the model now: the server compute time is that of an average request of all.")
    if per_request is not None and per_request.cached > _CACHED:
        remarks.append(
            f"The server answered {per_request.cached:.0%} of the requests from its cache, as it has seen these "
            "chunks before. The run takes longer if it has not seen the others."
        )
    if where.threads() != threads:
        remarks.append(f"There are {where.threads():,} threads now, not {threads:,}: estimate again for their time.")
    return Estimate(
        model=model.name,
        files=population.files,
        chunks=round(population.totals.parts.value),
        events=population.totals.entries,
        jets=_total(sampler.measured, "jets", population)[0],
        requests=requests,
        bytes_to_read=population.totals.stored,
        bytes_to_send=_total(sampler.measured, "sent", population)[0],
        seconds=_seconds(work, cost, population, threads, speedup).times(1 / sampler.busy()),
        compute_seconds=requests.times(per_request.seconds, per_request.error) if per_request else None,
        device=per_request.device if per_request else "",
        threads=threads,
        sampled=len(sampler.measured),
        share=sampler.covered,
        took=time.monotonic() - began,
        remarks=tuple(remarks),
    )


def _measure(run: Sampling, sampler: Sampler, compute: ComputeTime) -> int:
    """Score a sample, and return the number of the first reading of the counters when all was warm."""
    compute.read()
    read_at, warm = time.monotonic(), 0
    with run:
        for result in run.as_completed():
            sampler.add(result.part, run.scored)
            if time.monotonic() - read_at >= _READ_EVERY:
                compute.read()
                read_at = time.monotonic()
                if sampler.warm_at is None:
                    warm = compute.readings
    compute.read()
    return warm


def _columns(chunks: Sequence[Measured] | Sequence[Chunk]) -> NDArray[np.float64]:
    """Return what a number may depend on: that there is a chunk, its entries and its size."""
    return np.array([[1.0, chunk.entries, chunk.size] for chunk in chunks])


def _total(measured: Sequence[Measured], name: str, population: Population) -> tuple[Quantity, NDArray[np.float64]]:
    """Return the total of a number over the data set, and what it is for a chunk, an entry and a byte."""
    if not measured:
        return Quantity(0.0), np.zeros(3)
    everything = len({each.file for each in measured}) >= population.files
    ends = [population.totals.parts, population.totals.entries, population.totals.size]
    repeats = name in ("jets", "sent")  # and is 0 for an empty chunk; the run has other times than the sample
    # what a chunk costs besides its content shows in whole ones, as threads share the server while one prepares
    whole = 2 * sum(each.whole for each in measured) > len(measured)
    used = slice(1 if repeats or not whole else 0, 3)
    quantity, found = total(
        _columns(measured)[:, used],
        [getattr(each, name) for each in measured],
        [end.value for end in ends[used]],
        np.arange(len(measured)) if everything else [each.file for each in measured],
        [repeats and each.whole for each in measured],
    )
    cost = np.zeros(3)
    cost[used] = found
    unknown = [float(factor) * end.error for factor, end in zip(cost, ends, strict=True)]
    if not repeats:
        unknown.append(_drift(measured, name, quantity))
    return Quantity(quantity.value, math.hypot(quantity.error, *unknown)), cost


def _drift(measured: Sequence[Measured], name: str, quantity: Quantity) -> float:
    """Return the error of a total because its number changed while the sample ran, beyond the known error."""
    halves = measured[: len(measured) // 2], measured[len(measured) // 2 :]
    first, second = (
        sum(getattr(each, name) for each in half) / max(sum(each.size for each in half), 1.0) for half in halves
    )
    change = quantity.value * abs(first - second) / (first + second) if first and second else 0.0
    return math.sqrt(max(change**2 - quantity.error**2, 0.0))


def _speedup(alone: Sequence[Measured], cost: NDArray[np.float64], threads: int) -> float:
    """Return how much more all threads do together than one."""
    together = float((_columns(alone) @ cost).sum())
    seconds = sum(each.seconds for each in alone)
    return min(max(threads * seconds / together, 1.0), float(threads)) if together > 0 else float(threads)


def _seconds(
    work: Quantity, cost: NDArray[np.float64], population: Population, threads: int, speedup: float
) -> Quantity:
    """Return the time of a run whose chunks take the threads so much time when all are busy."""
    if population.totals.parts.value >= _FEW * threads or not work.value:
        return work.times(1 / threads)
    each = np.maximum(_columns(population.chunks) @ cost, 0.0)
    if not each.any():
        return work.times(1 / threads)
    alone = each * (work.value / each.sum()) * speedup / threads
    return work.times(makespan(alone, threads, speedup) / work.value)


def _remarks(population: Population, failed: Failures, compute: ComputeTime) -> Iterator[str]:
    """Yield what to know besides the numbers."""
    if population.unreadable:
        reasons = Counter(error.reason for error in population.unreadable)
        listed = ", ".join(f"{number:,} × {reason}" for reason, number in reasons.most_common(_LISTED))
        yield f"{len(population.unreadable):,} files cannot be read and are left out: {listed}."
    if failed:
        yield f"{len(failed):,} chunks of the sample cannot be scored, and their files are left out:"
        yield from (f"{each.file}, entries {each.entries}: {each.reason}" for each in failed[:_LISTED])
    if compute.missing:
        yield f"The server compute time is not known: {compute.missing}."
