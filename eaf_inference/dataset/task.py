"""What is done for one part of a data set, in this process or on a worker: read it, score it, and count.

An error of the part or the server is returned as a value, because who sent the part decides whether and where to try
again.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from eaf_inference.dataset.reading import Ranges, read
from eaf_inference.dataset.results import Scored
from eaf_inference.errors import InferenceError, ModelNotReady, NoServerFound
from eaf_inference.inference.named_inputs import NamedInputs, selected
from eaf_inference.inference.traffic import Traffic
from eaf_inference.inference.variations import score_variations

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.dataset.parts import Part
    from eaf_inference.inference.fingerprint import Fingerprint
    from eaf_inference.inference.model import Model

__all__ = ["Failed", "Task"]

_PATIENCE = 30.0  # seconds for which a worker that connects waits for an unavailable server
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Failed:
    """The error of a part, and where it occurred."""

    error: Exception
    worker: str


@dataclass(frozen=True, slots=True)
class Task:
    """The function that is called for each part, with what it needs besides the part.

    Attributes
    ----------
    model : Model
    select, schema
        See `Connection.submit`.
    fingerprint : Fingerprint
        Of the model at the start of the run. Scores of another are not returned.
    most_bytes : int
        Of the columns in memory: a larger file is not read, and its ranges are returned instead.
    ids : bool
        Also read the columns that identify an event.
    """

    model: Model
    select: Callable[[Any], Any] | None
    fingerprint: Fingerprint
    schema: Any = None
    most_bytes: int | None = None
    ids: bool = False

    def __call__(self, part: Part, data: Any = None, *, worker: str = "") -> Scored | Ranges | Failed:
        """Score a part; `data` is the array, if it is one."""
        worker = worker or threading.current_thread().name
        started = time.monotonic()
        try:
            select = self.select and partial(selected, self.select)
            found = read(part, self.model, select, data, schema=self.schema, most_bytes=self.most_bytes, ids=self.ids)
            if isinstance(found, Ranges):
                return found
            scores, traffic = self._patiently(found.data)
        except InferenceError as error:
            return Failed(error, worker)
        return Scored(
            scores=scores,
            entries=found.entries,
            ids=found.ids,
            aligned=found.aligned,
            jets=traffic.inferences,
            requests=traffic.requests,
            nbytes=traffic.nbytes,
            retries=traffic.retries,
            truncations=traffic.truncations,
            not_finite=traffic.not_finite,
            seconds=time.monotonic() - started,
            worker=worker,
            process=os.getpid(),
        )

    def _patiently(self, data: Any) -> tuple[Any, Traffic]:
        """Score the data; a new worker waits for a restarting server, as a connected one does."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            traffic = Traffic()
            try:
                with self.model.unchanged(self.fingerprint, since_latest=True):
                    scores = self._scores(data, traffic)
            except (NoServerFound, ModelNotReady):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                return scores, traffic

    def _scores(self, data: Any, traffic: Traffic) -> Any:
        if isinstance(data, NamedInputs):
            return score_variations(self.model, data, progress=False, traffic=traffic)
        [scores] = self.model.map([data], progress=False, traffic=traffic)
        return scores
