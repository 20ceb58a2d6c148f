"""What was done over a cluster, in figures: how much, how fast, how often again, and by which worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eaf_inference.tables import aligned

__all__ = ["Summary", "WorkerShare"]

_NAME = 12  # characters of a worker's name, where they tell it from the others; a gateway's names have 32


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """One worker's part of the work.

    Attributes
    ----------
    worker : str
        Its name; a worker that takes a lost one's place under the same name goes on with its row.
    chunks, jets : int
    seconds : float
        That its threads spent on these chunks, reading included.
    """

    worker: str
    chunks: int = 0
    jets: int = 0
    seconds: float = 0.0

    @property
    def jets_per_second(self) -> float:
        """Of one of its threads, while it was busy."""
        return self.jets / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class Summary:
    """The chunks whose scores were handed over, so far or in all.

    Attributes
    ----------
    chunks, jets : int
        A jet is one row that was sent to the model.
    seconds : float
        From the call of `submit` to the latest scores.
    restarts : int
        How often a chunk was begun again: its worker was lost, or the server away.
    retries : int
        Requests that were sent to the server once more.
    truncated : int
        Jets with more constituents than the model takes: those of largest pt were used.
    leading : int
        Those of them whose leading constituents were used instead, since no pt is known.
    not_finite : int
        Jets with NaN or infinite scores, although their inputs are finite.
    workers : tuple of WorkerShare
    """

    HEADS: ClassVar = ("worker", "chunks", "jets", "jets/s a thread")

    chunks: int
    jets: int
    seconds: float
    restarts: int
    retries: int
    truncated: int
    leading: int
    not_finite: int
    workers: tuple[WorkerShare, ...]

    @property
    def jets_per_second(self) -> float:
        return self.jets / self.seconds if self.seconds else 0.0

    @property
    def headline(self) -> str:
        return (
            f"{self.jets:,} jets in {self.chunks:,} chunks, {self.seconds:.1f} s, "
            f"{self.jets_per_second:,.0f} jets/s, {self.restarts:,} chunks begun again, "
            f"{self.retries:,} requests sent again"
            + (f", {self.not_finite:,} jets with NaN or infinite scores" if self.not_finite else "")
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The workers, under `HEADS`."""
        shortest = [share.worker[:_NAME] for share in self.workers]
        unique = len(set(shortest)) == len(shortest)
        return [
            (
                share.worker[:_NAME] if unique else share.worker,
                f"{share.chunks:,}",
                f"{share.jets:,}",
                f"{share.jets_per_second:,.0f}",
            )
            for share in self.workers
        ]

    def __str__(self) -> str:
        return f"{self.headline}\n{aligned(self.HEADS, self.rows())}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from eaf_inference.notebook.display import summary_html

        return summary_html(self)
