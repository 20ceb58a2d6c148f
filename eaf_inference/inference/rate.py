"""Jets a second, as bar, panel, widget and status show them: one number, over the present run.

A run is work without a pause of five seconds or more, of which the last minute counts: the same window as that of the
server's figures (`eaf_inference.metrics.average`), which count all users' requests.
"""

from __future__ import annotations

from collections import deque

__all__ = ["LONGEST", "PAUSE", "Rate"]

PAUSE = 5.0  # seconds without a request that end a run
LONGEST = 60.0  # seconds of a run that count
_APART = 0.25  # seconds between two moments that are kept


class Rate:
    """Counts inferences over time. The caller's lock guards it; times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._moments: deque[tuple[float, int]] = deque()  # when, and how many until then; the first began the run
        self._active = float("-inf")  # the last time that anything was under way

    def began(self, now: float, total: int, *, alone: bool) -> None:
        """A request is sent, after so many inferences in all; alone if no other one is under way."""
        if alone and now - self._active >= PAUSE:
            self._moments.clear()
            self._moments.append((now, total))
        self._active = now

    def counted(self, now: float, total: int) -> None:
        """There are so many inferences in all."""
        moments = self._moments
        self._active = now
        if len(moments) > 1 and now - moments[-2][0] < _APART:
            moments.pop()
        moments.append((now, total))
        while len(moments) > 2 and now - moments[1][0] >= LONGEST:
            moments.popleft()

    def per_second(self, now: float, *, busy: bool) -> float | None:
        """Inferences/s of the run.

        Parameters
        ----------
        busy : bool
            Whether a request is under way, so that the run lasts until now.

        Returns
        -------
        float or None
            0 once the run is over; None before there was one.
        """
        if not self._moments:
            return None
        if not busy and now - self._active >= PAUSE:
            return 0.0
        since, before = self._moments[0]
        ends, total = self._moments[-1]
        seconds = (now if busy else ends) - since
        return (total - before) / seconds if seconds > 0 and len(self._moments) > 1 else None
