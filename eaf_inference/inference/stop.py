"""End a call from another thread, as a cancelled asyncio task does.

A thread cannot be killed, so each of its pipelines asks before it sends and before it waits, and is woken while it
waits.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Stop", "stop_of_this_call", "stopped_with"]

_current: ContextVar[Stop | None] = ContextVar("stop", default=None)


class Stop:
    """A request to end a call."""

    def __init__(self) -> None:
        self._requested = False
        self._wake: list[Callable[[], None]] = []

    def on_request(self, wake: Callable[[], None]) -> None:
        """Call `wake` on the thread that requests the stop."""
        self._wake.append(wake)

    def request(self) -> None:
        """End the call soon."""
        self._requested = True
        for wake in self._wake:
            wake()

    def check(self) -> None:
        """Raise CancelledError if the call is to end."""
        if self._requested:
            raise CancelledError


@contextmanager
def stopped_with() -> Iterator[None]:
    """Stop, on leaving the block, every call that began in it and in its context, in whichever thread."""
    stop = Stop()
    token = _current.set(stop)
    try:
        yield
    finally:
        _current.reset(token)
        stop.request()


def stop_of_this_call() -> Stop:
    """Return what ends this context's call; nothing does unless it began inside `stopped_with`."""
    return _current.get() or Stop()
