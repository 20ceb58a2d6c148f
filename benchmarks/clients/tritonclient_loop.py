"""NVIDIA's tritonclient in a blocking loop: send a request, wait for its reply, send the next one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient import grpc

from eaf_facility.study.clients import batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from numpy.typing import NDArray

    from eaf_facility.study.clients import Job, RequestLog
    from eaf_facility.study.workloads import Data

__all__ = ["Client", "make_request"]


class Client:
    """tritonclient, blocking."""

    def __init__(self, job: Job) -> None:
        self._client = grpc.InferenceServerClient(job.address)
        self._workload, self._batch = job.workload, job.entry.batch or 1

    def run(self, data: Data, log: RequestLog) -> Iterator[NDArray[Any]]:
        workload = self._workload
        for chunk in data.chunks():
            scores = []
            for rows in batches(data.padded(chunk), self._batch):
                inputs, outputs, nbytes = make_request(grpc, rows, workload.output)
                began = time.monotonic()
                reply = self._client.infer(workload.model, inputs, outputs=outputs)
                log.add(time.monotonic() - began, nbytes)
                scores.append(reply.as_numpy(workload.output))
            yield np.concatenate(scores)


def make_request(module: ModuleType, rows: dict[str, NDArray[Any]], output: str) -> tuple[list[Any], list[Any], int]:
    """Return tritonclient's inputs and outputs of a request, and the bytes of its tensors."""
    inputs = []
    for name, values in rows.items():
        tensor = module.InferInput(name, list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return inputs, [module.InferRequestedOutput(output)], sum(values.nbytes for values in rows.values())
