"""The parts of the benchmark; each prints its table and keeps its results."""

from __future__ import annotations

import csv
import itertools
import os
import statistics
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gpu.bench import described
from benchmarks.gpu.load import Setting
from benchmarks.gpu.models import FULL, LITE, LITE_TWO, LITE_WIDE
from benchmarks.gpu.watch import server_times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gpu.bench import Bench

__all__ = ["analyzed", "paper", "service_times", "sweep"]

_LENGTH = 100  # constituents of a pseudo-jet
_ANALYZED = [  # model, batch, constituents, requests in flight
    *((FULL, 1024, _LENGTH, in_flight) for in_flight in (1, 2, 4)),
    *((LITE_WIDE, batch, 80, in_flight) for batch in (1024, 4096) for in_flight in (2, 4)),
    (LITE_TWO, 4096, 80, 4),
]
_SHORT = ("jets/s", "client us/jet", "client cores", "triton cores", "models cores", "jets a request")
_SERVER = ("jets an execution", "queue ms", "compute_infer ms", "GPU %", "p50 ms", "p99 ms", "wrong")


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    first = {
        name: value for name, value in row.items() if name in ("model", "source", "cell_budget", "window", "batch")
    }
    return first | {name: row.get(name) for name in (*_SHORT, *_SERVER)}


def service_times(bench: Bench) -> None:
    """Measure single requests over a grid of rows and lengths, and fit a + b·cells + c·rows."""
    found: dict[str, Any] = {}
    for model, rows, lengths in (
        (LITE_WIDE, bench.scale.single_rows, bench.scale.single_lengths),
        (FULL, [each for each in bench.scale.single_rows if each <= 1024], [32, 64, 100]),
    ):
        points = []
        for count, length in itertools.product(rows, lengths):
            setting = Setting(model, "single", rows=count, length=length, times=5)
            bench.crowd.run(replace(setting, times=1))  # the first requests of a shape take longer
            before = server_times(bench.server, model)
            (outcome,) = bench.crowd.run(setting)
            phases = server_times(bench.server, model).since(before)
            points.append(
                {
                    "rows": count,
                    "length": length,
                    "latency ms": 1e3 * statistics.median(outcome.latencies),
                    **{name: phases[name] for name in phases if name.endswith(" ms")},
                }
            )
            found[model] = {"points": points}
            bench.results.keep("service times", found)
        compute = [sum(each[f"compute_{part} ms"] for part in ("input", "infer", "output")) for each in points]
        fits = {"latency": _fit(points, [each["latency ms"] for each in points]), "compute": _fit(points, compute)}
        found[model] = {"points": points, "fits": fits}
        bench.results.keep("service times", found)
        bench.results.say(model)
        bench.results.table(points)
        bench.results.table([{"of": name, **fit} for name, fit in fits.items()])


def _fit(points: Sequence[dict[str, Any]], times: Sequence[float]) -> dict[str, float]:
    """Fit milliseconds with non-negative coefficients, by relative errors."""
    rows = np.array([each["rows"] for each in points], float)
    cells = rows * [each["length"] for each in points]
    y = np.array(times)
    terms = {"a ms": np.ones_like(rows), "b ns/cell": cells * 1e-6, "c us/row": rows * 1e-3}
    best: tuple[float, dict[str, float]] = (np.inf, {})
    for size in range(1, len(terms) + 1):
        for names in itertools.combinations(terms, size):
            matrix = np.stack([terms[name] for name in names], axis=1) / y[:, None]
            coefficients = np.linalg.lstsq(matrix, np.ones_like(y), rcond=None)[0]
            error = float(np.sqrt(np.mean((matrix @ coefficients - 1) ** 2)))
            if (coefficients >= 0).all() and error < best[0]:
                best = error, dict(zip(names, coefficients.tolist(), strict=True))
    return {**{name: best[1].get(name, 0.0) for name in terms}, "rms relative error": best[0]}


