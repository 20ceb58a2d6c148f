"""The progress bar, for whoever watches a terminal, and for nobody else."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# a second that has passed already: tqdm compares its own clock with when the bar was made
COUNT = """
from eaf_inference.inference.progress import progress_bar
with progress_bar(enabled={enabled}, label="jets") as bar:
    visible = bar._bar is not None and not bar._bar.disable
    if visible:
        bar._bar.start_t -= 2
    bar.expect(60)
    bar.expect(40)
    for _ in range(10):
        bar.say("words behind")
        bar.update(10)
        if visible:
            bar._bar.refresh()
"""


def shown(*, enabled: bool | None, terminal: bool) -> str:
    """What a process that counts to 100 shows on its standard error."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    text = b""
    if terminal:
        fcntl.ioctl(reader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(reader, "rb", buffering=0) as screen:
        code = COUNT.format(enabled=enabled)
        with subprocess.Popen([sys.executable, "-c", code], stderr=writer, cwd=ROOT) as process:
            os.close(writer)
            try:
                while part := screen.read(65536):
                    text += part
            except OSError:  # how a terminal says that its other side is closed
                pass
        assert process.returncode == 0, text
    return text.decode()


@pytest.mark.parametrize(
    ("enabled", "terminal", "visible"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_a_bar_shows_in_a_terminal_or_where_it_is_asked_for(enabled, terminal, visible):
    text = shown(enabled=enabled, terminal=terminal)
    assert ("jets: 100%" in text) == visible
    assert ("100/100" in text) == visible
    assert ("words behind" in text) == visible
    if not visible:
        assert text == ""
