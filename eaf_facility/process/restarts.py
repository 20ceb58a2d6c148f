"""The policy for servers that die, for `eaf-inference up` with and without `--users`.

A server that dies is restarted immediately, on the same ports. A server that keeps crashing (`restarter.Deaths`) ends
the facility, unless it is not essential. If another process has taken a server's port meanwhile, the server is not at
fault: it is tried again until the port is free.
"""

from __future__ import annotations

import select
import signal
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eaf_facility.process.restarter import Deaths
from eaf_facility.process.server import ignore
from eaf_inference._redact import redact
from eaf_inference._text import printable
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eaf_facility.process.server import Server

__all__ = ["keep_running"]

_RETRY_SECONDS = 5.0
_READY_WITHIN = 120.0  # seconds
_POLL_SECONDS = 0.1
_SHOWN_LINES = 5  # of a log
_SIGNALLED = 128  # plus the signal's number: the exit code of a killed program


def keep_running(
    servers: Iterable[Server],
    *,
    progress: Callable[[str], None] = ignore,
    changed: Callable[[], object] = lambda: None,
) -> Server:
    """Restart every server that dies, until one keeps crashing; return that one.

    Parameters
    ----------
    servers
        The servers; all must be ready.
    progress
        Called with a message for each event: how a server ended, the last lines of its log, and what happens next.
    changed
        Called after a server has been restarted or dropped.
    """
    watch = _Watch(list(servers), progress, changed)
    while True:
        for server in watch.wait():
            if watch.handle_death(server):
                return server
        watch.check_starting()


@dataclass(slots=True)
class _Watch:
    """The state of each server: running, starting, or waiting for another try."""

    watched: list[Server]
    progress: Callable[[str], None]
    changed: Callable[[], object]
    deaths: defaultdict[Server, Deaths] = field(default_factory=lambda: defaultdict(Deaths))
    starting: dict[Server, float] = field(default_factory=dict)  # -> the deadline for becoming ready
    later: dict[Server, float] = field(default_factory=dict)  # -> the time of the next try

    def wait(self) -> list[Server]:
        """Wait until there is something to do, and return the servers that have died."""
        lifelines = {server.lifeline: server for server in self.watched if server not in self.later}
        due = [time.monotonic() + _POLL_SECONDS] if self.starting else []
        due += self.later.values()
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        return [lifelines[each] for each in select.select(list(lifelines), [], [], timeout)[0]]

    def handle_death(self, server: Server) -> bool:
        """Restart the server now or later, or drop it; return True if the facility has to end instead."""
        self.progress(_how_it_ended(server))
        was_starting = self.starting.pop(server, None) is not None
        if was_starting and server.port_is_taken():
            if server.move():
                self._start(server)
            else:
                self._try_later(server, "another process has its port")
        elif not (self.deaths[server].record() or server.gave_up):
            self._start(server)
        elif server.essential and not any(type(each) is type(server) for each in self.watched if each is not server):
            return True
        else:
            server.stop()
            self.watched.remove(server)
            self.progress(f"{server.name} keeps crashing; continuing without it. Its log: {server.log}")
            self.changed()
        return False

    def check_starting(self) -> None:
        """Report servers that have become ready, kill those that took too long, and start those that are due."""
        now = time.monotonic()
        for server, too_late in list(self.starting.items()):
            if server.is_ready():
                del self.starting[server]
                self.progress(f"{server.name} is running again")
                self.changed()
            elif now > too_late:
                self.progress(f"{server.name} was not ready within {_READY_WITHIN:.0f} s")
                server.kill()  # `wait` then returns it as dead
        for server, due in list(self.later.items()):
            if now >= due:
                self._start(server)

    def _start(self, server: Server) -> None:
        self.later.pop(server, None)
        try:
            server.start_again()
        except InferenceError as error:
            if not server.gave_up:  # otherwise `wait` returns it as dead
                self._try_later(server, str(error))
        else:
            self.starting[server] = time.monotonic() + _READY_WITHIN

    def _try_later(self, server: Server, why: str) -> None:
        self.progress(f"{server.name} cannot start: {why}. It will be tried again in {_RETRY_SECONDS:.0f} s")
        self.later[server] = time.monotonic() + _RETRY_SECONDS


def _how_it_ended(server: Server) -> str:
    """Return the signal or exit code, and the last lines of its log, made safe to print."""
    code = server.exit_code
    ending = f"ended with exit code {code}"
    if code is not None and code > _SIGNALLED:
        with suppress(ValueError):  # no signal has this number
            ending = f"was killed by {signal.Signals(code - _SIGNALLED).name}"
    log = server.log.read_text(encoding="utf-8", errors="replace")
    shown = [printable(redact(line)) for line in log.splitlines() if line.strip()][-_SHOWN_LINES:]
    return "\n  ".join([f"{server.name} {ending}. Its log is {server.log}; it ends with:", *(shown or ["(nothing)"])])
