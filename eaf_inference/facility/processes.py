"""Starting a server so that it cannot outlive its owner, and ending it without a trace.

Each server is the child of a guardian (guardian.py) of its own. Ending it normally and cleaning up after an
owner that was killed are the same thing: the guardian's pipe is closed.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
    "private_directory",
    "write_private",
]

_GUARDIAN = Path(__file__).with_name("guardian.py")
_KEPT_LOGS = 20
_OLD = 7 * 86400  # seconds
_MOVES = 2  # when somebody took the ports that were free a moment ago
_TAKEN = re.compile("address already in use|EADDRINUSE", re.IGNORECASE)

# What a server may know of its owner's environment: no token, key or password is among it.
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
    """Tell nobody: the progress callback of those who do not want one."""


class Child:
    """A program, whatever it starts, and what it leaves behind: all gone with `stop`, or with this process.

    Parameters
    ----------
    command
        The program and its arguments.
    environment
        All that the program sees of environment variables.
    log
        Receives what the program writes.
    shared_memory
        Regions in /dev/shm whose names begin so are the program's, and are removed when it has ended.
    directory
        The program runs in it; it is removed, with all it holds, when the program has ended.
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
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", _GUARDIAN, shared_memory, directory or "", str(grace), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the owner only
            )
        assert self._guardian.stdout  # noqa: S101 - asked for above
        word, _, rest = self._guardian.stdout.readline().decode().strip().partition(" ")
        if word != "pid":
            self.stop()
            raise ConfigurationError(f"cannot start {command[0]}: {rest or f'see {log}'}")
        self.pid = int(rest)

    def fileno(self) -> int:
        """Becomes readable when the program and everything below it has ended."""
        assert self._guardian.stdout  # noqa: S101
        return self._guardian.stdout.fileno()

    def wait(self, timeout: float | None = None) -> int | None:
        """Give the exit code once everything has ended and is cleaned up, or None after `timeout` seconds."""
        if self._guardian.returncode is None and not select.select([self], [], [], timeout)[0]:
            return None
        return self._guardian.wait()

    def ask_to_stop(self) -> None:
        """Begin to end it; `stop` waits for that. With several children, ask them all first."""
        assert self._guardian.stdin  # noqa: S101
        self._guardian.stdin.close()

    def stop(self) -> None:
        """End the program and everything below it, and return when it is gone."""
        self.ask_to_stop()
        self._guardian.wait()
        assert self._guardian.stdout  # noqa: S101
        self._guardian.stdout.close()

    def send_signal(self, number: int) -> None:
        """Send the program a signal, if it runs."""
        if self.wait(0) is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the program as a crash would, and return when what it left behind is gone."""
        if self.wait(0) is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Server(ABC):
    """A server that this package starts on loopback, waits for and ends.

    Attributes
    ----------
    name : str
        How it is called in messages and in its log's file name.
    log : Path
        What it wrote since it was launched.
    """

    name: str
    log: Path
    essential = True  # a facility ends without it

    def __init__(self) -> None:
        self._child: Child | None = None
        self._was_ready = False

    @abstractmethod
    def launch(self) -> None:
        """Start the program; it then takes seconds until it is ready."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it is this server that answers, and it can do its work."""

    def has_failed(self) -> bool:
        """Whether it will never be ready; may take a moment."""
        return self.child.wait(0.05) is not None

    def port_is_taken(self) -> bool:
        """Whether it failed because somebody else listens where it wanted to."""
        return bool(_TAKEN.search(self.log.read_text(encoding="utf-8", errors="replace")))

    def move(self) -> bool:
        """Choose other ports in place of those that somebody took; False where others know them already."""
        return False

    def reason(self) -> str:
        """Why it did not start."""
        return "its log says why"

    def wait_until_ready(self, *, timeout: float = 120.0, progress: Callable[[str], None] = ignore) -> None:
        """Return when it is ready.

        Raises
        ------
        ConfigurationError
            It did not start; the message has its own reason, and where its log is.
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
                raise ServerUnavailable(
                    f"{self.name} was not ready within {timeout:.0f} s; what it does is in {self.log}"
                )
        self._was_ready = True

    @contextmanager
    def running(self, *, timeout: float = 120.0, progress: Callable[[str], None] = ignore) -> Iterator[Self]:
        """Run it for the length of a `with` block; it is ready when the block begins, and gone when it has ended."""
        try:
            self.launch()
            self.wait_until_ready(timeout=timeout, progress=progress)
            yield self
        finally:
            self.stop()

    def restart(self) -> None:
        """Start it again on the same ports, whether it runs or has died, and wait until it is ready."""
        self.start_again()
        self.wait_until_ready()

    def start_again(self) -> None:
        """Start it on the same ports after it has died; it then takes seconds until it is ready."""
        self.stop()
        self.launch()

    @property
    def gave_up(self) -> bool:
        """Whether it has died for good, so that `start_again` would be in vain."""
        return False

    @property
    def lifeline(self) -> Child | int:
        """Becomes readable when the server dies."""
        return self.child

    @property
    def exit_code(self) -> int | None:
        """That of the server that died last; 128 and the number of the signal that killed it."""
        return self.child.wait(0)

    @property
    def child(self) -> Child:
        """The process; there is one between `launch` and `stop`."""
        if self._child is None:
            raise RuntimeError(f"{self.name} has not been launched")
        return self._child

    @property
    def launched(self) -> bool:
        """Whether it was started and not stopped; it may have died meanwhile."""
        return self._child is not None

    @property
    def pid(self) -> int:
        return self.child.pid

    def kill(self) -> None:
        """Kill it as a crash would (SIGKILL); what it leaves behind is gone when this returns."""
        self.child.kill()

    def ask_to_stop(self) -> None:
        """Begin to stop it, without waiting; `stop` waits."""
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        """End it and everything it started, after what is in flight; harmless when it has ended."""
        if self._child is not None:
            self._child.stop()
            self._child = None


def plain_environment(*, first_on_path: Path) -> dict[str, str]:
    """The variables a server is started with: those it needs to run, and none that may hold a secret."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime would report each session to its makers
    environment["PATH"] = os.pathsep.join([str(first_on_path), environment.get("PATH", os.defpath)])
    return environment


def private_directory(path: Path) -> Path:
    """Make a directory that only this user can read."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"cannot make the directory {path} for this user alone: {error}") from error
    return path


@contextmanager
def owned_directory(prefix: str) -> Iterator[Path]:
    """A directory for this user alone that goes with this process, however that ends."""
    path = Path(tempfile.mkdtemp(prefix=prefix))  # 0700
    log = log_file(path.name)
    command = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
    owner = Child(command, environment={}, log=log, directory=path)
    try:
        yield path
    finally:
        owner.stop()
        log.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Make a file that only this user can read."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def log_file(name: str) -> Path:
    """Make an empty log for a server, and forget old ones: but for so many, those not written to for a week."""
    import platformdirs

    directory = private_directory(platformdirs.user_log_path("eaf-inference", appauthor=False))
    oldest_first = sorted(directory.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for path in oldest_first[:-_KEPT_LOGS]:
        if time.time() - path.stat().st_mtime > _OLD:
            path.unlink(missing_ok=True)
    log = directory / f"{name}.log"
    log.touch(mode=0o600)
    return log
