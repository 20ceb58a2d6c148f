"""One measurement: some clients, one setting, and all that Triton, nvidia-smi and the kernel say meanwhile."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gpu.watch import server_cpu, server_times
from eaf_inference.errors import BadReply

if TYPE_CHECKING:
    from benchmarks.gpu.crowd import Crowd
    from benchmarks.gpu.kit import Kit
    from benchmarks.gpu.load import Outcome, Setting
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.watch import GpuWatch
    from eaf_facility.servers.triton import TritonServer

__all__ = ["Bench", "Scale", "described"]

# Where two points are equally near, rounding decides which is a neighbour, so a few jets differ by more.
_LARGEST = 1e-4  # difference of a score
_MOST_WRONG = 0.005  # share of jets with a relative difference above `RELATIVE`


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured; small on a CPU."""

    gpu: bool
    jets: int  # of the sample
    pseudo_jets: int
    clients: tuple[int, ...]
    load_seconds: float  # of one point with several clients: advice needs more than five
    sweep_seconds: float
    rounds: int
    cell_budgets: tuple[int | None, ...]
    windows: tuple[int | None, ...]
    batches: tuple[int, ...]  # of pseudo-jets
    single_rows: tuple[int, ...]
    single_lengths: tuple[int, ...]
    seconds: float  # for everything


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What every part needs."""

    scale: Scale
    results: Results
    kit: Kit
    server: TritonServer
    crowd: Crowd
    gpu: GpuWatch

    def measure(self, setting: Setting, clients: int = 1) -> dict[str, Any]:
        """Run clients and return what was measured, as a row of a table; raise `BadReply` if scores are wrong."""
        counts = server_times(self.server, setting.model)
        cpu, wall = server_cpu(self.server.pid), time.time()
        outcomes = self.crowd.run(setting, clients)
        ended = time.time()
        spent = {name: value - cpu[name] for name, value in server_cpu(self.server.pid).items()}
        reported = server_times(self.server, setting.model).since(counts)
        reported.pop("requests", None)
        # the first chunk is not counted by the client, but it is by Triton and by nvidia-smi
        seconds = max(each.seconds for each in outcomes)
        seen = self.gpu.mean(ended - seconds, ended)
        return {
            "clients": clients,
            **_rates(outcomes),
            **{f"{name} cores": value / (ended - wall) for name, value in spent.items()},
            **reported,
            "GPU %": seen.get("utilization %"),
            "power W": seen.get("power W"),
        }


def _rates(outcomes: list[Outcome]) -> dict[str, Any]:
    jets = sum(each.jets for each in outcomes)
    largest, wrong = max(each.largest_difference for each in outcomes), sum(each.wrong for each in outcomes) / jets
    if not (largest <= _LARGEST and wrong <= _MOST_WRONG):
        raise BadReply(f"Scores differ by up to {largest:.2g}, and {wrong:.2%} of jets by more than rounding.")
    latencies = np.array([value for each in outcomes for value in each.latencies])
    rows: dict[str, Any] = {
        "jets/s": sum(each.jets / each.seconds for each in outcomes),
        "requests": len(latencies),
        "client cores": sum(each.cpu / each.seconds for each in outcomes),
        "client us/jet": 1e6 * sum(each.cpu for each in outcomes) / jets,
        "GB/s": sum(each.bytes / each.seconds for each in outcomes) / 1e9,
        "p50 ms": 1e3 * float(np.percentile(latencies, 50)),
        "p99 ms": 1e3 * float(np.percentile(latencies, 99)),
        "largest difference": largest,
        "wrong": wrong,
    }
    return rows


def described(setting: Setting) -> dict[str, Any]:
    """Return what distinguishes settings, for the first columns of a table."""
    content = asdict(setting)
    return {name: content[name] for name in ("model", "source", "cell_budget", "window")}
