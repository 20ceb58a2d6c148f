"""The requests of a call of a model, and what is learned from their replies."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference.pipeline import Pipeline
from eaf_inference.inference.request import Inference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.errors import InferenceError
    from eaf_inference.inference.pipeline import Limits
    from eaf_inference.inference.request import Sendable
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.traffic import Retrying
    from eaf_inference.inference.transport import Channel
    from eaf_inference.inference.tuning import Tuning

__all__ = ["Feedback", "Scoring", "try_batches"]


class _Outputs(Protocol):
    """Where the outputs of batches go."""

    def put(self, batch: Any, outputs: Mapping[str, NDArray[Any]]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Scoring(Inference):
    """The inference of one batch, whose outputs are put where they belong."""

    outputs: _Outputs
    tuning: Tuning

    def halves(self) -> Sequence[Any]:
        self.tuning.refused(self.batch.cells)
        return [replace(self, batch=half) for half in self.batch.halves()]


class Feedback:
    """Tell a model's tuning what requests take, and the pipeline whether the server is crowded.

    Parameters
    ----------
    pipeline : Pipeline
    tuning : Tuning
    spec : ModelSpec
    look : callable
        Reads the counters of a server.
    """

    def __init__(
        self, pipeline: Pipeline[Scoring], tuning: Tuning, spec: ModelSpec, look: Callable[[], None]
    ) -> None:
        self._pipeline = pipeline
        self._tuning = tuning
        self._spec = spec
        self._look = look
        pipeline.window.crowded = tuning.crowd.long  # as in an earlier call
        self._previous: float | None = None  # when the latest reply came

    def replied(self, batch: Sendable, *, full: bool) -> None:
        """Learn from the reply that the pipeline has just given.

        Parameters
        ----------
        batch : Sendable
        full : bool
            The pipeline had as many requests in flight as it may have.
        """
        latest = self._pipeline.latest
        if latest is None:  # it was retried
            self.pause()
            return
        ended, seconds = latest
        crowd = self._tuning.crowd
        with self._pipeline.interrupts:
            if crowd.due(seconds):
                self._look()
            self._pipeline.window.crowded = crowd.long
        if batch.cells:
            self._tuning.answered(batch.cells, seconds)
            if full and self._previous is not None and not crowd.long:  # in a crowd, others' requests come between
                self._tuning.followed(batch.cells, ended - self._previous)
        self._previous = ended
        if full:  # otherwise it may be the last batch
            self._tuning.full = self._full(batch.size)

    def _full(self, rows: int) -> str:
        """Return which setting of the model bounds a batch of this many rows, if one does."""
        if rows == self._spec.largest_batch:
            return f"max_batch_size, {rows:,} rows"
        return f"preferred_batch_size, {rows:,} rows" if rows in (self._spec.merged or ()) else ""

    def pause(self) -> None:
        """The time until the next reply is not the server's alone."""
        self._previous = None


def try_batches(
    channels: Sequence[Channel],
    limits: Limits,
    spec: ModelSpec,
    trials: Sequence[Sendable],
    *,
    waiting: Callable[[Retrying | None], None],
) -> list[dict[str, NDArray[Any]] | InferenceError]:
    """Send the batches of a check of padding or unions, and return the outputs of each or the model's refusal."""
    outcomes: list[dict[str, NDArray[Any]] | InferenceError] = []
    while len(outcomes) < len(trials):
        # the first one alone, so that a refused token is sent once and not with every batch
        several = limits.max_in_flight if outcomes else 1
        with ExitStack() as stack:
            pipelines = []
            # one pipeline per batch, so that a refusal ends only its own
            for batch in trials[len(outcomes) : len(outcomes) + several]:
                pipelines.append(stack.enter_context(Pipeline[Inference](channels, limits, waiting=waiting)))
                pipelines[-1].submit(Inference(spec, batch))
            for pipeline in pipelines:
                try:
                    request, reply = pipeline.next_reply()
                    outcomes.append(request.read(reply))
                except (InvalidInput, BadReply) as error:
                    outcomes.append(error)
    return outcomes
