"""Part 4 on a facility: predict its capacity from a load by this process, as its Prometheus sees it."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import eaf_inference
from eaf_facility.study.server_metrics import recorded_snapshots
from eaf_facility.study.simulation import prediction
from eaf_facility.study.workloads import sample
from eaf_inference.metrics.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import awkward as ak

    from eaf_facility.study.outcome import Predicted, Scale

__all__ = ["predict"]

_MODEL = "particlenet"
_WINDOW = 30  # seconds of Prometheus's rates; earlier snapshots include the time before the load


def predict(scale: Scale, url: str, prometheus: str, *, progress: Callable[[str], None]) -> Predicted | None:
    """Load the facility, read its metrics and predict its capacity; return None if they are not enough."""
    jets = sample(scale.file_jets)
    progress(f"capacity: {_WINDOW + scale.capacity_seconds:.0f} s of load from here, measured by Prometheus")
    deadline = time.monotonic() + _WINDOW + scale.capacity_seconds

    def chunks() -> Iterator[ak.Array]:
        return itertools.takewhile(lambda _: time.monotonic() < deadline, itertools.repeat(jets))

    with (
        eaf_inference.connect(url) as triton,
        recorded_snapshots([Prometheus(prometheus, window=_WINDOW)]) as snapshots,
    ):
        for _ in triton.model(_MODEL).map(chunks(), progress=False):
            pass
    # requests in flight stand for workers: ours keeps several, without preparation time between them
    return prediction(snapshots[_WINDOW:], 1, 0.0, scale.simulated_workers)
