"""Requests, bytes and time of variations against those of a plain loop.

``python -m benchmarks.variations`` scores jets with ParticleNet, and twelve variations that each move a tenth of
them: in a loop that calls the model for each, and by `Model.variations`, in turns. It ends with an error if a jet
that did not move has other scores than the nominal one, or if any score differs from the loop's by more than 1e-6.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.machine import machine
from eaf_facility.study.workloads import numbers_of
from eaf_inference.errors import BadReply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from eaf_inference.connection import Connection
    from eaf_inference.inference.model import Model

_SAMPLE = Path(__file__).parents[1] / "notebooks" / "jets.parquet"
_SEED = 17
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a way of scoring sent, and how long it took."""

    rows: int
    requests: int
    nbytes: int
    seconds: float

    def __str__(self) -> str:
        sent = f"{self.rows:,} jets in {self.requests:,} requests, {self.nbytes / 1e6:,.1f} MB"
        return f"{sent}, {self.seconds:.1f} s"


def _jets(number: int) -> ak.Array:
    """Return jets of the sample, again and again with other energies, that the model need not cut."""
    sample = ak.flatten(ak.from_parquet(_SAMPLE).jets.constituents)
    sample = sample[ak.num(sample) <= 128]
    copies = -(-number // len(sample))
    return ak.concatenate([_scaled(sample, np.full(len(sample), 1 + copy / 64)) for copy in range(copies)])[:number]


def _scaled(jets: ak.Array, factor: NDArray[np.float64]) -> ak.Array:
    """Return the jets with other energies and transverse momenta; a factor of 1 changes no bit."""
    scaled = {name: jets[name] * factor.astype(np.float32) for name in ("pt", "energy")}
    return ak.zip({name: scaled.get(name, jets[name]) for name in ("pt", "eta", "phi", "energy")})


def _factors(jets: int, share: float, number: int) -> dict[str, NDArray[np.float64]]:
    """Return for each variation a factor for each jet: 1 but for a share of them."""
    rng = np.random.default_rng(_SEED)
    found = {}
    for at in range(number):
        factor = np.ones(jets)
        factor[rng.choice(jets, round(share * jets), replace=False)] = 1.01 + at / 100
        found[f"jes{at}"] = factor
    return found


def _measured(triton: Connection, score: Callable[[], Mapping[str, Any]]) -> tuple[Mapping[str, Any], _Cost]:
    before, start = triton.traffic.totals(), time.perf_counter()
    scores = score()
    seconds, after = time.perf_counter() - start, triton.traffic.totals()
    rows, requests, nbytes = (after[name] - before[name] for name in ("inferences", "requests", "bytes"))
    return scores, _Cost(rows, requests, nbytes, seconds)


def _loop(model: Model, jets: ak.Array, functions: Mapping[str, Callable[[ak.Array], ak.Array]]) -> dict[str, Any]:
    scores = {"nominal": model(jets, progress=False)}
    return scores | {name: model(vary(jets), progress=False) for name, vary in functions.items()}


def _compare(
    mine: Mapping[str, Any], plain: Mapping[str, Any], factors: Mapping[str, NDArray[np.float64]]
) -> tuple[float, float]:
    """Return the share of scores that equal the loop's to the last bit, and the largest difference."""
    if list(mine) != list(plain):
        raise BadReply(f"There are scores of {', '.join(mine)}. Expected those of {', '.join(plain)}.")
    equal, largest = [], 0.0
    for name, scores in mine.items():
        own, expected = numbers_of(scores), numbers_of(plain[name])
        equal.append(float(np.mean(own == expected)))
        largest = max(largest, float(np.abs(own - expected).max()))
        if name in factors:
            unmoved = factors[name] == 1
            if not np.array_equal(own[unmoved], numbers_of(mine["nominal"])[unmoved]):
                raise BadReply(f"A jet that {name!r} did not move has other scores than the nominal one.")
    if not largest <= _TOLERANCE:  # also if it is not a number
        raise BadReply(f"A score differs by {largest:.1e} from that of the loop.")
    return statistics.mean(equal), largest


def main() -> None:
    """Measure, and print what was measured, on what, and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variations", description=__doc__.splitlines()[0])
    parser.add_argument("--jets", metavar="N", type=int, default=2000, help="nominal jets (default: 2000)")
    parser.add_argument("--variations", metavar="N", type=int, default=12, help="variations (default: 12)")
    parser.add_argument("--moved", metavar="SHARE", type=float, default=0.1, help="of the jets (default: 0.1)")
    parser.add_argument("--rounds", metavar="N", type=int, default=2, help="rounds of each (default: 2)")
    options = parser.parse_args()
    say = sys.stdout.write
    say("".join(f"{name}: {value}\n" for name, value in machine().items()))
    jets = _jets(options.jets)
    factors = _factors(len(jets), options.moved, options.variations)
    functions = {name: partial(_scaled, factor=factor) for name, factor in factors.items()}
    say(
        f"{len(jets):,} jets of ParticleNet, {len(functions)} variations that each move {options.moved:.0%} of them\n"
    )
    costs: dict[str, list[_Cost]] = {"nominal": [], "loop": [], "variations": []}
    with TritonServer.start() as server, eaf_inference.connect(server.grpc) as triton:
        model = triton.model("particlenet")
        model(jets, progress=False)  # finds out how to pad, and warms the server
        for number in range(options.rounds):
            _, once = _measured(triton, lambda: {"nominal": model(jets, progress=False)})
            plain, loop = _measured(triton, partial(_loop, model, jets, functions))
            mine, varied = _measured(triton, lambda: model.variations(jets, functions, progress=False))
            equal, largest = _compare(mine, plain, factors)
            for name, cost in zip(costs, (once, loop, varied), strict=True):
                costs[name].append(cost)
                say(f"round {number + 1}, {name}: {cost}\n")
            say(
                f"round {number + 1}: jets that did not move have the very scores of the nominal ones; {equal:.2%} "
                f"of all scores equal the loop's to the last bit, and the largest difference is {largest:.1e}\n"
            )
    for other, unit in (("nominal", "times the nominal jets alone"), ("loop", "of the loop")):
        for what in ("rows", "requests", "nbytes", "seconds"):
            pairs = zip(costs["variations"], costs[other], strict=True)
            ratio = statistics.median(getattr(mine, what) / getattr(theirs, what) for mine, theirs in pairs)
            say(f"variations, {what}: {ratio:.2f} {unit}\n")


if __name__ == "__main__":
    main()