def paper(bench: Bench) -> None:
    """Time the paper's 10,000 jets, and the batch sizes set by hand."""
    scale = bench.scale
    once = {"rows": scale.pseudo_jets, "times": 3}
    settings: list[tuple[str, Setting]] = [
        ("default, numpy", Setting(FULL, "dense", **once)),
        ("default, awkward", Setting(FULL, "ragged", **once)),
    ]
    for batch in scale.batches:
        setting = Setting(FULL, "ragged", cell_budget=batch * _LENGTH, window=max(1024, batch), **once)
        settings.append((f"{batch} by hand", setting))
    rows = []
    for name, setting in settings:
        if bench.results.left < 20:
            break
        rows.append({"batch": name, **described(setting), **bench.measure(setting)})
        rows[-1]["seconds for all"] = scale.pseudo_jets / rows[-1]["jets/s"]
        bench.results.keep("paper", rows)
    bench.results.table([{**_brief(row), "seconds for all": row["seconds for all"]} for row in rows])


def sweep(bench: Bench) -> None:
    """Vary cell budget and window for jagged jets, in interleaved rounds; the first row is what a user gets today."""
    scale = bench.scale
    settings = [Setting(LITE), Setting(LITE_WIDE)]
    for budget, window in itertools.product(scale.cell_budgets, scale.windows):
        settings.append(Setting(LITE_WIDE, cell_budget=budget, window=window))
    largest, widest = scale.cell_budgets[-1], scale.windows[-1]
    settings += [Setting(LITE_TWO), Setting(LITE_TWO, cell_budget=131072, window=4096)]
    settings.append(Setting(LITE_TWO, cell_budget=largest, window=widest))
    measured: dict[Setting, list[dict[str, Any]]] = {}
    for _ in range(scale.rounds):
        for each in settings:
            if bench.results.left < 150 and each in measured:
                continue
            row = bench.measure(replace(each, seconds=scale.sweep_seconds))
            measured.setdefault(each, []).append({**described(each), **row})
            bench.results.keep("sweep", [_median(rounds) for rounds in measured.values()])
    bench.results.table([_brief(_median(rounds)) for rounds in measured.values()])


def _median(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the round with the median rate, with all rounds' rates."""
    ranked = sorted(rounds, key=lambda row: row["jets/s"])
    return {**ranked[len(ranked) // 2], "rounds": [round(row["jets/s"]) for row in rounds]}


def analyzed(bench: Bench) -> None:
    """Run perf_analyzer with the study's shapes and with dense jets of the sample's mean length."""
    rows = []
    cases = _ANALYZED if bench.scale.gpu else [(LITE_WIDE, 64, 80, 2)]
    for model, batch, length, in_flight in cases:
        if bench.results.left < 15:
            break
        try:
            found = _perf_analyzer(bench, model, batch, length, in_flight)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            bench.results.say(f"perf_analyzer, {model}, {batch}: {error}")
            continue
        rows.append({"model": model, "batch": batch, "length": length, "in flight": in_flight, **found})
        bench.results.keep("perf_analyzer", rows)
    bench.results.table(rows)


def _perf_analyzer(bench: Bench, model: str, batch: int, length: int, in_flight: int) -> dict[str, float]:
    directory = bench.kit.perf_analyzer
    widths = {"points": 2, "features": 5 if model == FULL else 7, "mask": 1}
    libraries = os.pathsep.join(filter(None, [str(directory), os.environ.get("LD_LIBRARY_PATH")]))
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.csv"
        done = subprocess.run(
            [
                *(str(directory / "perf_analyzer"), "-m", model, "-i", "grpc"),
                *("-u", bench.server.grpc.partition("://")[2], "-b", str(batch)),
                *("--concurrency-range", str(in_flight), "-p", "1000", "-r", "3", "-s", "1000"),
                *("--percentile", "99", "-f", str(report)),
                *(f"--shape={name}:{width},{length}" for name, width in widths.items()),
            ],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=40,
            check=False,
        )
        if done.returncode or not report.exists():
            raise RuntimeError((done.stdout + done.stderr).strip()[-300:])
        with report.open(encoding="utf-8") as file:
            row = next(csv.DictReader(file))
    return {
        "jets/s": float(row["Inferences/Second"]),
        "p50 ms": float(row["p50 latency"]) / 1e3,
        "p99 ms": float(row["p99 latency"]) / 1e3,
    }
