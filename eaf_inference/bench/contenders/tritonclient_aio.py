"""NVIDIA's tritonclient for asyncio: so many requests in flight at most, replies awaited."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import aio

from eaf_inference.bench.contenders import batches
from eaf_inference.bench.contenders.tritonclient_loop import request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_inference.bench.contenders import Entry, Notes, Service
    from eaf_inference.bench.workloads import Data, Workload

__all__ = ["Contestant"]


class Contestant:
    """tritonclient, asyncio."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None:
        self._address = service.address
        self._workload, self._batch, self._in_flight = workload, entry.batch or 1, entry.in_flight or 1
        self._loop = asyncio.new_event_loop()
        self._client = self._loop.run_until_complete(self._connected())

    async def _connected(self) -> Any:
        return aio.InferenceServerClient(self._address)  # belongs to the loop that makes it

    def run(self, data: Data, notes: Notes) -> Iterator[NDArray[Any]]:
        for chunk in data.chunks():
            yield self._loop.run_until_complete(self._scores(data.padded(chunk), notes))

    async def _scores(self, inputs: dict[str, NDArray[Any]], notes: Notes) -> NDArray[Any]:
        free = asyncio.Semaphore(self._in_flight)

        async def one(rows: dict[str, NDArray[Any]]) -> NDArray[Any]:
            async with free:
                tensors, outputs, nbytes = request(aio, rows, self._workload.output)
                began = time.monotonic()
                reply = await self._client.infer(self._workload.model, tensors, outputs=outputs)
                notes.request(time.monotonic() - began, nbytes)
                scores: NDArray[Any] = reply.as_numpy(self._workload.output)
                return scores

        return np.concatenate(await asyncio.gather(*map(one, batches(inputs, self._batch))))
