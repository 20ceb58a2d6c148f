"""Jets per second over the current run: the one rate that bar, panel, widget and status show.

A run is work without a pause of five seconds or more. Its last minute counts, the same window as for the server's
rates (`eaf_inference.metrics.average`), which include all users' requests.
"""

from __future__ import annotations

from collections import deque

__all__ = ["LONGEST", "PAUSE", "Rate"]

PAUSE = 5.0  # seconds without a request, which end a run
LONGEST = 60.0  # seconds of a run that count
_SPACING = 0.25  # seconds between the moments that are kept


class Rate:
    """Counts inferences over time, under the caller's lock. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._moments: deque[tuple[float, int]] = deque()  # time and total; the first began the run
        self._active = float("-inf")  # when a request was last in flight

    def began(self, now: float, total: int, *, alone: bool) -> None:
        """Note that a request is sent after `total` inferences; `alone` if no other one is in flight."""
        if alone and now - self._active >= PAUSE:
            self._moments.clear()
            self._moments.append((now, total))
        self._active = now

    def counted(self, now: float, total: int) -> None:
        """Note the total of inferences."""
        moments = self._moments
        self._active = now
        if len(moments) > 1 and now - moments[-2][0] < _SPACING:
            moments.pop()
        moments.append((now, total))
        while len(moments) > 2 and now - moments[1][0] >= LONGEST:
            moments.popleft()

    def per_second(self, now: float, *, busy: bool) -> float | None:
        """Return the inferences/s of the run.

        Parameters
        ----------
        busy : bool
            Whether a request is in flight, so that the run lasts until now.

        Returns
        -------
        float or None
            0 after the run; None before the first one.
        """
        if not self._moments:
            return None
        if not busy and now - self._active >= PAUSE:
            return 0.0
        since, before = self._moments[0]
        ends, total = self._moments[-1]
        seconds = (now if busy else ends) - since
        return (total - before) / seconds if seconds > 0 and len(self._moments) > 1 else None
