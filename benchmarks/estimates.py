"""Compare estimates with the runs that follow them, for three shapes of data: ``python -m benchmarks.estimates``.

A Triton on this machine with a simulated accelerator, which takes a stated time for each request and cell, scores
jets from parquet files of random numbers: many small files, few large ones, and files whose events and jets differ
by large factors. Each is scored by a local pool of threads and by a Dask cluster.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.accelerator import VALUES, SimulatedAccelerator
from eaf_inference._table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from distributed import Client

    from eaf_inference.dataset.forecast import Estimate
    from eaf_inference.inference.model import Model

ACCELERATOR = SimulatedAccelerator(request=5e-3, cell=4e-6, batch=1024, length=-1)
THREADS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each estimate and the run that follows, and the ratios in a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the data sets' usual size (default: 1)")
    parser.add_argument("--only", default="", help="shapes, separated by commas (default: all)")
    parser.add_argument("--places", default="pool,dask", help="where to score (default: pool,dask)")
    options = parser.parse_args(arguments)
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        repository = Path(directory) / "models"
        ACCELERATOR.write(repository)
        triton = stack.enter_context(TritonServer.start([repository]))
        connection = stack.enter_context(eaf_inference.connect(triton.grpc))
        model = connection.model(ACCELERATOR.name)
        for shape in options.only.split(",") if options.only else SHAPES:
            folder = Path(directory) / shape
            folder.mkdir()
            files = [_write(folder / f"{n}.parquet", n, *each) for n, each in enumerate(SHAPES[shape](options.share))]
            for place in options.places.split(","):
                with PLACES[place](connection) as client:
                    print(f"\n{shape}, {place}")
                    rows += _compare(connection, model, files, client, f"{shape}, {place}")
    print()
    print(Table(("", "", "estimate", "the run", "ratio", "inside 68 %"), rows, numbers=(2, 3, 4)).text())
    return 0


def _compare(
    connection: eaf_inference.Connection, model: Model, files: list[str], client: Client | Executor, name: str
) -> Iterator[tuple[str, ...]]:
    """Print an estimate, and yield its ratios to the run that follows."""
    estimate = connection.estimate(model, files, select=select, client=client, progress=False)
    print(estimate)
    counts = connection.traffic.totals()
    started = time.perf_counter()
    with connection.submit(model, files, select=select, client=client, progress=False) as run:
        events = sum(result.entries for result in run.as_completed())
    seconds = time.perf_counter() - started
    summary = run.summary
    print(summary.headline)
    ran = {"events": float(events), "jets": float(summary.jets), "seconds": seconds}
    if isinstance(client, Executor):  # requests of Dask's workers are counted there
        after = connection.traffic.totals()
        ran |= {"requests": after["requests"] - counts["requests"], "bytes_to_send": after["bytes"] - counts["bytes"]}
    for quantity, value in ran.items():
        yield _row(name, quantity, estimate, value)


def _row(name: str, quantity: str, estimate: Estimate, value: float) -> tuple[str, ...]:
    found = getattr(estimate, quantity)
    inside = "yes" if found.low <= value <= found.high or np.isclose(value, found.value) else "no"
    return name, quantity, f"{found.value:,.4g}", f"{value:,.4g}", f"{found.value / value:.3f}", inside


def many_small(share: float) -> Iterator[tuple[int, float, float]]:
    """Yield events, jets per event and constituents per jet of each file."""
    rng = np.random.default_rng(1)
    yield from ((int(events), 2.0, 40.0) for events in rng.integers(50, 100, round(400 * share)))


def few_large(share: float) -> Iterator[tuple[int, float, float]]:
    yield from ((round(events * share), 2.0, 40.0) for events in (12_500, 7_500, 10_000))


def varying(share: float) -> Iterator[tuple[int, float, float]]:
    rng = np.random.default_rng(2)
    for _ in range(60):
        yield int(rng.uniform(75, 750) * share), rng.uniform(0.5, 6), rng.uniform(10, 90)


SHAPES: dict[str, Callable[[float], Iterator[tuple[int, float, float]]]] = {
    "many small files": many_small,
    "few large files": few_large,
    "varying multiplicities": varying,
}


def _write(path: Path, seed: int, events: int, jets: float, constituents: float) -> str:
    """Write a file of random numbers: events × jets × constituents."""
    rng = np.random.default_rng(seed)
    in_event = rng.poisson(jets, events)
    in_jet = np.clip(rng.poisson(constituents, in_event.sum()), 1, 127)
    pt = ak.unflatten(rng.random(in_jet.sum(), np.float32), in_jet)
    ak.to_parquet(
        ak.zip({"jets": ak.unflatten(ak.zip({"pt": pt}), in_event)}, depth_limit=1), path, row_group_size=1024
    )
    return str(path)


def select(events: ak.Array) -> list[ak.Array]:
    """Make the model's channels of one column."""
    return [events.jets.pt] * VALUES


def _pool(_: eaf_inference.Connection) -> Any:
    return ThreadPoolExecutor(THREADS)


def _dask(_: eaf_inference.Connection) -> Any:
    import distributed

    return distributed.Client(  # type: ignore[no-untyped-call]
        n_workers=THREADS, threads_per_worker=1, dashboard_address=None
    )


PLACES = {"pool": _pool, "dask": _dask}

if __name__ == "__main__":
    sys.exit(main())
