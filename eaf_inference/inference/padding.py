"""Whether a model's scores depend on padding: tried once, with the user's own jets.

A graph network whose masks are right gives the same scores whatever the padded length; one whose masks are not
gives other ones, silently. Some rows, the shortest among them, are sent at different lengths; where the scores
differ, the model is used at its fixed length or, where it declares none, without padding at all.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import BadReply, InvalidInput
from eaf_inference.inference.batching import Lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from eaf_inference.inference.batching import Batch, Job
    from eaf_inference.inference.spec import ModelSpec

__all__ = ["Found", "PaddingCheck"]

_TOLERANCE = 1e-5  # float32 noise stays below 4e-7
_ROWS = 8  # of each kind, short and middling
_MORE = 64  # constituents of padding added where the model declares no maximum


@dataclass(frozen=True, slots=True)
class Found:
    """What the rows of a model are padded to, and the sentence about it where it is worth saying."""

    lengths: Lengths
    note: str = ""


class PaddingCheck:
    """The lengths to which one model's rows are padded.

    One serves all copies of a model in a process: their threads search once, the others wait for the finding.

    Attributes
    ----------
    found : Found or None
        None before the search.
    maximum : int or None
        The most constituents that the model takes.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._name = spec.name
        self._declared = _declared_lengths(spec)
        self._searching = threading.Lock()
        self.found: Found | None = None

    @property
    def note(self) -> str:
        return self.found.note if self.found else ""

    def adopt(self, found: Found | None) -> None:
        """Take what another process found, where this one has found nothing yet."""
        with self._searching:
            self.found = self.found or found

    @property
    def maximum(self) -> int | None:
        return self._declared.maximum

    def lengths(self, job: Job, send: Callable[[Batch], Mapping[str, NDArray[Any]]]) -> Lengths:
        """What to pad this job's rows to; the first call with suitable rows sends a few of them.

        Parameters
        ----------
        job : Job
        send : callable
            Sends a batch and waits for its outputs.
        """
        own = self._declared
        if own.minimum == own.maximum or not job.is_ragged:
            return own
        with self._searching:
            if self.found is None:
                rows = job.shortest_first()
                most = min(_ROWS, job.max_batch_size)
                short = rows[:most]
                if own.maximum is not None:  # a row of that length tells nothing
                    tells = [max(job.batch(short[[at]], own).lengths) < own.maximum for at in range(len(short))]
                    short = short[tells]
                if not len(short):
                    return own
                middling = rows[: len(rows) // 2 + 1]
                self.found = self._try(job, short, middling[:: -(-len(middling) // most)], send)
        return self.found.lengths

    def _try(
        self,
        job: Job,
        short: NDArray[np.int64],
        middling: NDArray[np.int64],
        send: Callable[[Batch], Mapping[str, NDArray[Any]]],
    ) -> Found:
        own = self._declared
        longest = max(job.batch(middling, own).lengths)
        most = own.maximum if own.maximum is not None else longest + _MORE
        long = Lengths(minimum=most, maximum=own.maximum)
        least, at_least = self._least_accepted(job, short, most, send)
        why = "its scores depend on the padding"
        if at_least is None:
            same, why = False, "it refuses shorter ones"
        else:
            same = _agree(job, short, at_least, send(job.batch(short, long)))
            if same and least < longest < most:
                same = _agree(job, middling, send(job.batch(middling, own)), send(job.batch(middling, long)))
        if same:
            # shorter rows than these may come later: they are padded to a length that has been seen to work
            return Found(Lengths(minimum=least, maximum=own.maximum))
        if own.maximum is not None:
            note = f"every row is padded to {own.maximum}: {why}"
            lengths = Lengths(minimum=own.maximum, maximum=own.maximum)
        else:
            note = f"rows of one length are sent together, unpadded: {why}"
            lengths = Lengths(minimum=own.minimum, exact=True)
        warnings.warn(
            f"Model {self._name!r}: {note}. That costs time; a model with correct masks does not need it.",
            stacklevel=5,  # the line that called the model
        )
        return Found(lengths, note)

    def _least_accepted(
        self,
        job: Job,
        rows: NDArray[np.int64],
        most: int,
        send: Callable[[Batch], Mapping[str, NDArray[Any]]],
    ) -> tuple[int, Mapping[str, NDArray[Any]] | None]:
        """The shortest length that the model takes, and its outputs there.

        A recipe does not say how many neighbours its network looks for; with fewer points than that it fails.
        """
        least = max(job.batch(rows, self._declared).lengths)
        while least < most:
            try:
                return least, send(job.batch(rows, Lengths(minimum=least, maximum=self._declared.maximum)))
            except (InvalidInput, BadReply):
                least *= 2
        return most, None


def _declared_lengths(spec: ModelSpec) -> Lengths:
    """What recipe and shapes say."""
    recipe = spec.recipe
    if recipe is None:
        return Lengths()
    sizes = {tensor.shape[1] for tensor in spec.inputs if tensor.name in recipe.inputs and tensor.shape[1] != -1}
    if sizes:
        return Lengths(minimum=max(sizes), maximum=min(sizes))
    maximum = recipe.max_length
    return Lengths(minimum=recipe.min_length or 1, maximum=maximum)


def _agree(
    job: Job,
    rows: NDArray[np.int64],
    ours: Mapping[str, NDArray[Any]],
    longer: Mapping[str, NDArray[Any]],
) -> bool:
    """Whether the outputs are equal, apart from those of padding."""
    shortest = job.shortest_of(rows)
    for name, values in ours.items():
        other = longer[name]
        for axis in range(values.ndim):
            if values.shape[axis] != other.shape[axis]:
                values, other = (np.take(each, range(shortest), axis=axis) for each in (values, other))
        if not np.allclose(values, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            return False
    return True
