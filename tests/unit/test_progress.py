"""The progress bar shows only in a terminal or when requested, and says what failed and how long the rest takes."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

from eaf_inference._kernel import is_forked_from_kernel
from eaf_inference.inference.progress import Progress

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
    """Return what a process that counts to 100 writes to its standard error."""
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
            except OSError:  # raised when the terminal's other side is closed
                pass
        assert process.returncode == 0, text
    return text.decode()


@pytest.mark.parametrize(
    ("enabled", "terminal", "visible"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_a_bar_shows_in_a_terminal_or_on_request(enabled, terminal, visible):
    text = shown(enabled=enabled, terminal=terminal)
    assert ("jets: 100%" in text) == visible
    assert ("100/100" in text) == visible
    assert ("words behind" in text) == visible
    if not visible:
        assert text == ""


@pytest.fixture
def files():
    """The progress of a run that began ten seconds ago. It has 20 files, and an earlier run has scored 10 of them."""
    progress = Progress(enabled=True, label="jets", unit="file")
    progress.expect(20)
    progress.resume(10)
    progress._begun -= 10
    yield progress
    progress.close()


def test_time_left_counts_only_what_this_run_has_done(files):
    assert files.seconds_left is None  # not 10 s, although half of the files are done
    files.update(1)
    files.fail(1)
    assert (files.done, files.total, files.failed) == (12, 20, 1)
    assert files.seconds_left == pytest.approx(40, abs=1)
    assert str(files).startswith("12 of 20 files, 1 failed, 0:00:4")


@pytest.mark.parametrize("late", [False, True])
def test_a_bar_of_files_shows_failures_and_the_time_left(capfd, files, late):
    if late:  # outputs that are found complete after the bar was made
        files.say_now("")
        files.expect(5)
        files.resume(5)
    files.fail(2)
    files.say_now("30 jets/s")
    assert files._bar.format_dict["initial"] == 10 + 5 * late
    text = capfd.readouterr().err
    assert f"{17 if late else 12}/{25 if late else 20} [00:10<00:40, " in text
    assert "2 failed, 30 jets/s" in text


def test_time_left_is_unknown_at_first_and_without_a_total():
    young = Progress(enabled=False, label="jets")
    young.expect(5)
    young.update(1)
    assert young.seconds_left is None
    endless = Progress(enabled=False, label="jets")
    endless._begun -= 10
    endless.update(5)
    assert endless.seconds_left is None
    young.close()
    endless.close()


def test_jets_left_are_timed_by_the_rate_that_the_bar_shows():
    progress = Progress(enabled=False, label="jets", rate=lambda: 5.0)
    progress._begun -= 10
    progress.expect(20)
    progress.update(10)
    assert progress.seconds_left == 2
    progress.close()


def test_calls_at_the_same_time_are_timed_by_their_own_pace():
    calls = [Progress(enabled=True, label="jets", rate=lambda: 5.0) for _ in range(2)]
    for call, done in zip(calls, (10, 30), strict=True):
        call._begun -= 10
        call.expect(40)
        call.update(done)
    assert [call.seconds_left for call in calls] == [pytest.approx(30, rel=0.5), pytest.approx(10 / 3, rel=0.5)]
    assert calls[0]._bar.format_dict["rate"] != 5.0
    calls[1].close()
    assert calls[0].seconds_left == 6
    assert calls[0]._bar.format_dict["rate"] == 5.0
    calls[0].close()


@pytest.mark.parametrize("forked", [False, True])
def test_a_process_that_a_kernel_forked_shows_no_bar(monkeypatch, forked):
    ipython = pytest.importorskip("IPython", reason="the oldest environment has no [notebook]")
    sessions = pytest.importorskip("jupyter_client.session")
    kernel = SimpleNamespace(session=sessions.Session(), get_parent=dict)
    if forked:
        kernel.session.pid += 1
    monkeypatch.setattr(ipython, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    assert is_forked_from_kernel() == forked
    progress = Progress(enabled=None, label="jets")
    progress.expect(2)
    progress._begun -= 2
    progress.update(1)
    progress.close()
    assert (progress._bar is None) == forked
