"""Ctrl-C during a call: it always ends the call, and never stops a step that must not be left half done.

Python raises KeyboardInterrupt between any two steps of the main thread. Two kinds of places cannot bear that:

- **It is lost** where Python ignores exceptions: in a ``__del__`` and in a callback of a weak reference. Seen in a
  notebook: while the widgets of one progress bar were made, the garbage collector ran ``tqdm.__del__`` of an earlier
  bar. The interrupt was raised and ignored in there, and the cell went on.
- **It breaks what it stops.** gRPC counts a channel's calls after it has started them, and guards each by a
  `threading.Condition`, whose ``with`` may be interrupted when it holds the lock already: the next call on that
  channel may wait for ever (https://github.com/grpc/grpc/issues/19973). A widget that is half made fails when it is
  collected, in Python 3.11 even in the midst of the `ast.parse` for the traceback, which fails too
  (https://github.com/python/cpython/issues/106905): the cell ends without an error.
"""

from __future__ import annotations

# what `signal` wraps: its own functions look each handler up in an enum, which costs several times as much
import _signal  # type: ignore[import-not-found]
import signal
import threading
from contextlib import ContextDecorator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

__all__ = ["Interrupts", "stopping"]


class Interrupts:
    """Notes each Ctrl-C between `watch` and `release`, besides letting the handler of before raise it.

    ``with interrupts:`` holds it back until the block ends. What was noted is raised at the end of the next such
    block, by `check`, or at the latest by `release`: an interrupt that Python has ignored still ends the call.
    """

    __slots__ = ("_before", "_held", "_noted")

    def __init__(self) -> None:
        self._before: Callable[[int, FrameType | None], object] | None = None
        self._held = 0
        self._noted = False

    def watch(self) -> None:
        """Begin; does nothing outside the main thread, where Python raises no interrupt."""
        handler = _signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._held = 1  # until the caller's `try` has begun
            self._before = handler
            _signal.signal(signal.SIGINT, self._arrived)
            self._held = 0

    def release(self, leaving: type[BaseException] | None = None) -> None:
        """End, and give Ctrl-C back to the handler of before.

        Parameters
        ----------
        leaving : type, optional
            The exception with which the call ends: an interrupt is not raised once more.
        """
        self._held = 1  # so that nothing comes between
        before, self._before = self._before, None
        if before is not None and _signal.getsignal(signal.SIGINT) == self._arrived:
            _signal.signal(signal.SIGINT, before)
        noted, self._noted, self._held = self._noted, False, 0
        if before is not None and noted and not (leaving and issubclass(leaving, KeyboardInterrupt)):
            before(signal.SIGINT, None)

    def hold(self) -> None:
        """Hold a Ctrl-C back, until `release`."""
        self._held += 1

    __enter__ = hold

    def __exit__(self, *error: object) -> None:
        self._held -= 1
        self.check()

    def check(self) -> None:
        """Raise what was noted."""
        if self._noted and not self._held:
            self._raise(None)

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a handler's arguments)
        self._noted = True
        if not self._held:
            self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        # a library may put this handler back after the call: then nothing is to be noted, and Python's own is meant
        (self._before or signal.default_int_handler)(signal.SIGINT, frame)
        self._noted = False  # that handler does not raise


class stopping(ContextDecorator):  # noqa: N801  (used like a function)
    """Say in one line what a Ctrl-C stopped, where it leaves a call of this package; also a decorator.

    The exception stays the KeyboardInterrupt that Python raised, so that scripts and shells see what they expect.
    In IPython and Jupyter it shows as its message, without a traceback of this package's own code.

    Parameters
    ----------
    message : str or callable
        What was stopped and what came of it; a function is called when the interrupt leaves the block.
    """

    def __init__(self, message: str | Callable[[], str]) -> None:
        self._message = message

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if type(error) is KeyboardInterrupt and not error.args:  # the innermost block knows best
            message = self._message if isinstance(self._message, str) else self._message()
            error.args = (message,)
            error._render_traceback_ = lambda: [message]  # type: ignore[attr-defined]  # IPython's hook
