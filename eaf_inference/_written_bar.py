"""A progress bar for a notebook that nobody watches: one line of text in the cell's output, renewed in its place."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from IPython.display import display
from tqdm.std import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WrittenBar"]

_EVERY = 1.0  # seconds between two renewals; each is a message


class WrittenBar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """tqdm's line as a displayed text, which stays: on a stream each renewal would be kept as one more line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "file": io.StringIO(), "leave": True, "mininterval": _EVERY})

    @staticmethod
    def status_printer(_: object) -> Callable[[str], None]:
        """Make what shows a line from now on."""
        handle = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        return lambda line: handle.update({"text/plain": line}, raw=True)
