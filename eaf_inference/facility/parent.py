"""A server's parent that starts it again when it dies, and keeps what it started alive meanwhile.

Run as a script, by path and with the standard library only:

    python -I -S parent.py DIRECTORY PROGRAM [ARGUMENT ...]

Users' servers are the Hub's children, clusters the gateway's, and each finds its own again in its database. As a
"subreaper" this process inherits them when their server dies, so that its own end is theirs (see guardian.py), and
the server's is not. SIGUSR1 restarts the server, SIGTERM ends it. One that ends by itself soon after its first start
is given up: its log says why. So is one that keeps crashing (`Deaths`, which restarts.py uses too). The file `pid` in
DIRECTORY holds the server's pid, and `exit` the exit code of the one that died last.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STARTED_AFTER = 10.0  # seconds
DEATHS, WITHIN = 3, 60.0  # a server that dies so often in so many seconds keeps crashing
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Deaths:
    """When a server died lately."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def another(self) -> bool:
        """Count one more, and say whether the server keeps crashing."""
        self._times = [*self._times[1 - DEATHS :], time.monotonic()]
        return len(self._times) == DEATHS and self._times[-1] - self._times[0] < WITHIN


class Parent:
    """The server's process, as it is now."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        self._directory, self._command = directory, command
        self.pid = 0
        self.restarting = self.ending = self.has_served = False
        self.deaths = Deaths()

    def start(self) -> None:
        self.restarting = False
        self._started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execvp(self._command[0], self._command)  # noqa: S606  (no shell)
        self._write("pid", self.pid)

    def ended(self, status: int) -> bool:
        """The server has ended: start it again, or say that it is to stay so."""
        self._write("exit", exit_code(status))
        self.has_served |= os.WIFSIGNALED(status) or time.monotonic() - self._started > STARTED_AFTER
        if self.ending or not (self.restarting or (self.has_served and not self.deaths.another())):
            return True
        self.start()
        return False

    def _write(self, name: str, number: int) -> None:
        draft = self._directory / f"{name}.draft"
        draft.write_text(str(number), encoding="utf-8")
        draft.rename(self._directory / name)

    def told(self, number: int) -> None:
        """A signal came: the server has to end, for good or to be started again."""
        self.ending |= number == signal.SIGTERM
        self.restarting |= number == signal.SIGUSR1
        os.kill(self.pid, signal.SIGTERM)


def main(directory: str, command: list[str]) -> int:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals = {signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    parent = Parent(Path(directory), command)
    parent.start()
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            parent.told(number)
        while True:  # the server, or what one left: a signal may stand for several
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == parent.pid and parent.ended(status):
                return exit_code(status)


def exit_code(status: int) -> int:
    """The exit code, or 128 and the signal's number, as a shell has it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
