"""What happens when a server of a facility dies: one policy for `eaf-inference up` with and without `--users`.

It is started again at once, on the same ports. One that keeps crashing (`parent.Deaths`) ends the facility, unless
the facility can do without it. A server whose port another process has taken meanwhile is not at fault: it is tried
again for as long as that lasts.
"""

from __future__ import annotations

import select
import signal
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eaf_inference._redact import redact
from eaf_inference._text import printable
from eaf_inference.errors import InferenceError
from eaf_inference.facility.parent import Deaths
from eaf_inference.facility.processes import ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eaf_inference.facility.processes import Server

__all__ = ["keep_running"]

_RETRY_SECONDS = 5.0
_READY_WITHIN = 120.0  # seconds
_POLL_SECONDS = 0.1
_SHOWN_LINES = 5  # of a log
_SIGNALLED = 128  # and the signal's number: the exit code of what was killed


def keep_running(
    servers: Iterable[Server],
    *,
    progress: Callable[[str], None] = ignore,
    changed: Callable[[], object] = lambda: None,
) -> Server:
    """Start again whatever server dies, for as long as that helps; return the one that keeps crashing.

    Parameters
    ----------
    servers
        All are ready.
    progress
        Called with what happened: how a server ended, its log's last lines, and what is done about it.
    changed
        Called after a server was started again, or is left out.
    """
    keeper = _Keeper(list(servers), progress, changed)
    while True:
        for server in keeper.wait():
            if keeper.has_died(server):
                return server
        keeper.look_after_starting()


@dataclass(slots=True)
class _Keeper:
    """What is known of each server: it runs, starts, or is to be tried again later."""

    watched: list[Server]
    progress: Callable[[str], None]
    changed: Callable[[], object]
    deaths: defaultdict[Server, Deaths] = field(default_factory=lambda: defaultdict(Deaths))
    starting: dict[Server, float] = field(default_factory=dict)  # -> when that has taken too long
    later: dict[Server, float] = field(default_factory=dict)  # -> when to try again

    def wait(self) -> list[Server]:
        """Wait until there is something to do; give the servers that have died."""
        lifelines = {server.lifeline: server for server in self.watched if server not in self.later}
        due = [time.monotonic() + _POLL_SECONDS] if self.starting else []
        due += self.later.values()
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        return [lifelines[each] for each in select.select(list(lifelines), [], [], timeout)[0]]

    def has_died(self, server: Server) -> bool:
        """Start it again, or try that later, or leave it out; or say that the facility has to end."""
        self.progress(_how_it_ended(server))
        was_starting = self.starting.pop(server, None) is not None
        if was_starting and server.port_is_taken():
            if server.move():
                self._start(server)
            else:
                self._try_later(server, "another process has its port")
        elif not (self.deaths[server].another() or server.gave_up):
            self._start(server)
        elif server.essential and not any(type(each) is type(server) for each in self.watched if each is not server):
            return True
        else:
            server.stop()
            self.watched.remove(server)
            self.progress(f"{server.name} keeps crashing; going on without it. Its log: {server.log}")
            self.changed()
        return False

    def look_after_starting(self) -> None:
        """See which servers are ready now, which never will be, and which are to be tried again."""
        now = time.monotonic()
        for server, too_late in list(self.starting.items()):
            if server.is_ready():
                del self.starting[server]
                self.progress(f"{server.name} is running again")
                self.changed()
            elif now > too_late:
                self.progress(f"{server.name} was not ready within {_READY_WITHIN:.0f} s")
                server.kill()  # and so it is one that has died
        for server, due in list(self.later.items()):
            if now >= due:
                self._start(server)

    def _start(self, server: Server) -> None:
        self.later.pop(server, None)
        try:
            server.start_again()
        except InferenceError as error:
            if not server.gave_up:  # else `wait` finds it
                self._try_later(server, str(error))
        else:
            self.starting[server] = time.monotonic() + _READY_WITHIN

    def _try_later(self, server: Server, why: str) -> None:
        self.progress(f"{server.name} cannot start: {why}. It will be tried again in {_RETRY_SECONDS:.0f} s")
        self.later[server] = time.monotonic() + _RETRY_SECONDS


def _how_it_ended(server: Server) -> str:
    """Say by which signal or exit code, and what it wrote last: foreign text."""
    code = server.exit_code
    ending = f"ended with exit code {code}"
    if code is not None and code > _SIGNALLED:
        with suppress(ValueError):  # no signal has this number
            ending = f"was killed by {signal.Signals(code - _SIGNALLED).name}"
    log = server.log.read_text(encoding="utf-8", errors="replace")
    shown = [printable(redact(line)) for line in log.splitlines() if line.strip()][-_SHOWN_LINES:]
    return "\n  ".join([f"{server.name} {ending}. Its log is {server.log}; it ends with:", *(shown or ["(nothing)"])])
