"""NVIDIA's tritonclient in a loop: a request, its reply, the next request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient import grpc

from eaf_inference.bench.contenders import batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from numpy.typing import NDArray

    from eaf_inference.bench.contenders import Entry, Notes, Service
    from eaf_inference.bench.workloads import Data, Workload

__all__ = ["Contestant", "request"]


class Contestant:
    """tritonclient, blocking."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None:
        self._client = grpc.InferenceServerClient(service.address)
        self._workload, self._batch = workload, entry.batch or 1

    def run(self, data: Data, notes: Notes) -> Iterator[NDArray[Any]]:
        workload = self._workload
        for chunk in data.chunks():
            scores = []
            for rows in batches(data.padded(chunk), self._batch):
                inputs, outputs, nbytes = request(grpc, rows, workload.output)
                began = time.monotonic()
                reply = self._client.infer(workload.model, inputs, outputs=outputs)
                notes.request(time.monotonic() - began, nbytes)
                scores.append(reply.as_numpy(workload.output))
            yield np.concatenate(scores)


def request(module: ModuleType, inputs: dict[str, NDArray[Any]], output: str) -> tuple[list[Any], list[Any], int]:
    """tritonclient's inputs and outputs, and the bytes of the tensors."""
    made = []
    for name, values in inputs.items():
        tensor = module.InferInput(name, list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        made.append(tensor)
    return made, [module.InferRequestedOutput(output)], sum(values.nbytes for values in inputs.values())
