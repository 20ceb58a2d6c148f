"""How far a call has come: as a progress bar, and for whoever else in this process wants to know.

The bar shows in a notebook or a terminal, after a second, not on a Dask worker.
"""

from __future__ import annotations

import sys
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from eaf_inference._kernel import is_batch, kernel_of_this_process
from eaf_inference._text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tqdm.auto import tqdm

__all__ = ["Progress", "progress_bar", "under_way"]

_SHOWN_AFTER = 1.0  # seconds
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

    Parameters
    ----------
    rate : callable, optional
        Gives the jets/s that the bar shows.
    """

    def __init__(
        self,
        *,
        enabled: bool | None,
        label: str,
        unit: str = "jet",
        rate: Callable[[], float | None] | None = None,
    ) -> None:
        self.label = label
        self.done = 0
        self.total: int | None = None
        self.moved = time.monotonic()
        key = self._key = id(self)
        _begun[key] = weakref.ref(self, lambda _: _begun.pop(key, None))
        self._unit = unit
        self._rate = rate
        self._words = ""
        self._begun = self.moved
        self._enabled = False if enabled is None and _on_dask_worker() else enabled
        self._bar: tqdm[Any] | None = None

    def expect(self, number: int) -> None:
        """So many more will come."""
        self.total = (self.total or 0) + number
        if self._bar is not None:
            self._bar.total = self.total

    def update(self, number: int) -> None:
        """So many are done."""
        self.done += number
        self.moved = time.monotonic()
        if self._bar is not None:
            self._bar.update(number)
        elif self._is_due:
            self._bar = self._made()

    @property
    def _is_due(self) -> bool:
        return self._enabled is not False and self.moved - self._begun >= _SHOWN_AFTER

    def say(self, text: str) -> None:
        """Words behind the bar, with its next update."""
        self._words = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def say_now(self, text: str) -> None:
        """Words behind the bar, although nothing moves."""
        self.moved = time.monotonic()
        self.say(text)
        if self._bar is not None:
            self._bar.refresh()
        elif self._is_due:
            self._bar = self._made()

    def _made(self) -> tqdm[Any]:
        """The bar, made no earlier than it is seen: in a notebook it is ten widgets, which take milliseconds."""
        rate_of = self._rate

        class Bar(_kind_of_bar()):  # type: ignore[misc]
            """With the rate that panel and widget show, in place of tqdm's own."""

            @property
            def format_dict(self) -> dict[str, Any]:
                """What the bar is made of."""
                rate = rate_of() if rate_of else None
                return {**super().format_dict, **({"rate": rate} if rate else {})}

        bar = Bar(
            desc=printable(self.label),
            total=self.total,
            unit=self._unit,
            unit_scale=self._unit == "jet",  # thousands of them; chunks are counted whole
            delay=_SHOWN_AFTER,
            leave=False,
            disable=None if self._enabled is None and kernel_of_this_process() is None else False,
        )
        if not bar.disable:  # its clock began with the call's
            bar.start_t = bar.last_print_t = bar.start_t - (self.moved - self._begun)
        bar.set_postfix_str(self._words, refresh=False)
        bar.update(self.done)
        return bar

    def close(self) -> None:
        _begun.pop(self._key, None)
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress_bar(
    *, enabled: bool | None, label: str, rate: Callable[[], float | None] | None = None
) -> Iterator[Progress]:
    """A `Progress` that is closed when the block ends."""
    progress = Progress(enabled=enabled, label=label, rate=rate)
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


def _kind_of_bar() -> Any:
    """The class of the bar: tqdm's for a terminal or a notebook; text in a batch run, which saves no widgets."""
    if is_batch():
        from eaf_inference._written_bar import WrittenBar

        return WrittenBar
    from tqdm.auto import tqdm

    return tqdm


def _on_dask_worker() -> bool:
    worker = sys.modules.get("distributed.worker")
    if worker is None:
        return False
    try:
        worker.get_worker()
    except ValueError:  # distributed's way to say that there is none
        return False
    return True
