"""Servers that cannot outlive the process that started them, and that leave nothing behind.

Each server is the child of its own reaper (reaper.py). Stopping it, and cleaning up after an owner that was killed,
work in the same way: the reaper's pipe is closed.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._files import log_directory
from eaf_inference.errors import ConfigurationError, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Self

__all__ = [
    "Child",
    "Server",
    "ignore",
    "log_file",
    "owned_directory",
    "plain_environment",
]

_REAPER = Path(__file__).with_name("reaper.py")
_KEPT_LOGS = 20
_OLD = 7 * 86400  # seconds
_LONGEST_USE = 20.0  # seconds, longer than servers have to end
_WAIT_FOR_USERS = """
import os, pathlib, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
signal.sigwait([signal.SIGTERM])
own = {os.getpid(), os.getppid()}

def is_used():
    for command in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(sys.argv[1]) in command.read_bytes() and int(command.parent.name) not in own:
                return True
        except OSError:  # it has just ended
            pass

while is_used():
    time.sleep(0.05)
"""
_MOVES = 2  # to other ports, when another process has just taken the chosen ones
_TAKEN = re.compile("address already in use|EADDRINUSE", re.IGNORECASE)

# The variables that a server inherits from its owner; none holds a token, key or password.
_INHERITED = (
    "CUDA_VISIBLE_DEVICES",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    "TMPDIR",
    "TZ",
    "USER",
)


def ignore(message: str) -> None:
    """Discard a progress message."""


class Child:
    """A program, its descendants and its files, which all end with `stop` or with this process.

    Parameters
    ----------
    command
        The program and its arguments.
    environment
        All environment variables of the program.
    log
        Receives the program's output.
    shared_memory
        Prefix of the program's regions in /dev/shm, which are removed when it has ended.
    directory
        The program's working directory, which is removed when it has ended.
    grace
        Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        environment: Mapping[str, str],
        log: Path,
        shared_memory: str = "",
        directory: Path | None = None,
        grace: float = 10.0,
    ) -> None:
        with log.open("ab") as file:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", "-S", _REAPER, shared_memory, directory or "", str(grace), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal reaches the owner only
            )
        assert self._reaper.stdout  # noqa: S101 - a pipe, see above
        word, _, rest = self._reaper.stdout.readline().decode().strip().partition(" ")
        if word != "pid":
            self.stop()
            raise ConfigurationError(f"cannot start {command[0]}: {rest or f'see {log}'}")
        self.pid = int(rest)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the program and its descendants have ended."""
        assert self._reaper.stdout  # noqa: S101
        return self._reaper.stdout.fileno()

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code once everything has ended and is cleaned up, or None after `timeout` seconds."""
        if self._reaper.returncode is None and not select.select([self], [], [], timeout)[0]:
            return None
        return self._reaper.wait()

    def ask_to_stop(self) -> None:
        """Begin to stop it, without waiting; `stop` waits. To stop several children, ask them all first."""
        assert self._reaper.stdin  # noqa: S101
        self._reaper.stdin.close()

    def stop(self) -> None:
        """Stop the program and its descendants, and return when they have ended."""
        self.ask_to_stop()
        self._reaper.wait()
        assert self._reaper.stdout  # noqa: S101
        self._reaper.stdout.close()

    def send_signal(self, number: int) -> None:
        """Send the program a signal if it is running."""
        if self.wait(0) is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the program as a crash would, and return when everything is cleaned up."""
        if self.wait(0) is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Server(ABC):
    """A server on loopback that this package starts, waits for and stops.

    Attributes
    ----------
    name : str
        Its name in messages and in the file name of its log.
    log : Path
        Its output since it was launched.
    """

    name: str
    log: Path
    essential = True  # the facility cannot run without it

    def __init__(self) -> None:
        self._child: Child | None = None
        self._was_ready = False

    @abstractmethod
    def launch(self) -> None:
        """Start the program, without waiting until it is ready."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether this server, and not another one on its port, answers and can work."""

    def has_failed(self) -> bool:
        """Return whether it can no longer become ready; waits up to 0.05 s."""
        return self.child.wait(0.05) is not None

    def port_is_taken(self) -> bool:
        """Return whether it failed because another process listens on its port."""
        return bool(_TAKEN.search(self.log.read_text(encoding="utf-8", errors="replace")))

    def move(self) -> bool:
        """Choose other ports; return False if the old ones are in use by clients and must stay."""
        return False

    def reason(self) -> str:
        """Return why it did not start, for a message."""
        return "see its log"

    def wait_until_ready(self, *, timeout: float = 120.0, progress: Callable[[str], None] = ignore) -> None:
        """Return when it is ready.

        Raises
        ------
        ConfigurationError
            It did not start. The message has its own reason and the path of its log.
        ServerUnavailable
            It neither became ready nor ended in time.
        """
        progress(f"waiting for {self.name} (log: {self.log})")
        deadline = time.monotonic() + timeout
        moves = 0
        while not self.is_ready():
            if self.has_failed():
                if moves == _MOVES or not self.port_is_taken() or not self.move():
                    raise ConfigurationError(f"{self.name} did not start:\n{self.reason()}\nIts log: {self.log}")
                moves += 1
                self.stop()
                self.launch()
            elif time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} was not ready within {timeout:.0f} s. Its log: {self.log}")
        self._was_ready = True

    @contextmanager
    def running(self, *, timeout: float = 120.0, progress: Callable[[str], None] = ignore) -> Iterator[Self]:
        """Run it for the duration of a `with` block, which begins when it is ready."""
        try:
            self.launch()
            self.wait_until_ready(timeout=timeout, progress=progress)
            yield self
        finally:
            self.stop()

    def restart(self) -> None:
        """Restart it on the same ports, whether it is running or dead, and wait until it is ready."""
        self.start_again()
        self.wait_until_ready()

    def start_again(self) -> None:
        """Restart it on the same ports after it has died, without waiting until it is ready."""
        self.stop()
        self.launch()

    @property
    def gave_up(self) -> bool:
        """Whether it has died for good and `start_again` would fail."""
        return False

    @property
    def lifeline(self) -> Child | int:
        """What becomes readable when the server dies."""
        return self.child

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process that died last, or 128 plus the number of the signal that killed it."""
        return self.child.wait(0)

    @property
    def child(self) -> Child:
        """The process, which exists between `launch` and `stop`."""
        if self._child is None:
            raise RuntimeError(f"{self.name} has not been launched")
        return self._child

    @property
    def launched(self) -> bool:
        """Whether it was started and not stopped; it may have died since."""
        return self._child is not None

    @property
    def pid(self) -> int:
        return self.child.pid

    def kill(self) -> None:
        """Kill it as a crash would (SIGKILL), and return when everything is cleaned up."""
        self.child.kill()

    def ask_to_stop(self) -> None:
        """Begin to stop it, without waiting; `stop` waits."""
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        """Stop it and everything it started, after the requests in flight; does nothing if it has ended."""
        if self._child is not None:
            self._child.stop()
            self._child = None


def plain_environment(*, first_on_path: Path) -> dict[str, str]:
    """Return the environment of a server: the variables it needs, and none that may hold a secret."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime would report each session to Microsoft
    environment["PATH"] = os.pathsep.join([str(first_on_path), environment.get("PATH", os.defpath)])
    return environment


@contextmanager
def owned_directory(prefix: str) -> Iterator[Path]:
    """Make a directory for this user alone, which is removed when the block or this process ends.

    If this process is killed, servers whose command lines name the directory end first, as they may write to it.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix))  # 0700
    log = log_file(path.name)
    command = [sys.executable, "-I", "-S", "-c", _WAIT_FOR_USERS, str(path)]
    owner = Child(command, environment={}, log=log, directory=path, grace=_LONGEST_USE)
    try:
        yield path
    finally:
        owner.stop()
        log.unlink(missing_ok=True)


def log_file(name: str) -> Path:
    """Make an empty log for a server, and delete old logs: beyond the latest 20, those unchanged for a week.

    Its name begins with `name` and the time.
    """
    directory = log_directory()
    changed = {}
    for path in directory.glob("*.log"):
        with suppress(FileNotFoundError):  # another facility has just deleted it
            changed[path] = path.stat().st_mtime
    for path in sorted(changed, key=changed.__getitem__)[:-_KEPT_LOGS]:
        if time.time() - changed[path] > _OLD:
            path.unlink(missing_ok=True)
    log = directory / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(6)}.log"
    log.touch(mode=0o600)
    return log
