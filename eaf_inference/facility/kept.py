"""A server that others' processes outlive: its parent (parent.py) starts it again, and what it started goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
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

    @property
    def pid(self) -> int:
        """The server's own; its parent's is that of `child`."""
        return int((self.directory / "pid").read_text())

    def keep(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Start it below a parent."""
        self._child = Child(
            [sys.executable, "-I", "-S", _PARENT, self.directory / "pid", *command],
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
        while self.pid == before:
            if self.child.wait(0.02) is not None or time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} was not started again; what it does is in {self.log}")
