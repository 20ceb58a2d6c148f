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
from typing import TYPE_CHECKING

from eaf_inference.errors import InferenceError
from eaf_inference.facility.parent import Deaths
from eaf_inference.facility.processes import ignore
from eaf_inference.words import sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eaf_inference.facility.processes import Server

__all__ = ["keep_running"]

_RETRY_SECONDS = 5.0
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
        All are ready. One that needs another comes after it.
    progress
        Called with what happened: how a server ended, its log's last lines, and what is done about it.
    changed
        Called after a server was started again, or is left out.
    """
    watched = list(servers)
    deaths: defaultdict[Server, Deaths] = defaultdict(Deaths)
    retries: dict[Server, float] = {}  # server that did not start -> when to try again
    while True:
        server = _next(watched, retries)
        keeps_crashing = False
        if retries.pop(server, None) is None:
            progress(_how_it_ended(server))
            keeps_crashing = deaths[server].another() or server.gave_up
        if not keeps_crashing:
            try:
                server.come_back()
                progress(f"{server.name} is running again")
            except InferenceError as error:
                progress(str(error))
                if server.launched and server.child.wait(0) is not None:
                    progress(_how_it_ended(server))
                progress(f"{server.name} will be tried again in {_RETRY_SECONDS:.0f} s")
                retries[server] = time.monotonic() + _RETRY_SECONDS
                port_is_taken = server.launched and server.port_is_taken()
                keeps_crashing = not port_is_taken and deaths[server].another()
        if keeps_crashing:
            if server.essential and not any(type(other) is type(server) for other in watched if other is not server):
                return server
            server.stop()
            watched.remove(server)
            retries.pop(server, None)
            progress(f"{server.name} keeps crashing; going on without it. Its log: {server.log}")
        if server not in retries:
            changed()


def _next(watched: Iterable[Server], retries: dict[Server, float]) -> Server:
    """Wait for a server that has died, or that is to be tried again."""
    lifelines = {server.lifeline: server for server in watched if server not in retries}
    first = min(retries, key=retries.__getitem__, default=None)
    timeout = None if first is None else max(0.0, retries[first] - time.monotonic())
    ended = select.select(list(lifelines), [], [], timeout)[0]
    return lifelines[ended[0]] if ended or first is None else first


def _how_it_ended(server: Server) -> str:
    """Say by which signal or exit code, and what it wrote last: foreign text, so without control characters."""
    code = server.exit_code
    ending = f"ended with exit code {code}"
    if code is not None and code > _SIGNALLED:
        with suppress(ValueError):  # no signal has this number
            ending = f"was killed by {signal.Signals(code - _SIGNALLED).name}"
    lines = [line for line in server.log.read_text(errors="replace").splitlines() if line.strip()][-_SHOWN_LINES:]
    shown = [sentence("".join(letter for letter in line if letter.isprintable())) for line in lines]
    return "\n  ".join([f"{server.name} {ending}. Its log is {server.log}; it ends with:", *(shown or ["(nothing)"])])
