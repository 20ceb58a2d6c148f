"""The benchmark's workloads: the study's two networks, the zero-cost model and a simulated accelerator."""

from __future__ import annotations

from benchmarks import zero_cost
from eaf_facility.study.accelerator import SimulatedAccelerator
from eaf_facility.study.workloads import FULL_PARTICLENET, OUR_PARTICLENET, Workload

__all__ = ["ACCELERATOR", "WORKLOADS"]

ACCELERATOR = SimulatedAccelerator(request=5e-3, cell=2e-7)


def _accelerated(key: str, network: str, delay: float) -> Workload:
    title = f"simulated accelerator, {network}"
    return Workload(key, title, ACCELERATOR.name, "score", "numpy", 102_400, 2_560, delay)


WORKLOADS = {
    each.key: each
    for each in (
        Workload("a", "zero-cost model, 16 × 100 float32", zero_cost.NAME, "score", "numpy", 256_000, 2_560),
        OUR_PARTICLENET,
        FULL_PARTICLENET,
        _accelerated("d0", "Envoy", 0.0),
        _accelerated("d2", "Envoy + 2 ms", 0.002),
        _accelerated("d10", "Envoy + 10 ms", 0.010),
    )
}
