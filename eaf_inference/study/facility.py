"""Part 4 on a facility: what a minute of this process's own load, and Prometheus, tell of more workers."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import eaf_inference
from eaf_inference.bench.workloads import sample
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.study.simulation import prediction
from eaf_inference.study.watching import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import awkward as ak

    from eaf_inference.study.outcome import Predicted, Scale

__all__ = ["predict"]

_MODEL = "particlenet"
_WINDOW = 30  # seconds over which Prometheus takes rates: a snapshot before that is of the beginning


def predict(scale: Scale, url: str, prometheus: str, *, progress: Callable[[str], None]) -> Predicted | None:
    """Load the facility from here, look at its metrics, and say what follows; None where they tell too little."""
    jets = sample(scale.file_jets)
    progress(f"capacity: {_WINDOW + scale.minute:.0f} s of load from here, seen by Prometheus")
    deadline = time.monotonic() + _WINDOW + scale.minute

    def chunks() -> Iterator[ak.Array]:
        return itertools.takewhile(lambda _: time.monotonic() < deadline, itertools.repeat(jets))

    with eaf_inference.connect(url) as triton, watched([Prometheus(prometheus, window=_WINDOW)]) as snapshots:
        for _ in triton.model(_MODEL).map(chunks(), progress=False):
            pass
    # requests in flight stand for workers: each of ours keeps some, and is not held up outside the server
    return prediction(snapshots[_WINDOW:], 1, 0.0, scale.simulated_workers)
