"""Compare learned sizes of requests with hand-set ones on simulated accelerators: ``python -m benchmarks.sizes``.

The accelerators are Triton models that take a stated time for each request and cell and compute nothing; the network
is an Envoy that delays each request. Jets have 72 ± 25 constituents. Every score is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from benchmarks.network import simulated_network
from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.accelerator import VALUES, SimulatedAccelerator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eaf_inference.inference.model import Model
    from eaf_inference.inference.traffic import Traffic

REQUESTS = (0.2e-3, 1e-3, 5e-3, 20e-3)  # seconds
CELLS = (2e-9, 10e-9, 50e-9, 200e-9)  # seconds
DELAYS = (0.0, 2e-3, 10e-3)  # seconds
BUDGETS = (8192, 32_768, 131_072, 524_288)  # cells of a batch, set by hand
BATCH = 1024  # max_batch_size
WARM = 3.0  # seconds of work before learned sizes are measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the grid, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each setting, in turns (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long one measurement takes")
    parser.add_argument("--delays", default=",".join(map(str, DELAYS)), help="seconds, separated by commas")
    parser.add_argument("--output", type=Path, default=Path("build/bench/sizes.json"))
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        repository = Path(directory)
        for request, cell in product(REQUESTS, CELLS):
            _accelerator(request, cell).write(repository)
        triton = stack.enter_context(TritonServer.start([repository]))
        print(
            "request ms  cell ns  network ms |  learned jets/s | by hand: "
            + "  ".join(f"{each:>9,}" for each in BUDGETS)
        )
        for delay in map(float, options.delays.split(",")):
            upstream = triton.grpc.removeprefix("grpc://")
            url = (
                stack.enter_context(simulated_network(upstream, delay, progress=lambda _: None))
                if delay
                else triton.grpc
            )
            connection = stack.enter_context(eaf_inference.connect(url))
            for request, cell in product(REQUESTS, CELLS):
                rows.append(_measure(connection, request, cell, delay, options.rounds, options.seconds))
                print(_line(rows[-1]), flush=True)
    ratios = [row["learned"] / max(row["by_hand"].values()) for row in rows]
    print(
        f"learned / best by hand: least {min(ratios):.2f}, median {statistics.median(ratios):.2f}, {len(rows)} cells"
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


def _accelerator(request: float, cell: float) -> SimulatedAccelerator:
    name = f"accelerator_{request * 1e6:.0f}us_{cell * 1e9:.0f}ns"
    return SimulatedAccelerator(request, cell, batch=BATCH, length=-1, name=name)


def _measure(
    connection: eaf_inference.Connection, request: float, cell: float, delay: float, rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure the learned size and those set by hand, in turns."""
    accelerator = _accelerator(request, cell)
    learned = connection.model(accelerator.name)
    by_hand = {budget: connection.model(accelerator.name, cell_budget=budget) for budget in BUDGETS}
    sample = jets(4 * BATCH)
    started, rate = time.perf_counter(), 0.0
    while time.perf_counter() - started < WARM:
        rate = rate_of(learned, sample)
    sample = jets(int(np.clip(rate * seconds, 4 * BATCH, 200_000)))
    found: dict[Any, list[float]] = {each: [] for each in ("learned", *BUDGETS)}
    for _ in range(rounds):
        found["learned"].append(rate_of(learned, sample))
        for budget, model in by_hand.items():
            found[budget].append(rate_of(model, sample))
    medians = {each: statistics.median(rates) for each, rates in found.items()}
    return {
        "request": request,
        "cell": cell,
        "delay": delay,
        "limit": BATCH / (request + cell * BATCH * float(np.diff(sample[1]).mean())),
        "learned": medians.pop("learned"),
        "by_hand": medians,
    }


def jets(number: int) -> tuple[ak.Array, np.ndarray[Any, Any]]:
    """Return a column of random values in jagged rows, and where the rows begin and end."""
    rng = np.random.default_rng(1)
    counts = np.clip(rng.normal(72, 25, number).astype(np.int64), 1, None)
    return ak.unflatten(rng.random(counts.sum(), np.float32), counts), np.append(0, np.cumsum(counts))


def rate_of(model: Model, sample: tuple[ak.Array, np.ndarray[Any, Any]], *, traffic: Traffic | None = None) -> float:
    """Return jets/s of one call, after checking its scores: the first value of each row."""
    column, ends = sample
    started = time.perf_counter()
    [scores] = model.map([{"x": [column] * VALUES}], progress=False, traffic=traffic)
    seconds = time.perf_counter() - started
    np.testing.assert_array_equal(ak.to_numpy(scores)[:, 0], ak.to_numpy(ak.flatten(column))[ends[:-1]])
    return len(column) / seconds


def _line(row: dict[str, Any]) -> str:
    best = max(row["by_hand"].values())
    rates = "  ".join(f"{rate:>9,.0f}" for rate in row["by_hand"].values())
    return (
        f"{row['request'] * 1e3:>10.1f} {row['cell'] * 1e9:>8.0f} {row['delay'] * 1e3:>11.0f} | "
        f"{row['learned']:>9,.0f} ×{row['learned'] / best:.2f} |          {rates}   limit {row['limit']:>9,.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
