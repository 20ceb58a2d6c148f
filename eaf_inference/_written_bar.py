"""A progress bar for a notebook run as a batch job: one line of text in the cell's output, updated in place."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from IPython.display import display
from tqdm.std import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WrittenBar"]

_EVERY = 1.0  # seconds between updates; each one is a message


class WrittenBar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """tqdm's line as a displayed text: on a stream, each update would stay as another line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "file": io.StringIO(), "leave": True, "mininterval": _EVERY})

    @staticmethod
    def status_printer(_: object) -> Callable[[str], None]:
        """Return a function that shows a line."""
        handle = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        return lambda line: handle.update({"text/plain": line}, raw=True)
