"""Make Ctrl-C always end a call, and never in the middle of a step that must be completed.

Python raises KeyboardInterrupt between any two steps of the main thread. That goes wrong in two kinds of places:

- **The interrupt is lost** where Python ignores exceptions: in a ``__del__`` and in a weak reference's callback. Seen
  in a notebook: while the widgets of one progress bar were made, the garbage collector ran ``tqdm.__del__`` of an
  earlier bar. The interrupt was raised and ignored there, and the cell went on.
- **The interrupt breaks what it stops.** gRPC counts a channel's calls after starting them, and guards each with a
  `threading.Condition`. An interrupt in its ``with`` can leave the lock taken, and then the next call on that channel
  waits for ever (https://github.com/grpc/grpc/issues/19973). A half-made widget fails when it is collected, which in
  Python 3.11 can break the `ast.parse` that formats the traceback
  (https://github.com/python/cpython/issues/106905): the cell then ends without an error.
"""

from __future__ import annotations

# `signal` wraps these functions and looks each handler up in an enum, which takes several times as long
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
    """Notes each Ctrl-C between `watch` and `release`, and lets the previous handler raise it.

    ``with interrupts:`` delays it until the block ends. A noted interrupt is raised at the end of the next such
    block, by `check`, or at the latest by `release`, so that one that Python ignored still ends the call.
    """

    __slots__ = ("_before", "_held", "_noted", "_raised")

    def __init__(self) -> None:
        self._before: Callable[[int, FrameType | None], object] | None = None
        self._held = 0
        self._noted = False
        self._raised: type[BaseException] = KeyboardInterrupt

    def watch(self) -> None:
        """Start noting; outside the main thread Python raises no interrupts, and this does nothing."""
        handler = _signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._held = 1  # until the caller is inside its `try`
            self._before = handler
            _signal.signal(signal.SIGINT, self._arrived)
            self._held = 0

    def release(self, leaving: type[BaseException] | None = None) -> None:
        """Stop noting, and give Ctrl-C back to the previous handler.

        Parameters
        ----------
        leaving : type, optional
            The exception that ends the call; if it is the interrupt, or what the previous handler raised for it
            (dask_jobqueue's raises SystemExit), it is not raised again.
        """
        self._held = 1  # against an interrupt in this method
        before, self._before = self._before, None
        if before is not None and _signal.getsignal(signal.SIGINT) == self._arrived:
            _signal.signal(signal.SIGINT, before)
        noted, self._noted, self._held = self._noted, False, 0
        if before is not None and noted and not (leaving and issubclass(leaving, (KeyboardInterrupt, self._raised))):
            before(signal.SIGINT, None)

    def hold(self) -> None:
        """Hold interrupts back until `release`."""
        self._held += 1

    __enter__ = hold

    def __exit__(self, *error: object) -> None:
        self._held -= 1
        self.check()

    def check(self) -> None:
        """Raise a noted interrupt."""
        if self._noted and not self._held:
            self._raise(None)

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        self._noted = True
        if not self._held:
            self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        # a library may reinstall this handler after the call; then Python's own is meant
        try:
            (self._before or signal.default_int_handler)(signal.SIGINT, frame)
        except BaseException as error:
            self._raised = type(error)
            raise
        self._noted = False  # that handler raised nothing


class stopping(ContextDecorator):  # noqa: N801  (used like a function)
    """Report in one line what a Ctrl-C stopped when it leaves a call of this package; also a decorator.

    The exception stays Python's KeyboardInterrupt, as scripts and shells expect. IPython and Jupyter show only its
    message, without a traceback of this package's code.

    Parameters
    ----------
    message : str or callable
        What was stopped, and what is returned; a function is called when the interrupt leaves the block.
    """

    def __init__(self, message: str | Callable[[], str]) -> None:
        self._message = message

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if type(error) is KeyboardInterrupt and not error.args:  # the innermost block has the most precise message
            message = self._message if isinstance(self._message, str) else self._message()
            error.args = (message,)
            error._render_traceback_ = lambda: [message]  # type: ignore[attr-defined]  # IPython's hook
