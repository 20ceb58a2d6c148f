"""This project's client, as a user calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import awkward as ak

import eaf_inference
from eaf_facility.study.workloads import numbers_of
from eaf_inference.inference.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_facility.study.clients import Job, RequestLog
    from eaf_facility.study.workloads import Chunk, Data

__all__ = ["Client"]


class _LoggedTraffic(Traffic):
    """Traffic that also logs the latency of each request."""

    def __init__(self, log: RequestLog) -> None:
        super().__init__()
        self._log = log

    def answered(self, inferences: int, nbytes: int, seconds: float) -> None:
        super().answered(inferences, nbytes, seconds)
        self._log.add(seconds, nbytes)


class Client:
    """eaf-inference."""

    def __init__(self, job: Job) -> None:
        self._connection = eaf_inference.connect(job.url)
        self._model = self._connection.model(job.workload.model)
        self._ragged = job.workload.source == "particlenet"

    def run(self, data: Data, log: RequestLog) -> Iterator[NDArray[Any]]:
        chunks = (self._input(chunk) for chunk in data.chunks())
        for scores in self._model.map(chunks, progress=False, traffic=_LoggedTraffic(log)):
            yield numbers_of(scores)

    def _input(self, chunk: Chunk) -> Any:
        if chunk.records is not None:
            return chunk.records
        assert chunk.dense is not None  # noqa: S101
        # ragged arrays, although all lists have one length, make the client choose the batch size
        return {name: ak.from_numpy(each) for name, each in chunk.dense.items()} if self._ragged else chunk.dense
