"""A server that others' processes outlive: its parent (parent.py) starts it again, and what it started goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.errors import ServerUnavailable
from eaf_inference.facility.processes import Child, Server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["KeptServer"]

_PARENT = Path(__file__).with_name("parent.py")
_GRACE_SECONDS = 10
_RESTART_SECONDS = 30  # until what has to end has ended


class KeptServer(Server):
    """A server that is started again on the same ports, with its database, when it dies or is told to.

    Attributes
    ----------
    directory : Path
        Of its configuration and database; made anew by each `launch`, and gone with its parent.
    """

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self._watched: tuple[int, int] | None = None  # pid, and the descriptor that becomes readable when it ends

    @property
    def lifeline(self) -> Child | int:
        """Becomes readable when the server itself dies; its parent lives on."""
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
        with suppress(ServerUnavailable):  # the parent has given up
            self._wait_for_another_than(self._watched[0] if self._watched else 0, _RESTART_SECONDS)
        with suppress(FileNotFoundError):  # the directory has gone with the parent
            return int((self.directory / "exit").read_text(encoding="utf-8"))
        return super().exit_code

    def start_again(self) -> None:
        """Wait until its parent has started it again, which it does at once."""
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
        """The server's own; its parent's is that of `child`. 0 when the parent has given up."""
        with suppress(FileNotFoundError):  # the directory has gone with the parent
            return int((self.directory / "pid").read_text(encoding="utf-8"))
        return 0

    def keep(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Start it below a parent."""
        self._child = Child(
            [sys.executable, "-I", "-S", _PARENT, self.directory, *command],
            environment=environment,
            log=self.log,
            directory=self.directory,
            grace=_GRACE_SECONDS,
        )

    def restart(self) -> None:
        """End the server and wait until it is there again; what it has started goes on."""
        before = self.pid
        self.child.send_signal(signal.SIGUSR1)
        self._wait_for_another_than(before, _RESTART_SECONDS)
        self.wait_until_ready()

    def kill(self) -> None:
        """Kill the server as a crash would; its parent starts it again at once, see `wait_until_ready`."""
        before = self.pid
        os.kill(before, signal.SIGKILL)
        self._wait_for_another_than(before, _RESTART_SECONDS)

    def _wait_for_another_than(self, before: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.pid in (before, 0):
            if self.child.wait(0.02) is not None or time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} was not started again; what it does is in {self.log}")


def _pidfd(pid: int) -> int | None:
    with suppress(ProcessLookupError):  # it just died; its parent is about to start another one
        return os.pidfd_open(pid)
    return None
