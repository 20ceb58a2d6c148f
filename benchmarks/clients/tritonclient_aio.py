"""NVIDIA's tritonclient for asyncio: a limited number of requests in flight, replies awaited."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import aio

from benchmarks.clients.tritonclient_loop import make_request
from eaf_facility.study.clients import batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_facility.study.clients import Job, RequestLog
    from eaf_facility.study.workloads import Data

__all__ = ["Client"]


class Client:
    """tritonclient, asyncio."""

    def __init__(self, job: Job) -> None:
        self._workload, self._batch, self._limit = job.workload, job.entry.batch or 1, job.entry.in_flight or 1
        self._loop = asyncio.new_event_loop()
        self._client = self._loop.run_until_complete(self._connect(job.address))

    async def _connect(self, address: str) -> Any:
        return aio.InferenceServerClient(address)  # belongs to the event loop that creates it

    def run(self, data: Data, log: RequestLog) -> Iterator[NDArray[Any]]:
        for chunk in data.chunks():
            yield self._loop.run_until_complete(self._scores(data.padded(chunk), log))

    async def _scores(self, inputs: dict[str, NDArray[Any]], log: RequestLog) -> NDArray[Any]:
        free = asyncio.Semaphore(self._limit)

        async def score(rows: dict[str, NDArray[Any]]) -> NDArray[Any]:
            async with free:
                tensors, outputs, nbytes = make_request(aio, rows, self._workload.output)
                began = time.monotonic()
                reply = await self._client.infer(self._workload.model, tensors, outputs=outputs)
                log.add(time.monotonic() - began, nbytes)
                scores: NDArray[Any] = reply.as_numpy(self._workload.output)
                return scores

        return np.concatenate(await asyncio.gather(*map(score, batches(inputs, self._batch))))
