"""How far a call has come: as a progress bar, and for whoever else in this process wants to know.

The bar shows in a notebook or a terminal, after a second, not on a Dask worker.
"""

from __future__ import annotations

import sys
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Progress", "progress_bar", "under_way"]

_QUIET = 10.0  # seconds without an update after which a call may have been left halfway
_begun: dict[int, weakref.ref[Progress]] = {}  # oldest first; without a lock, as garbage collection may close one


class Progress:
    """Counts rows, or what else the unit says; shows them where there is a bar.

    Attributes
    ----------
    label : str
        The model's name.
    done : int
    total : int or None
        None while it is not known.
    moved : float
        When it last did, by the monotonic clock.
    """

    def __init__(self, *, enabled: bool | None, label: str, unit: str = "jet") -> None:
        self.label = label
        self.done = 0
        self.total: int | None = None
        self.moved = time.monotonic()
        key = self._key = id(self)
        _begun[key] = weakref.ref(self, lambda _: _begun.pop(key, None))
        self._bar = None
        if enabled is False or (enabled is None and _on_dask_worker()):
            return
        from tqdm.auto import tqdm

        self._bar = tqdm(
            desc=label,
            unit=unit,
            unit_scale=unit == "jet",  # thousands of them; chunks are counted whole
            delay=1,
            leave=False,
            disable=None if enabled is None and not _in_notebook() else False,
        )

    def expect(self, number: int) -> None:
        """So many more will come."""
        self.total = (self.total or 0) + number
        if self._bar is not None:
            self._bar.total = (self._bar.total or 0) + number

    def update(self, number: int) -> None:
        """So many are done."""
        self.done += number
        self.moved = time.monotonic()
        if self._bar is not None:
            self._bar.update(number)

    def say(self, text: str) -> None:
        """Words behind the bar, with its next update."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        _begun.pop(self._key, None)
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress_bar(*, enabled: bool | None, label: str) -> Iterator[Progress]:
    """A `Progress` that is closed when the block ends."""
    progress = Progress(enabled=enabled, label=label)
    try:
        yield progress
    finally:
        progress.close()


def under_way() -> Progress | None:
    """What this process works on: of several calls the outermost, unless it was left halfway."""
    begun = [progress for each in list(_begun.values()) if (progress := each())]
    now = time.monotonic()
    moving = (progress for progress in begun if now - progress.moved < _QUIET)
    return next(moving, None) or max(begun, key=lambda progress: progress.moved, default=None)


def _in_notebook() -> bool:
    """Whether an IPython kernel runs this."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def _on_dask_worker() -> bool:
    worker = sys.modules.get("distributed.worker")
    if worker is None:
        return False
    try:
        worker.get_worker()
    except ValueError:  # distributed's way to say that there is none
        return False
    return True
