"""Private files are written in one step, links are not followed, and a lock excludes other processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from eaf_inference._files import cache_path, locked, private_directory, write_private
from eaf_inference.errors import ConfigurationError

# Starts a child that inherits the lock, says so, and waits to be killed.
HOLDER = """
import subprocess
import sys
from pathlib import Path
from eaf_inference._files import locked
with locked(Path(sys.argv[1])) as descriptor:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=[descriptor])
    print(child.pid, flush=True)
    child.wait()
"""


def mode(path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def open_umask():
    old = os.umask(0)
    yield
    os.umask(old)


def test_a_private_file_is_readable_by_its_user_alone(tmp_path, open_umask):
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o666)
    write_private(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)
    write_private(file, b"\xff")
    assert file.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [file]


def test_writing_a_private_file_replaces_a_link(tmp_path):
    (tmp_path / "victim").write_text("kept")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "victim")
    write_private(link, "secret")
    assert (tmp_path / "victim").read_text() == "kept"
    assert (link.is_symlink(), link.read_text()) == (False, "secret")


def test_a_draft_that_already_exists_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("eaf_inference._files.secrets.token_hex", lambda _: "known")
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".file.known").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "file", "secret")
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("old")

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("eaf_inference._files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(file, "new")
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


def test_a_private_directory_follows_a_link_only_on_request(tmp_path):
    (tmp_path / "scratch").mkdir(mode=0o755)
    link = tmp_path / "cache"
    link.symlink_to(tmp_path / "scratch")
    with pytest.raises(ConfigurationError, match="it is a symbolic link"):
        private_directory(link)
    assert mode(tmp_path / "scratch") == 0o755
    private_directory(link, follow_links=True)
    assert mode(tmp_path / "scratch") == 0o700


def test_the_cache_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path() == tmp_path / "eaf-inference"


def test_a_lock_admits_one_holder_at_a_time(tmp_path, open_umask):
    file = tmp_path / "private" / "lock"
    waits, inside, released = threading.Event(), [], []

    def second():
        with locked(file, waiting=waits.set):
            inside.append(list(released))

    with locked(file):
        assert (mode(file.parent), mode(file)) == (0o700, 0o600)
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        released.append("first")
    thread.join(10)
    assert inside == [["first"]]


def test_a_lock_file_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_child_keeps_the_lock_when_its_parent_is_killed(tmp_path):
    waits, entered = threading.Event(), threading.Event()

    def second():
        with locked(tmp_path / "lock", waiting=waits.set):
            entered.set()

    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait(10)
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        assert not entered.is_set()
        os.kill(child, signal.SIGKILL)
        thread.join(10)
    assert entered.is_set()
