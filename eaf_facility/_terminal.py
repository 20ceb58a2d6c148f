"""How the operator's commands write to a terminal, and how a signal ends them."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eaf_inference._text import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rich.console import Console

__all__ = ["make_console", "progress_line", "signals_as_interrupts"]


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that folds lines on a terminal only."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 200  # files and pipes have no width, and a wrapped path cannot be copied
    return console


@contextmanager
def progress_line(console: Console) -> Iterator[Callable[[str], None]]:
    """Show messages on one changing line of a terminal; elsewhere, write each on a line of its own."""
    from rich.text import Text

    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda message: status.update(Text(printable(message)))
    else:
        yield lambda message: console.print(printable_lines(message), markup=False)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Make SIGTERM and a closed terminal end a command as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        raise KeyboardInterrupt

    # SIGINT too, because a shell starts background jobs with SIGINT ignored
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
