"""ONNX Runtime on this machine without a server: one thread, as in the CPU facility's Triton."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_facility.study.clients import batches
from eaf_facility.study.workloads import local_session
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_facility.study.clients import Job, RequestLog
    from eaf_facility.study.workloads import Data

__all__ = ["Client"]


class Client:
    """Local inference."""

    def __init__(self, job: Job) -> None:
        if job.file is None:
            raise ConfigurationError(f"There is no ONNX file of {job.workload.model!r} to run locally.")
        self._session = local_session(Path(job.file))
        self._output, self._batch = job.workload.output, job.entry.batch or 1

    def run(self, data: Data, log: RequestLog) -> Iterator[NDArray[Any]]:
        for chunk in data.chunks():
            scores = []
            for rows in batches(data.padded(chunk), self._batch):
                began = time.monotonic()
                scores.append(self._session.run([self._output], rows)[0])
                log.add(time.monotonic() - began, 0)
            yield np.concatenate(scores)
