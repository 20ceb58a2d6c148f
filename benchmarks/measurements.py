"""Figures of this client alone: packing, features, memory, imports, connecting and the metrics sampler.

Each is measured in a fresh process, ``python -m benchmarks.measurements NAME URL METRICS JETS``, which checks its
results and prints the figures as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import BadReply, InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import awkward as ak
    from numpy.typing import NDArray

__all__ = ["FIGURES", "Where", "measure"]

_SEED = 20231206
_MOST_JETS = 9  # in an event
_CONSTITUENTS = (1, 150)
_EVENTS = 4_000
_LISTENERS = 50
_LISTENING = 15.0  # seconds
_SETTLING = 3.0  # seconds
_CHUNK = 2_560  # jets at a time while memory is measured
_STEP = 50_000  # jets between two memory readings
_LEAST_SECONDS = 1.0  # for which short work is repeated


@dataclass(frozen=True, slots=True)
class Where:
    """Triton's gRPC and metrics URLs, and the number of jets for the memory measurement."""

    url: str
    metrics: str
    jets: int


def measure(name: str, where: Where) -> dict[str, float]:
    """Measure one of `FIGURES` in a fresh process and return its values by name.

    Raises
    ------
    BadReply
        A result was wrong.
    InferenceError
        The measurement failed.
    """
    arguments = [name, where.url, where.metrics, str(where.jets)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measurements", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        wrong = bool(last) and last[0].startswith(f"{BadReply.__module__}.{BadReply.__name__}")
        kind = BadReply if wrong else InferenceError
        raise kind(f"Measuring {name!r} failed: {last[0] if last else f'exit code {done.returncode}'}")
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def events() -> ak.Array:
    """Make events × 0–9 jets × 1–150 constituents with pt, eta, phi and energy."""
    import awkward as ak

    random = np.random.default_rng(_SEED)
    jets = random.integers(0, _MOST_JETS + 1, _EVENTS)
    low, high = _CONSTITUENTS
    counts = random.integers(low, high + 1, jets.sum())
    total = int(counts.sum())
    axis_eta, axis_phi = random.normal(0, 1, len(counts)), random.uniform(-np.pi, np.pi, len(counts))
    eta = np.repeat(axis_eta, counts) + random.normal(0, 0.2, total)
    phi = np.repeat(axis_phi, counts) + random.normal(0, 0.2, total)
    pt = random.exponential(5.0, total) + 0.5
    columns = {"pt": pt, "eta": eta, "phi": np.remainder(phi + np.pi, 2 * np.pi) - np.pi, "energy": pt * np.cosh(eta)}
    flat = ak.zip({name: values.astype(np.float32) for name, values in columns.items()})
    return ak.unflatten(ak.unflatten(flat, counts), jets)


def _rate(work: Callable[[], Any], jets: int) -> float:
    """Return the jets/s of one core."""
    work()
    began, times = time.process_time(), 0
    while time.process_time() - began < _LEAST_SECONDS:
        work()
        times += 1
    return jets * times / (time.process_time() - began)


def packing(where: Where) -> dict[str, float]:  # noqa: ARG001
    """Measure packing ragged arrays of seven fields into dense batches."""
    import awkward as ak

    from eaf_inference.inference.batching import batches as batches_of
    from eaf_inference.inference.features import FEATURES, features
    from eaf_inference.inference.inputs import Inputs, RaggedInput
    from eaf_inference.inference.layout import flatten_fields
    from eaf_inference.inference.lengths import Lengths
    from eaf_inference.inference.spec import TensorSpec
    from eaf_inference.inference.tuning import fixed_sizes

    records = ak.to_packed(features(events()))
    spec = TensorSpec("x", "FP32", (len(FEATURES), -1))

    def batches() -> Iterator[Any]:
        fields, nested = flatten_fields(records, FEATURES)
        columns = [fields[name] for name in FEATURES]
        ragged = RaggedInput(spec, columns, [0.0] * len(columns), nested.starts, nested.counts)
        inputs = Inputs([ragged], rows=nested.outer.rows, max_batch_size=1024)
        return batches_of(inputs, [Lengths(minimum=16)], fixed_sizes(8192))

    jets = ak.flatten(records, axis=1)
    for batch in batches():
        (tensor,) = batch.tensors
        for channel, name in enumerate(FEATURES):
            padded = ak.fill_none(ak.pad_none(jets[name][batch.rows], tensor.shape[2]), 0.0)
            _check(tensor[:, channel], ak.to_numpy(padded), 0.0, "the packed batch")
    return {"packing jets/s": _rate(lambda: [None for _ in batches()], len(jets))}


def arithmetic(where: Where) -> dict[str, float]:  # noqa: ARG001
    """Measure computing the usual features from pt, eta, phi and energy."""
    from eaf_inference.inference.features import FEATURES, KINEMATICS, compute
    from eaf_inference.inference.layout import flatten_fields

    fields, nested = flatten_fields(events(), KINEMATICS)
    made = compute(fields, nested, FEATURES)
    for name, expected in _slow_features(fields, nested).items():
        _check(made[name], expected, 2e-4, name)
    return {"feature jets/s": _rate(lambda: compute(fields, nested, FEATURES), len(nested.counts))}


def _slow_features(fields: Any, nested: Any) -> dict[str, NDArray[np.float64]]:
    """Compute the features straight from their definitions, in float64."""
    pt, eta, phi, energy = (fields[name].astype(np.float64) for name in ("pt", "eta", "phi", "energy"))

    def of_jets(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.repeat(np.add.reduceat(values, nested.starts), nested.counts)

    px, py, pz = (of_jets(pt * part) for part in (np.cos(phi), np.sin(phi), np.sinh(eta)))
    jet_pt = np.hypot(px, py)
    jet_eta = np.arcsinh(pz / jet_pt)
    deta = (eta - jet_eta) * np.sign(jet_eta)
    dphi = np.angle(np.exp(1j * (phi - np.arctan2(py, px))))
    return {
        "part_deta": deta,
        "part_dphi": dphi,
        "part_deltaR": np.hypot(deta, dphi),
        "part_pt_log": np.log(pt),
        "part_e_log": np.log(energy),
        "part_logptrel": np.log(pt / jet_pt),
        "part_logerel": np.log(energy / of_jets(energy)),
    }


def _check(values: NDArray[Any], expected: NDArray[Any], tolerance: float, what: str) -> None:
    if values.shape != expected.shape:
        raise BadReply(f"{what} has the shape {values.shape}, expected {expected.shape}")
    difference = float(np.abs(values - expected).max()) if values.size else 0.0
    if not difference <= tolerance:
        raise BadReply(f"{what} is wrong by {difference:.2g}, expected at most {tolerance:g}")


def memory(where: Where) -> dict[str, float]:
    """Measure how much memory grows while jets stream through, in MB per 100,000 jets."""
    import eaf_inference
    from benchmarks import zero_cost
    from eaf_facility.study.accelerator import CONSTITUENTS, VALUES

    random = np.random.default_rng(_SEED)

    def chunks() -> Iterator[NDArray[np.float32]]:
        for _ in range(max(2, where.jets // _CHUNK)):
            yield random.random((_CHUNK, VALUES, CONSTITUENTS), np.float32)

    readings: list[tuple[int, float]] = []
    done, next_reading = 0, 0
    with eaf_inference.connect(where.url) as triton:
        for scores in triton.model(zero_cost.NAME).map(chunks(), progress=False):
            done += len(scores)
            if not np.all((scores >= 0) & (scores < 1)):
                raise BadReply("a score is outside [0, 1), the range of the inputs")
            if done >= next_reading:
                readings.append((done, _resident()))
                next_reading += _STEP
    settled = readings[len(readings) // 5 :]
    jets, sizes = zip(*settled, strict=True)
    slope = np.polyfit(jets, sizes, 1)[0] if len(settled) > 1 else 0.0
    return {"RSS MB per 100k jets": float(slope) * 1e5 / 1e6, "RSS MB": readings[-1][1] / 1e6, "jets streamed": done}


def _resident() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return float(fields["VmRSS"].split()[0]) * 1024


def importing(where: Where) -> dict[str, float]:  # noqa: ARG001
    """Measure ``import eaf_inference`` in a fresh Python."""
    code = "import time; t = time.perf_counter(); import eaf_inference; print(time.perf_counter() - t)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", errors="replace", check=True
    )
    return {"import s": float(done.stdout)}


def connecting(where: Where) -> dict[str, float]:
    """Measure the first ``connect()`` of a process, which imports modules, and a later one."""
    import eaf_inference

    took = []
    for _ in range(2):
        began = time.perf_counter()
        with eaf_inference.connect(where.url):
            took.append(time.perf_counter() - began)
    return {"first connect s": took[0], "warm connect s": took[1]}


def sampling(where: Where) -> dict[str, float]:
    """Measure the sampler at 1 s with many listeners, one of which writes each snapshot as JSON: share of a core.

    ``tests/server/measure_idle_cpu.py`` measures a whole Jupyter server with as many browsers.
    """
    from eaf_inference.metrics.sampler import Sampler
    from eaf_inference.metrics.triton import TritonMetrics

    async def listen(sampler: Sampler, *, writes: bool) -> None:
        with sampler.listen() as snapshots:
            async for snapshot in snapshots:
                if writes:
                    json.dumps(snapshot.as_dict())

    async def run() -> float:
        sampler = Sampler([TritonMetrics(where.metrics)])
        tasks = [asyncio.create_task(listen(sampler, writes=number == 0)) for number in range(_LISTENERS)]
        await asyncio.sleep(_SETTLING)  # imports and the first sample
        began, clock = time.process_time(), time.monotonic()
        await asyncio.sleep(_LISTENING)
        share = (time.process_time() - began) / (time.monotonic() - clock)
        await sampler.close()
        await asyncio.gather(*tasks)
        return share

    return {"sampler % of a core": 100 * asyncio.run(run())}


# Name on the command line → function that measures it.
FIGURES: dict[str, Callable[[Where], dict[str, float]]] = {
    "packing": packing,
    "features": arithmetic,
    "memory": memory,
    "import": importing,
    "connect": connecting,
    "sampler": sampling,
}


def main(arguments: Sequence[str]) -> None:
    """Measure one figure and print it as JSON."""
    name, url, metrics, jets = arguments
    sys.stdout.write(json.dumps(FIGURES[name](Where(url, metrics, int(jets)))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
