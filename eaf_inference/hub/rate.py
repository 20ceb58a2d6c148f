"""How often one user may ask: a bucket for each, of those who asked lately."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rate"]

_MOST_USERS = 10_000  # whose buckets are kept: far more than ask within the time that fills one


class Rate:
    """Buckets that hold `burst` and are filled with `per_minute`.

    Parameters
    ----------
    per_minute, burst : float
    clock : callable
        Seconds, from whenever.
    """

    def __init__(self, per_minute: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # user -> content, when

    def take(self, user: str) -> float:
        """Take one and give 0; where there is none, give the seconds until there is."""
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
