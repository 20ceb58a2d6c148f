"""What a worker does with a chunk of a data set: reads it, scores it, counts.

What is final comes back as a value and what may pass is raised, so that Dask runs again what is worth it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import distributed

from eaf_inference.dask.reading import read
from eaf_inference.errors import InferenceError, ModelNotReady, NoServerFound, ServerUnavailable
from eaf_inference.inference.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.inference.model import Model

__all__ = ["Failed", "Scored", "Task"]

_PATIENCE = 30.0  # seconds for which a worker that connects waits for a server that is away
_PAUSE = 1.0
_AWAY = (NoServerFound, ModelNotReady)


@dataclass(frozen=True, slots=True)
class Scored:
    """What a worker gives back for a chunk; the counts are those of `Traffic`."""

    scores: Any
    jets: int
    retries: int
    truncated: int
    leading: int
    not_finite: int
    seconds: float
    worker: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The same where running it again would not help; raised, it would be."""

    error: InferenceError


@dataclass(frozen=True, slots=True)
class Task:
    """What every worker does with its chunk."""

    model: Model
    select: Callable[[Any], Any] | None
    topic: str

    def __call__(self, number: int, chunk: Any) -> Scored | Failed:
        worker = distributed.get_worker()
        worker.log_event(self.topic, number)
        started = time.monotonic()
        try:
            data = read(chunk, self.model, self.select)
            scores, traffic = _patiently(self.model, data)
        except (ServerUnavailable, *_AWAY):
            raise
        except InferenceError as error:
            return Failed(error)
        seconds = time.monotonic() - started
        return Scored(
            scores=scores,
            jets=traffic.inferences,
            retries=traffic.retries,
            truncated=traffic.truncated,
            leading=traffic.leading,
            not_finite=traffic.not_finite,
            seconds=seconds,
            worker=str(worker.name),
        )


def _patiently(model: Model, data: Any) -> tuple[Any, Traffic]:
    """Scores; a worker that is new while the server restarts waits for it, as one that is connected does."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        traffic = Traffic()
        try:
            [scores] = model.map([data], progress=False, traffic=traffic)
        except _AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return scores, traffic
