"""What one connection has sent and got back, counted for whoever watches: Dask's heartbeat, a status line.

Counted where requests end, by all threads of a process together; the padding check's few rows are left out, so
that inferences are the user's own jets.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from eaf_inference.inference.rate import Rate

__all__ = ["Counted", "Retrying", "Traffic", "remarks"]


class Counted(Protocol):
    """What remarks are made of: a call's `Traffic`, or the summary of many."""

    @property
    def truncated(self) -> int: ...
    @property
    def leading(self) -> int: ...
    @property
    def not_finite(self) -> int: ...


def remarks(counted: Counted, name: str, longest: int | None) -> list[str]:
    """What a user has to know of her scores.

    Parameters
    ----------
    counted : Counted
    name : str
        The model's.
    longest : int or None
        The most constituents that it takes.
    """
    found = []
    for jets, kept in (
        (counted.truncated - counted.leading, f"their {longest} of largest pt were used"),
        (counted.leading, f"their leading {longest} were used, in the order given, as they have no field pt"),
    ):
        if jets:
            found.append(f"{jets:,} jets have more than the {longest} constituents that {name!r} takes; {kept}.")
    if counted.not_finite:
        found.append(
            f"{counted.not_finite:,} jets have NaN or infinite scores of {name!r}, although their inputs are finite. "
            "Find them with numpy.isfinite; the model's owner can say why."
        )
    return found


@dataclass(frozen=True, slots=True)
class Retrying:
    """Requests are sent again and again, because no server takes them.

    Attributes
    ----------
    reason : str
        In a few words.
    ends : float
        When that is given up, by the monotonic clock.
    """

    reason: str
    ends: float

    @property
    def left(self) -> int:
        """Whole seconds until then."""
        return max(0, round(self.ends - time.monotonic()))

    def __str__(self) -> str:
        return f"{self.reason}, retrying, {self.left} s left"


class Traffic:
    """Totals since the connection was opened, and what is under way.

    Attributes
    ----------
    requests, inferences : int
        Answered; an inference is one row of a batch, as Triton counts.
    nbytes : int
        Bytes of the tensors of answered requests.
    retries : int
        Requests that were sent once more.
    truncated : int
        Rows that were longer than the model takes.
    leading : int
        Those of them whose leading constituents were kept, since nothing told the hardest.
    not_finite : int
        Rows with a NaN or an infinity in their scores and none in the caller's numbers.
    elsewhere : int
        Rows that Dask workers scored for this connection's submissions.
    in_flight : int
        Requests sent and not yet answered.
    latency : float or None
        Seconds between sending and reply, of the latest reply; None before there is one.
    retrying : Retrying or None
        During an outage.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage collection may end a submission while this thread holds it
        self._whole: Traffic | None = None
        self.requests = self.inferences = self.nbytes = self.retries = self.in_flight = 0
        self.truncated = self.leading = self.not_finite = self.elsewhere = 0
        self._submissions = 0  # under way
        self.latency: float | None = None
        self.retrying: Retrying | None = None
        self._rate = Rate()

    @property
    def inferences_per_second(self) -> float | None:
        """Of the present run; 0 where it is over, None before the first."""
        with self._lock:
            return self._rate.per_second(time.monotonic(), busy=self.in_flight > 0 or self._submissions > 0)

    def part_of(self, whole: Traffic) -> None:
        """From now on the whole counts what this one counts: one call of a connection's many."""
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
        """Note an outage; None when it is over, or the call is given up."""
        self.retrying = retrying
        if self._whole is not None:
            self._whole.retries_until(retrying)

    def cut(self, rows: int, *, leading: bool) -> None:
        with self._lock:
            self.truncated += rows
            self.leading += rows if leading else 0
        if self._whole is not None:
            self._whole.cut(rows, leading=leading)

    def not_finite_of(self, rows: int) -> None:
        with self._lock:
            self.not_finite += rows
        if self._whole is not None:
            self._whole.not_finite_of(rows)

    def submitted(self) -> None:
        """Workers begin to score for a submission."""
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

    def given_up(self, requests: int) -> None:
        with self._lock:
            self.in_flight -= requests
        if self._whole is not None:
            self._whole.given_up(requests)

    def totals(self) -> dict[str, Any]:
        """All of it at one moment, ready for JSON."""
        with self._lock:
            return {
                "requests": self.requests,
                "inferences": self.inferences,
                "bytes": self.nbytes,
                "retries": self.retries,
                "truncated": self.truncated,
                "not_finite": self.not_finite,
                "in_flight": self.in_flight,
                "latency": self.latency,
            }
