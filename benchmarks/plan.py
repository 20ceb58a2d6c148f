"""Which clients are measured on which workload, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.clients import PERF_ANALYZER, TRITONCLIENT, TRITONCLIENT_AIO, TRITONCLIENT_ASYNC
from eaf_facility.study.clients import COFFEA, EAF_INFERENCE, ONNXRUNTIME

if TYPE_CHECKING:
    from eaf_facility.study.clients import Entry

__all__ = ["ENTRIES"]

_DENSE = (
    EAF_INFERENCE,
    COFFEA.using(batch=256),
    TRITONCLIENT.using(batch=256),
    TRITONCLIENT_ASYNC.using(batch=256, in_flight=4),
    TRITONCLIENT_AIO.using(batch=256, in_flight=4),
)
_BEHIND_NETWORK = (*_DENSE, PERF_ANALYZER.using(batch=256, in_flight=4))

# By workload. A client whose settings matter has several entries; the best one counts.
ENTRIES: dict[str, tuple[Entry, ...]] = {
    "a": (*_DENSE, *(PERF_ANALYZER.using(batch=256, in_flight=number) for number in (1, 2, 4, 8))),
    "b": (
        EAF_INFERENCE,
        *(COFFEA.using(batch=size) for size in (64, 256, 1024)),
        TRITONCLIENT.using(batch=64),
        TRITONCLIENT_ASYNC.using(batch=64, in_flight=4),
        TRITONCLIENT_AIO.using(batch=64, in_flight=4),
        PERF_ANALYZER.using(batch=64, in_flight=2),
        ONNXRUNTIME.using(batch=64),
    ),
    "c": (
        EAF_INFERENCE,
        COFFEA.using(batch=1024),
        TRITONCLIENT.using(batch=1024),
        TRITONCLIENT_ASYNC.using(batch=64, in_flight=2),
        ONNXRUNTIME.using(batch=64),
    ),
    "d0": _BEHIND_NETWORK,
    "d2": _BEHIND_NETWORK,
    "d10": _BEHIND_NETWORK,
}
