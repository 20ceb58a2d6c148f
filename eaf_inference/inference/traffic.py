"""Counts of what a connection sends and receives, for Dask's heartbeat, the panel and the status line.

All threads of a process count together. The few rows of the padding check are left out, so that inferences are the
user's own jets.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from eaf_inference.inference.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eaf_inference.inference.truncation import Truncation

__all__ = ["Counted", "Retrying", "Traffic", "remarks"]


class Counted(Protocol):
    """The counts behind remarks: a call's `Traffic`, or the summary of many."""

    @property
    def truncations(self) -> Mapping[Truncation, int]: ...
    @property
    def not_finite(self) -> int: ...


def remarks(counted: Counted, name: str) -> list[str]:
    """Return what a user should know about the scores.

    Parameters
    ----------
    counted : Counted
    name : str
        The model's name.
    """
    found = [truncation.remark(rows, name) for truncation, rows in counted.truncations.items()]
    if counted.not_finite:
        found.append(
            f"{counted.not_finite:,} jets have NaN or infinite scores of {name!r}, although their inputs are finite. "
            "Find them with numpy.isfinite; the model's owner can say why."
        )
    return found


@dataclass(frozen=True, slots=True)
class Retrying:
    """An outage, during which requests are retried.

    Attributes
    ----------
    reason : str
        The cause in a few words.
    ends : float
        When the retries end, by the monotonic clock.
    """

    reason: str
    ends: float

    @property
    def left(self) -> int:
        """Whole seconds until the retries end."""
        return max(0, round(self.ends - time.monotonic()))

    def __str__(self) -> str:
        return f"{self.reason}, retrying, {self.left} s left"


class Traffic:
    """Totals since the connection was opened, and what is in flight.

    Attributes
    ----------
    requests, inferences : int
        Answered requests and inferences. An inference is one row of a batch, as in Triton's counters.
    nbytes : int
        Bytes of the tensors of answered requests.
    retries : int
        Requests that were sent again.
    truncations : Counter of Truncation
        Rows with more constituents than the model takes.
    not_finite : int
        Rows with a NaN or an infinity in their scores and none in the caller's numbers.
    elsewhere : int
        Rows that Dask workers scored for this connection's submissions.
    in_flight : int
        Requests sent and not yet answered.
    latency : float or None
        Seconds from sending to reply, of the latest reply; None before the first.
    retrying : Retrying or None
        Set during an outage.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage collection may end a submission under this lock
        self._whole: Traffic | None = None
        self.requests = self.inferences = self.nbytes = self.retries = self.in_flight = 0
        self.not_finite = self.elsewhere = 0
        self.truncations: Counter[Truncation] = Counter()
        self._submissions = 0  # running
        self.latency: float | None = None
        self.retrying: Retrying | None = None
        self._rate = Rate()

    @property
    def inferences_per_second(self) -> float | None:
        """The rate of the current run; 0 after it, None before the first."""
        with self._lock:
            return self._rate.per_second(time.monotonic(), busy=self.in_flight > 0 or self._submissions > 0)

    def part_of(self, whole: Traffic) -> None:
        """Also count everything in `whole`, the connection's traffic, from now on."""
        self._whole = whole

    def sent(self, *, again: bool) -> None:
        with self._lock:
            self.in_flight += 1
            self.retries += again
            if not again:
                self._began()
        if self._whole is not None:
            self._whole.sent(again=again)

    def answered(self, inferences: int, nbytes: int, seconds: float) -> None:
        with self._lock:
            self.in_flight -= 1
            self.requests += 1
            self.inferences += inferences
            self.nbytes += nbytes
            self.latency = seconds
            if self.retrying is not None:
                self._began(after_outage=True)
            self._counted()
        if self._whole is not None:
            self._whole.answered(inferences, nbytes, seconds)

    def failed(self) -> None:
        with self._lock:
            self.in_flight -= 1
        if self._whole is not None:
            self._whole.failed()

    def retries_until(self, retrying: Retrying | None) -> None:
        """Note an outage; None when it is over or the call fails."""
        self.retrying = retrying
        if self._whole is not None:
            self._whole.retries_until(retrying)

    def cut(self, truncation: Truncation, rows: int) -> None:
        with self._lock:
            self.truncations[truncation] += rows
        if self._whole is not None:
            self._whole.cut(truncation, rows)

    def not_finite_of(self, rows: int) -> None:
        with self._lock:
            self.not_finite += rows
        if self._whole is not None:
            self._whole.not_finite_of(rows)

    def submitted(self) -> None:
        """Note that workers begin to score a submission."""
        with self._lock:
            self._submissions += 1
            self._began()

    def submission_ended(self) -> None:
        with self._lock:
            self._submissions -= 1

    def _began(self, *, after_outage: bool = False) -> None:
        alone = after_outage or self.in_flight + self._submissions == 1
        self._rate.began(time.monotonic(), self.inferences + self.elsewhere, alone=alone)

    def _counted(self) -> None:
        self._rate.counted(time.monotonic(), self.inferences + self.elsewhere)

    def scored_elsewhere(self, rows: int) -> None:
        with self._lock:
            self.elsewhere += rows
            self._counted()

    def abandoned(self, requests: int) -> None:
        with self._lock:
            self.in_flight -= requests
        if self._whole is not None:
            self._whole.abandoned(requests)

    def totals(self) -> dict[str, Any]:
        """Return all counts of one moment, ready for JSON."""
        with self._lock:
            return {
                "requests": self.requests,
                "inferences": self.inferences,
                "bytes": self.nbytes,
                "retries": self.retries,
                "truncated": self.truncations.total(),
                "not_finite": self.not_finite,
                "in_flight": self.in_flight,
                "latency": self.latency,
            }
