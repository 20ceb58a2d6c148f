"""A server's parent that starts it again when it dies, and keeps what it started alive meanwhile.

Run as a script, by path and with the standard library only:

    python -I -S parent.py PID_FILE PROGRAM [ARGUMENT ...]

Users' servers are the Hub's children, clusters the gateway's, and each finds its own again in its database. As a
"subreaper" this process inherits them when their server dies, so that its own end is theirs (see guardian.py), and
the server's is not. SIGUSR1 restarts the server, SIGTERM ends it. One that ends by itself soon after its start is
given up: it says why.
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
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Parent:
    """The server's process, as it is now."""

    def __init__(self, pid_file: Path, command: list[str]) -> None:
        self._pid_file, self._command = pid_file, command
        self.pid = 0
        self.restarting = self.ending = False

    def start(self) -> None:
        self.restarting = False
        self._started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execvp(self._command[0], self._command)  # noqa: S606  (no shell)
        draft = self._pid_file.with_suffix(".draft")
        draft.write_text(str(self.pid))
        draft.rename(self._pid_file)

    def ended(self, status: int) -> bool:
        """The server has ended: start it again, or say that it is to stay so."""
        crashed = os.WIFSIGNALED(status) or time.monotonic() - self._started > STARTED_AFTER
        if self.ending or not (self.restarting or crashed):
            return True
        self.start()
        return False

    def told(self, number: int) -> None:
        """A signal came: the server has to end, for good or to be started again."""
        self.ending |= number == signal.SIGTERM
        self.restarting |= number == signal.SIGUSR1
        os.kill(self.pid, signal.SIGTERM)


def main(pid_file: str, command: list[str]) -> int:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals = {signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    parent = Parent(Path(pid_file), command)
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
                return os.waitstatus_to_exitcode(status) & 0x7F


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
