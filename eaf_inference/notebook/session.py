"""Report this kernel's work with Triton to the panel beside the notebook.

A thread sends it over a comm that the kernel opens, so the panel updates while a cell runs. It sends changes only,
except that it repeats the last message from time to time while a cell runs, because a page that loads then cannot
ask. ipykernel passes messages of any thread to its own I/O thread, and JupyterLab accepts a comm's messages in any
cell. A front end without this target closes the comm, and gets no more messages about that connection.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from eaf_inference._kernel import is_batch
from eaf_inference.connecting import current
from eaf_inference.notebook.load import load_of
from eaf_inference.notebook.work import work_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from comm.base_comm import BaseComm
    from IPython.core.interactiveshell import InteractiveShell

    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["TARGET", "follow_session", "leave_session", "look_now"]

log = logging.getLogger(__name__)

TARGET = "eaf-inference"  # the target of the comm that the labextension registers
_PAUSE = 0.5  # seconds between two checks for changes
_AGAIN = 5.0  # seconds after which a message is repeated while a cell runs
_session: _Session | None = None  # of this kernel


def follow_session(shell: InteractiveShell) -> None:
    """Start to report to the panel. Do nothing without a kernel, because there is no front end."""
    global _session
    leave_session()
    if getattr(shell, "kernel", None) is not None:
        _session = _Session(shell)


def leave_session() -> None:
    """Stop reporting."""
    global _session
    if _session is not None:
        _session.stop()
        _session = None


def look_now() -> None:
    """Report a change at once."""
    if _session is not None:
        _session.look()


class _Session:
    """The reporting thread and its comm."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._is_running = True  # a cell loads the extension
        self._sent_at = 0.0
        for event, callback in self._callbacks():
            shell.events.register(event, callback)
        self._woken = threading.Event()
        self._ended = False
        self._comm: BaseComm | None = None
        self._sent: dict[str, Any] | None = None
        self._refused: str | None = None
        self._following = False
        self._thread = threading.Thread(target=self._run, name="eaf-inference-session", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Check for changes now."""
        self._woken.set()

    def _callbacks(self) -> tuple[tuple[str, Callable[..., None]], ...]:
        return ("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ends)

    def _cell_begins(self, *_: object) -> None:
        self._is_running = True

    def _cell_ends(self, *_: object) -> None:
        self._is_running = False

    def stop(self) -> None:
        for event, callback in self._callbacks():
            with contextlib.suppress(ValueError):  # the events were reset
                self._shell.events.unregister(event, callback)
        self._ended = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended:
                self._report()
                self._woken.wait(_PAUSE)
                self._woken.clear()
            self._close()
        except Exception:  # mostly of the kernel's sockets at its end; the user's work continues without a panel
            log.debug("Reporting to the panel ends", exc_info=True)

    def _report(self) -> None:
        connection = current()
        session = work_of(connection).look() if connection else None
        if session is None:
            self._close()
        elif self._comm is None and is_batch():
            return  # there is no front end
        elif session["endpoint"] != self._refused and (session != self._sent or self._is_due):
            self._send(session)
            self._follow_load(connection)

    def _follow_load(self, connection: Connection | None) -> None:
        """Follow the server's load while a panel is open and work goes on, for the next %triton_status."""
        if connection is None or self._comm is None or self._following or not self._is_busy:
            return
        load = load_of(connection)
        if load.known:
            self._following = True
            load.follow(self._wants_load)

    def _wants_load(self, _: Snapshot) -> bool:
        self._following = self._is_busy
        return self._following

    @property
    def _is_busy(self) -> bool:
        return not self._ended and self._sent is not None and bool(self._sent["busy"])

    @property
    def _is_due(self) -> bool:
        return self._is_running and time.monotonic() - self._sent_at >= _AGAIN

    def _send(self, session: dict[str, Any]) -> None:
        self._sent, self._sent_at = session, time.monotonic()
        if self._comm is None:
            from comm import create_comm

            self._comm = create_comm(target_name=TARGET, data={"session": session})
            self._comm.on_close(self._on_close)
            self._comm.on_msg(self._on_message)
        else:
            self._comm.send({"session": session})

    def _on_close(self, _: object) -> None:
        """Note that the front end closed the comm, on the kernel's main thread."""
        self._refused, self._comm = (self._sent or {}).get("endpoint"), None

    def _on_message(self, _: object) -> None:
        """Send the session again: any message asks for it, for example from a reloaded page."""
        self._sent = None
        self._woken.set()

    def _close(self) -> None:
        comm, self._comm, self._sent, self._refused = self._comm, None, None, None
        if comm is not None:
            comm.close()
