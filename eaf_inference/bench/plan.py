"""Which contenders take part in which workload, and with what choices."""

from __future__ import annotations

from eaf_inference.bench.contenders import Entry

__all__ = ["ENTRIES", "OURS"]

OURS = Entry("eaf-inference")
_COFFEA = "coffea triton_wrapper"
_DENSE = (
    OURS,
    Entry(_COFFEA, batch=256),
    Entry("tritonclient", batch=256),
    Entry("tritonclient async_infer", batch=256, in_flight=4),
    Entry("tritonclient grpc.aio", batch=256, in_flight=4),
)
_BEHIND_NETWORK = (*_DENSE, Entry("perf_analyzer (C++)", batch=256, in_flight=4))

# By workload. Where a choice matters there are several entries, and the best one counts.
ENTRIES: dict[str, tuple[Entry, ...]] = {
    "a": (*_DENSE, *(Entry("perf_analyzer (C++)", batch=256, in_flight=number) for number in (1, 2, 4, 8))),
    "b": (
        OURS,
        *(Entry(_COFFEA, batch=size) for size in (64, 256, 1024)),
        Entry("tritonclient", batch=64),
        Entry("tritonclient async_infer", batch=64, in_flight=4),
        Entry("tritonclient grpc.aio", batch=64, in_flight=4),
        Entry("perf_analyzer (C++)", batch=64, in_flight=2),
        Entry("local ONNX Runtime", batch=64),
    ),
    "c": (
        OURS,
        Entry(_COFFEA, batch=1024),
        Entry("tritonclient", batch=1024),
        Entry("tritonclient async_infer", batch=64, in_flight=2),
        Entry("local ONNX Runtime", batch=64),
    ),
    "d0": _BEHIND_NETWORK,
    "d2": _BEHIND_NETWORK,
    "d10": _BEHIND_NETWORK,
}
