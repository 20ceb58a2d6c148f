"""The progress of calls: as a progress bar, and for other code in this process.

The bar appears after a second, in a notebook or a terminal, and not on a Dask worker or in a process that a
notebook's kernel forked.
"""

from __future__ import annotations

import sys
import time
import weakref
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from eaf_inference._kernel import is_batch, is_forked_from_kernel, kernel_of_this_process
from eaf_inference._text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tqdm.auto import tqdm

__all__ = ["Progress", "progress_bar", "under_way"]

_SHOWN_AFTER = 1.0  # seconds
_QUIET = 10.0  # seconds without an update after which a call may have been abandoned
_begun: dict[int, weakref.ref[Progress]] = {}  # oldest first; no lock, as garbage collection may close one


class Progress:
    """Counts rows, or another unit, and shows them in a bar.

    Attributes
    ----------
    label : str
        The model's name.
    unit : str
        What is counted: "jet", "file" or "chunk".
    done : int
        Includes what failed, and what an earlier run has done.
    total : int or None
        None while unknown.
    failed : int
    moved : float
        The time of the last progress, by the monotonic clock.

    Parameters
    ----------
    rate : callable, optional
        Returns the jets/s that the bar shows if no other call is under way.
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
        self.unit = unit
        self.done = self.failed = 0
        self.total: int | None = None
        self._earlier = 0
        self.moved = time.monotonic()
        key = self._key = id(self)
        _begun[key] = weakref.ref(self, lambda _: _begun.pop(key, None))
        self._rate = rate
        self._text = ""
        self._begun = self.moved
        self._enabled = False if enabled is None and (_on_dask_worker() or is_forked_from_kernel()) else enabled
        self._bar: tqdm[Any] | None = None

    def expect(self, number: int) -> None:
        """Add to the expected total."""
        self.total = (self.total or 0) + number
        if self._bar is not None:
            self._bar.total = self.total

    def update(self, number: int) -> None:
        """Add to what is done."""
        self.done += number
        self.moved = time.monotonic()
        if self._bar is not None:
            self._bar.update(number)
        elif self._is_due:
            self._bar = self._make_bar()

    def fail(self, number: int) -> None:
        """Add to what is done and failed."""
        self.failed += number
        self.say(self._text)
        self.update(number)

    def resume(self, number: int) -> None:
        """Add to what is done what an earlier run has done, which says nothing about this run's rate."""
        self._earlier += number
        if self._bar is not None:
            self._bar.initial += number
        self.update(number)

    @property
    def seconds_left(self) -> float | None:
        """The time until all is done at the rate so far; None while unknown."""
        if self.total is None:
            return None
        here, seconds = self.done - self._earlier, time.monotonic() - self._begun
        rate = self._whole_rate or here / seconds if seconds >= _SHOWN_AFTER else None
        return (self.total - self.done) / rate if rate else None

    @property
    def _whole_rate(self) -> float | None:
        """The rate of all calls together, if this is the only one; several share it."""
        shared = any(each is not self for each in _moving())
        return self._rate() if self._rate and not shared else None

    def __str__(self) -> str:
        parts = [f"{self.done:,}{'' if self.total is None else f' of {self.total:,}'} {self.unit}s"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if (left := self.seconds_left) is not None:
            parts.append(f"{timedelta(seconds=round(left))} left")
        return ", ".join(parts)

    @property
    def _is_due(self) -> bool:
        return self._enabled is not False and self.moved - self._begun >= _SHOWN_AFTER

    def say(self, text: str) -> None:
        """Show a text behind the bar, from its next update on."""
        self._text = text
        if self._bar is not None:
            self._bar.set_postfix_str(self._behind, refresh=False)

    def say_now(self, text: str) -> None:
        """Show a text behind the bar at once, although nothing moves."""
        self.moved = time.monotonic()
        self.say(text)
        if self._bar is not None:
            self._bar.refresh()
        elif self._is_due:
            self._bar = self._make_bar()

    @property
    def _behind(self) -> str:
        return ", ".join(filter(None, (f"{self.failed:,} failed" if self.failed else "", self._text)))

    def _make_bar(self) -> tqdm[Any]:
        """Make the bar once it is due: in a notebook it is ten widgets, which take milliseconds."""
        this = weakref.ref(self)

        class Bar(_bar_class()):  # type: ignore[misc]
            """Shows the rate of the panel and the widget instead of tqdm's, which counts for one of several calls."""

            @property
            def format_dict(self) -> dict[str, Any]:
                """The values shown in the bar."""
                progress = this()
                rate = progress._whole_rate if progress else None  # noqa: SLF001  (both are one unit)
                return {**super().format_dict, **({"rate": rate} if rate else {})}

        bar = Bar(
            desc=printable(self.label),
            total=self.total,
            unit=self.unit,
            unit_scale=self.unit == "jet",  # jets in thousands; files one by one
            smoothing=0.3 if self.unit == "jet" else 0,  # files end in bursts: take the mean of the whole run
            initial=self._earlier,
            delay=_SHOWN_AFTER,
            leave=False,
            disable=None if self._enabled is None and kernel_of_this_process() is None else False,
        )
        if not bar.disable:  # count from the start of the call
            bar.start_t = bar.last_print_t = bar.start_t - (self.moved - self._begun)
        bar.set_postfix_str(self._behind, refresh=False)
        bar.update(self.done - self._earlier)
        return bar

    def close(self) -> None:
        _begun.pop(self._key, None)
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress_bar(
    *, enabled: bool | None, label: str, rate: Callable[[], float | None] | None = None
) -> Iterator[Progress]:
    """Give a `Progress` that is closed when the block ends."""
    progress = Progress(enabled=enabled, label=label, rate=rate)
    try:
        yield progress
    finally:
        progress.close()


def under_way() -> Progress | None:
    """Return the progress of the outermost call in this process, unless that call was abandoned."""
    return next(iter(_moving()), None) or max(_all(), key=lambda progress: progress.moved, default=None)


def _all() -> list[Progress]:
    return [progress for each in list(_begun.values()) if (progress := each())]


def _moving() -> list[Progress]:
    """Return those that were not abandoned, the outermost first."""
    now = time.monotonic()
    return [progress for progress in _all() if now - progress.moved < _QUIET]


def _bar_class() -> Any:
    """Return tqdm's class for a terminal or a notebook, or plain text for a batch run, which saves no widgets."""
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
    except ValueError:  # raised outside a task
        return False
    return True
