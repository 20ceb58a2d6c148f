"""ONNX Runtime on this machine, without any server: one thread, as the CPU facility's Triton has it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.bench.contenders import batches
from eaf_inference.bench.workloads import local_session
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_inference.bench.contenders import Entry, Notes, Service
    from eaf_inference.bench.workloads import Data, Workload

__all__ = ["Contestant"]


class Contestant:
    """Local inference."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None:
        if service.file is None:
            raise ConfigurationError(f"There is no ONNX file of {workload.model!r} to run locally.")
        self._session = local_session(service.file)
        self._output, self._batch = workload.output, entry.batch or 1

    def run(self, data: Data, notes: Notes) -> Iterator[NDArray[Any]]:
        for chunk in data.chunks():
            scores = []
            for rows in batches(data.padded(chunk), self._batch):
                began = time.monotonic()
                scores.append(self._session.run([self._output], rows)[0])
                notes.request(time.monotonic() - began, 0)
            yield np.concatenate(scores)
