"""Child processes and their logs, while other threads and other facilities come and go."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import until

from eaf_facility.process import reaper
from eaf_facility.process.server import log_file


def test_children_are_listed_although_a_thread_has_just_ended(monkeypatch):
    """The reaper's own thread ends at about the time when it lists its children."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    entry = Path(f"/proc/self/task/{thread.native_id}")

    class Listing(type(Path())):
        def glob(self, pattern):
            found = list(super().glob(pattern))
            end.set()
            until(lambda: not entry.exists())
            return found

    monkeypatch.setattr(reaper, "Path", Listing)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            assert child.pid in reaper._children()
        finally:
            child.kill()


@pytest.mark.parametrize("vanished", [True, False])
def test_a_log_that_another_facility_deletes_does_not_matter(monkeypatch, tmp_path, vanished):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = log_file("first")
    if vanished:
        (first.parent / "vanished.log").symlink_to(first.parent / "absent")
    assert log_file("second").exists()
    assert first.exists()
