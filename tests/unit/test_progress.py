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
COUNT = """
from eaf_inference.inference.progress import progress_bar
with progress_bar(enabled={enabled}, label="jets") as bar:
    bar.expect(60)
    bar.expect(40)
    bar.update(10)
    assert bar._bar is None  # the call is young
    bar._begun -= 2
    for _ in range(9):
        bar.say("words behind")
        bar.update(10)
        if bar._bar is not None and not bar._bar.disable:
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
