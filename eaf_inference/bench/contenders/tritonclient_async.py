"""NVIDIA's tritonclient with ``async_infer``: so many requests in flight, replies by callback."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient import grpc

from eaf_inference.bench.contenders import batches
from eaf_inference.bench.contenders.tritonclient_loop import request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_inference.bench.contenders import Entry, Notes, Service
    from eaf_inference.bench.workloads import Data, Workload

__all__ = ["Contestant"]


class Contestant:
    """tritonclient, asynchronous by callback."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None:
        self._client = grpc.InferenceServerClient(service.address)
        self._workload, self._batch, self._in_flight = workload, entry.batch or 1, entry.in_flight or 1
        self._done: queue.SimpleQueue[tuple[int, Any, Any, float]] = queue.SimpleQueue()

    def run(self, data: Data, notes: Notes) -> Iterator[NDArray[Any]]:
        for chunk in data.chunks():
            scores: dict[int, NDArray[Any]] = {}
            flying = 0
            for number, rows in enumerate(batches(data.padded(chunk), self._batch)):
                if flying == self._in_flight:
                    self._receive(scores, notes)
                    flying -= 1
                self._send(number, rows, notes)
                flying += 1
            for _ in range(flying):
                self._receive(scores, notes)
            yield np.concatenate([scores[number] for number in sorted(scores)])

    def _send(self, number: int, rows: dict[str, NDArray[Any]], notes: Notes) -> None:
        inputs, outputs, nbytes = request(grpc, rows, self._workload.output)
        notes.nbytes += nbytes
        began = time.monotonic()

        def answered(result: Any, error: Any) -> None:
            self._done.put((number, result, error, time.monotonic() - began))

        self._client.async_infer(self._workload.model, inputs, answered, outputs=outputs)

    def _receive(self, scores: dict[int, NDArray[Any]], notes: Notes) -> None:
        number, result, error, seconds = self._done.get()
        if error is not None:
            raise error
        notes.request(seconds, 0)
        scores[number] = result.as_numpy(self._workload.output)
