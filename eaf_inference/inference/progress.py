"""A progress bar for whoever watches: in a notebook or a terminal, after a second, not on a Dask worker."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Progress", "progress_bar"]


class Progress:
    """Counts rows, or what else the unit says; shows them where there is a bar."""

    def __init__(self, *, enabled: bool | None, label: str, unit: str = "jet") -> None:
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
        if self._bar is not None:
            self._bar.total = (self._bar.total or 0) + number

    def update(self, number: int) -> None:
        """So many are done."""
        if self._bar is not None:
            self._bar.update(number)

    def say(self, text: str) -> None:
        """Words behind the bar, with its next update."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
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
