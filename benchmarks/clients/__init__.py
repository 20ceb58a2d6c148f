"""The clients that only the benchmark measures: NVIDIA's tritonclient in its variants, and perf_analyzer."""

from __future__ import annotations

from eaf_facility.study.clients import Entry

__all__ = ["PERF_ANALYZER", "TRITONCLIENT", "TRITONCLIENT_AIO", "TRITONCLIENT_ASYNC"]

TRITONCLIENT = Entry("tritonclient", f"{__name__}.tritonclient_loop", needs_tritonclient=True)
TRITONCLIENT_ASYNC = Entry("tritonclient async_infer", f"{__name__}.tritonclient_async", needs_tritonclient=True)
TRITONCLIENT_AIO = Entry("tritonclient grpc.aio", f"{__name__}.tritonclient_aio", needs_tritonclient=True)
PERF_ANALYZER = Entry("perf_analyzer (C++)", f"{__name__}.perf_analyzer")
