"""NVIDIA's tritonclient with ``async_infer``: a fixed number of requests in flight, replies by callback."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient import grpc

from benchmarks.clients.tritonclient_loop import make_request
from eaf_facility.study.clients import batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_facility.study.clients import Job, RequestLog
    from eaf_facility.study.workloads import Data

__all__ = ["Client"]


class Client:
    """tritonclient, asynchronous by callback."""

    def __init__(self, job: Job) -> None:
        self._client = grpc.InferenceServerClient(job.address)
        self._workload, self._batch, self._limit = job.workload, job.entry.batch or 1, job.entry.in_flight or 1
        self._replies: queue.SimpleQueue[tuple[int, Any, Any, float]] = queue.SimpleQueue()

    def run(self, data: Data, log: RequestLog) -> Iterator[NDArray[Any]]:
        for chunk in data.chunks():
            scores: dict[int, NDArray[Any]] = {}
            in_flight = 0
            for number, rows in enumerate(batches(data.padded(chunk), self._batch)):
                if in_flight == self._limit:
                    self._receive(scores, log)
                    in_flight -= 1
                self._send(number, rows, log)
                in_flight += 1
            for _ in range(in_flight):
                self._receive(scores, log)
            yield np.concatenate([scores[number] for number in sorted(scores)])

    def _send(self, number: int, rows: dict[str, NDArray[Any]], log: RequestLog) -> None:
        inputs, outputs, nbytes = make_request(grpc, rows, self._workload.output)
        log.nbytes += nbytes
        began = time.monotonic()

        def on_reply(result: Any, error: Any) -> None:
            self._replies.put((number, result, error, time.monotonic() - began))

        self._client.async_infer(self._workload.model, inputs, on_reply, outputs=outputs)

    def _receive(self, scores: dict[int, NDArray[Any]], log: RequestLog) -> None:
        number, result, error, seconds = self._replies.get()
        if error is not None:
            raise error
        log.add(seconds, 0)
        scores[number] = result.as_numpy(self._workload.output)
