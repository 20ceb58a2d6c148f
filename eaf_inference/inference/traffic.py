"""What one connection has sent and got back, counted for whoever watches: Dask's heartbeat, a status line.

Counted where requests end, by all threads of a process together; the padding check's few rows are left out, so
that inferences are the user's own jets.
"""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Traffic"]


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
    in_flight : int
        Requests sent and not yet answered.
    latency : float or None
        Seconds between sending and reply, of the latest reply; None before there is one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._whole: Traffic | None = None
        self.requests = self.inferences = self.nbytes = self.retries = self.truncated = self.in_flight = 0
        self.latency: float | None = None

    def part_of(self, whole: Traffic) -> None:
        """From now on the whole counts what this one counts: one call of a connection's many."""
        self._whole = whole

    def sent(self) -> None:
        with self._lock:
            self.in_flight += 1
        if self._whole is not None:
            self._whole.sent()

    def answered(self, inferences: int, nbytes: int, seconds: float) -> None:
        with self._lock:
            self.in_flight -= 1
            self.requests += 1
            self.inferences += inferences
            self.nbytes += nbytes
            self.latency = seconds
        if self._whole is not None:
            self._whole.answered(inferences, nbytes, seconds)

    def failed(self, *, again: bool) -> None:
        with self._lock:
            self.in_flight -= 1
            self.retries += again
        if self._whole is not None:
            self._whole.failed(again=again)

    def cut(self, rows: int) -> None:
        with self._lock:
            self.truncated += rows
        if self._whole is not None:
            self._whole.cut(rows)

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
                "in_flight": self.in_flight,
                "latency": self.latency,
            }
