"""The parent of a server, which restarts it when it dies and keeps the server's own children alive meanwhile.

Run as a script, by path and with the standard library only, so it writes its files without eaf_inference._files:

    python -I -S restarter.py DIRECTORY PROGRAM [ARGUMENT ...]

Users' servers are children of the Hub, and clusters are children of the gateway; a restarted Hub or gateway finds
them in its database. As a "subreaper", this process inherits them when the server dies, so that they live until this
process ends (see reaper.py). SIGUSR1 restarts the server and SIGTERM stops it. The restarter gives up on a server
that exits soon after its first start (see its log), and on one that keeps crashing (`Deaths`, also used by
restarts.py). In DIRECTORY, the file `pid` holds the server's pid, and `exit` the exit code of the server that died
last.
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
DEATHS, WITHIN = 3, 60.0  # three deaths within 60 seconds: the server keeps crashing
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Deaths:
    """The times of a server's latest deaths."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def record(self) -> bool:
        """Record a death, and return whether the server keeps crashing."""
        self._times = [*self._times[1 - DEATHS :], time.monotonic()]
        return len(self._times) == DEATHS and self._times[-1] - self._times[0] < WITHIN


class Restarter:
    """The server's current process, and whether it is to be started again."""

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

    def handle_exit(self, status: int) -> bool:
        """Start the server again after it has exited, or return True if it is not to run again."""
        self._write("exit", exit_code(status))
        self.has_served |= os.WIFSIGNALED(status) or time.monotonic() - self._started > STARTED_AFTER
        if self.ending or not (self.restarting or (self.has_served and not self.deaths.record())):
            return True
        self.start()
        return False

    def _write(self, name: str, number: int) -> None:
        draft = self._directory / f"{name}.draft"
        draft.write_text(str(number), encoding="utf-8")
        draft.rename(self._directory / name)

    def handle_signal(self, number: int) -> None:
        """Stop the server: for good after SIGTERM, to start it again after SIGUSR1."""
        self.ending |= number == signal.SIGTERM
        self.restarting |= number == signal.SIGUSR1
        os.kill(self.pid, signal.SIGTERM)


def main(directory: str, command: list[str]) -> int:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals = {signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    restarter = Restarter(Path(directory), command)
    restarter.start()
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            restarter.handle_signal(number)
        while True:  # one SIGCHLD may stand for several children: the server, or those it left behind
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == restarter.pid and restarter.handle_exit(status):
                return exit_code(status)


def exit_code(status: int) -> int:
    """Return the exit code, or 128 plus the signal's number, as a shell does."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
