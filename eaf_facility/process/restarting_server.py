"""A server whose children outlive it: its parent, the restarter (restarter.py), starts it again when it dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.process.server import Child, Server
from eaf_inference.errors import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["RestartingServer"]

_RESTARTER = Path(__file__).with_name("restarter.py")
_GRACE_SECONDS = 10
_RESTART_SECONDS = 30  # for the old process to end and the new one to start


class RestartingServer(Server):
    """A server that is started again on the same ports, with its database, when it dies or on request.

    Attributes
    ----------
    directory : Path
        Holds its configuration and database. Each `launch` makes a new one, which is removed when the restarter ends.
    """

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self._watched: tuple[int, int] | None = None  # pid, and a descriptor that becomes readable when it ends

    @property
    def lifeline(self) -> Child | int:
        """What becomes readable when the server itself dies; its restarter lives on."""
        if self._watched is None:
            while not (pid := self.pid) or (descriptor := _pidfd(pid)) is None:
                if self.child.wait(0.02) is not None:
                    return self.child
            self._watched = pid, descriptor
        return self._watched[1]

    @property
    def gave_up(self) -> bool:
        return self.child.wait(0) is not None

    @property
    def exit_code(self) -> int | None:
        with suppress(ServerUnavailable):  # the restarter has given up
            self._wait_for_another_than(self._watched[0] if self._watched else 0, _RESTART_SECONDS)
        with suppress(FileNotFoundError):  # the restarter has ended, and its directory is removed
            return int((self.directory / "exit").read_text(encoding="utf-8"))
        return super().exit_code

    def start_again(self) -> None:
        """Wait until the restarter has started it again, which it does immediately."""
        if self._watched is not None:
            pid, descriptor = self._watched
            self._wait_for_another_than(pid, _RESTART_SECONDS)
            os.close(descriptor)
            self._watched = None

    def stop(self) -> None:
        super().stop()
        if self._watched is not None:
            os.close(self._watched[1])
            self._watched = None

    @property
    def pid(self) -> int:
        """The server's own pid, or 0 if the restarter has given up; the restarter's pid is that of `child`."""
        with suppress(FileNotFoundError):  # the restarter has ended, and its directory is removed
            return int((self.directory / "pid").read_text(encoding="utf-8"))
        return 0

    def launch_with_restarter(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Start the command as the child of a restarter."""
        self._child = Child(
            [sys.executable, "-I", "-S", _RESTARTER, self.directory, *command],
            environment=environment,
            log=self.log,
            directory=self.directory,
            grace=_GRACE_SECONDS,
        )

    def restart(self) -> None:
        """Restart the server and wait until it is ready; the processes that it started keep running."""
        before = self.pid
        self.child.send_signal(signal.SIGUSR1)
        self._wait_for_another_than(before, _RESTART_SECONDS)
        self.wait_until_ready()

    def kill(self) -> None:
        """Kill the server as a crash would. The restarter starts it again: wait with `wait_until_ready`."""
        before = self.pid
        os.kill(before, signal.SIGKILL)
        self._wait_for_another_than(before, _RESTART_SECONDS)

    def _wait_for_another_than(self, before: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.pid in (before, 0):
            if self.child.wait(0.02) is not None or time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} was not started again. Its log: {self.log}")


def _pidfd(pid: int) -> int | None:
    with suppress(ProcessLookupError):  # it has just died, and the restarter is about to start another one
        return os.pidfd_open(pid)
    return None
