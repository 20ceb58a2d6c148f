"""This client, as a user has it: one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from eaf_inference.inference.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_inference.bench.contenders import Entry, Notes, Service
    from eaf_inference.bench.workloads import Chunk, Data, Workload

__all__ = ["Contestant"]


class _Noted(Traffic):
    """Counts, and keeps each request's time."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self._notes = notes

    def answered(self, inferences: int, nbytes: int, seconds: float) -> None:
        super().answered(inferences, nbytes, seconds)
        self._notes.request(seconds, nbytes)


class Contestant:
    """eaf-inference."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None:  # noqa: ARG002  (it chooses itself)
        self._connection = eaf_inference.connect(service.url)
        self._model = self._connection.model(workload.model)
        self._jagged = workload.source == "particlenet"

    def run(self, data: Data, notes: Notes) -> Iterator[NDArray[Any]]:
        chunks = (self._input(chunk) for chunk in data.chunks())
        for scores in self._model.map(chunks, progress=False, traffic=_Noted(notes)):
            yield _as_numpy(scores)

    def _input(self, chunk: Chunk) -> Any:
        if chunk.records is not None:
            return chunk.records
        assert chunk.dense is not None  # noqa: S101
        # lists, though all of one length: then it chooses the size of its batches
        return {name: ak.from_numpy(each) for name, each in chunk.dense.items()} if self._jagged else chunk.dense


def _as_numpy(scores: Any) -> NDArray[Any]:
    if isinstance(scores, np.ndarray):
        return scores
    if scores.fields:
        return np.stack([ak.to_numpy(scores[name]) for name in scores.fields], axis=-1)
    made: NDArray[Any] = ak.to_numpy(scores)
    return made
