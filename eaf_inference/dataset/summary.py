"""The summary of a submission: counts, rates, retries, and each worker's share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference._html import escape, page
from eaf_inference._table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_inference.inference.truncation import Truncation

__all__ = ["Summary", "WorkerShare"]

_NAME = 12  # characters of a worker's name that are shown if they are unique; a gateway's names have 32


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """One worker's part of the work.

    Attributes
    ----------
    worker : str
        Name of the worker. A worker that replaces a lost one under the same name continues its row.
    chunks, jets : int
    seconds : float
        Time that its threads spent on these chunks, including reading.
    """

    worker: str
    chunks: int = 0
    jets: int = 0
    seconds: float = 0.0

    @property
    def inferences_per_second(self) -> float:
        """Rate of one of its threads while it was busy."""
        return self.jets / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class Summary:
    """Counts over the chunks whose scores were returned so far.

    Attributes
    ----------
    chunks, jets : int
        One jet is one row of the model's input.
    seconds : float
        From the call of `submit` to the latest scores.
    restarts : int
        Number of restarted chunks, because a worker was lost or the server was unavailable.
    retries : int
        Number of requests that were sent again.
    truncations : mapping of Truncation to int
        Jets with more constituents than the model accepts, and which ones were used.
    not_finite : int
        Jets with NaN or infinite scores although their inputs are finite.
    failed : int
        Chunks that were not scored.
    workers : tuple of WorkerShare
    """

    chunks: int
    jets: int
    seconds: float
    restarts: int
    retries: int
    truncations: Mapping[Truncation, int]
    not_finite: int
    failed: int
    workers: tuple[WorkerShare, ...]

    @property
    def truncated(self) -> int:
        """Jets with more constituents than the model accepts."""
        return sum(self.truncations.values())

    @property
    def inferences_per_second(self) -> float:
        return self.jets / self.seconds if self.seconds else 0.0

    @property
    def headline(self) -> str:
        return (
            f"{self.jets:,} jets in {self.chunks:,} chunks, {self.seconds:.1f} s, "
            f"{self.inferences_per_second:,.0f} jets/s, {self.restarts:,} chunks begun again, "
            f"{self.retries:,} requests sent again"
            + (f", {self.not_finite:,} jets with NaN or infinite scores" if self.not_finite else "")
            + (f", {self.failed:,} chunks failed" if self.failed else "")
        )

    def _table(self) -> Table:
        """Return the table of the workers."""
        shortest = [share.worker[:_NAME] for share in self.workers]
        unique = len(set(shortest)) == len(shortest)
        rows = [
            (
                share.worker[:_NAME] if unique else share.worker,
                f"{share.chunks:,}",
                f"{share.jets:,}",
                f"{share.inferences_per_second:,.0f}",
            )
            for share in self.workers
        ]
        return Table(("worker", "chunks", "jets", "jets/s a thread"), rows, numbers=(1, 2, 3))

    def __str__(self) -> str:
        return f"{self.headline}\n{self._table().text()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return page(escape(self.headline) + self._table().html())
