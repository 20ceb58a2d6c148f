"""Rate limit per user: a token bucket for each user who asked recently."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rate"]

_MOST_USERS = 10_000  # buckets kept: far more users than ask within the time that refills one


class Rate:
    """Token buckets of size `burst` that are refilled at `per_minute`.

    Parameters
    ----------
    per_minute, burst : float
    clock : callable
        Returns seconds from any starting point.
    """

    def __init__(self, per_minute: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # user -> content, time

    def take(self, user: str) -> float:
        """Take one and return 0, or return the seconds until one is available."""
        now = self._clock()
        content, when = self._buckets.pop(user, (self._burst, now))
        content = min(self._burst, content + max(0.0, now - when) * self._per_second)
        wait = 0.0 if content >= 1 else (1 - content) / self._per_second
        self._buckets[user] = (content - 1 if wait == 0 else content, now)
        if len(self._buckets) > _MOST_USERS:
            self._buckets.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._buckets)
