"""What this kernel does with Triton, told to the panel beside the notebook.

A thread of its own tells it, over a comm that the kernel opens, so that the panel moves while a cell runs. While
nothing changes it says nothing, but for now and then while a cell runs: a page that is loaded meanwhile cannot ask.
ipykernel hands the messages of any thread to its own I/O thread, and JupyterLab takes
a comm's messages whatever cell they came in. A front end that does not know the target closes the comm, and is told
nothing more of that connection.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from eaf_inference._kernel import is_batch
from eaf_inference.notebook.load import load_of
from eaf_inference.notebook.work import work_of
from eaf_inference.registry import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from comm.base_comm import BaseComm
    from IPython.core.interactiveshell import InteractiveShell

    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["TARGET", "follow_session", "leave_session", "look_now"]

log = logging.getLogger(__name__)

TARGET = "eaf-inference"  # the comm's, as the labextension registers it
_PAUSE = 0.5  # seconds between two looks
_AGAIN = 5.0  # seconds after which the same is told again while a cell runs
_session: _Session | None = None  # of this kernel


def follow_session(shell: InteractiveShell) -> None:
    """Begin to tell the panel; does nothing where IPython has no kernel, and so no front end."""
    global _session
    leave_session()
    if getattr(shell, "kernel", None) is not None:
        _session = _Session(shell)


def leave_session() -> None:
    """Tell nothing more."""
    global _session
    if _session is not None:
        _session.stop()
        _session = None


def look_now() -> None:
    """Tell at once that something has changed."""
    if _session is not None:
        _session.look()


class _Session:
    """The thread that tells, and its comm."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._is_running = True  # what loads the extension is a cell
        self._told_at = 0.0
        for event, callback in self._callbacks():
            shell.events.register(event, callback)
        self._woken = threading.Event()
        self._ended = False
        self._comm: BaseComm | None = None
        self._told: dict[str, Any] | None = None
        self._refused: str | None = None
        self._following = False
        self._thread = threading.Thread(target=self._run, name="eaf-inference-session", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Look now."""
        self._woken.set()

    def _callbacks(self) -> tuple[tuple[str, Callable[..., None]], ...]:
        return ("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ends)

    def _cell_begins(self, *_: object) -> None:
        self._is_running = True

    def _cell_ends(self, *_: object) -> None:
        self._is_running = False

    def stop(self) -> None:
        for event, callback in self._callbacks():
            with contextlib.suppress(ValueError):  # somebody reset the events
                self._shell.events.unregister(event, callback)
        self._ended = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended:
                self._tell()
                self._woken.wait(_PAUSE)
                self._woken.clear()
            self._close()
        except Exception:  # of the kernel's sockets, mostly at its end: the user's work goes on without a panel
            log.debug("The panel is told no more", exc_info=True)

    def _tell(self) -> None:
        connection = current()
        session = work_of(connection).look() if connection else None
        if session is None:
            self._close()
        elif self._comm is None and is_batch():
            return  # nobody answers a comm there
        elif session["endpoint"] != self._refused and (session != self._told or self._is_due):
            self._send(session)
            self._follow_load(connection)

    def _follow_load(self, connection: Connection | None) -> None:
        """Follow the server's load while a front end that shows a panel looks on, so that %triton_status knows it."""
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
        return not self._ended and self._told is not None and bool(self._told["busy"])

    @property
    def _is_due(self) -> bool:
        return self._is_running and time.monotonic() - self._told_at >= _AGAIN

    def _send(self, session: dict[str, Any]) -> None:
        self._told, self._told_at = session, time.monotonic()
        if self._comm is None:
            from comm import create_comm

            self._comm = create_comm(target_name=TARGET, data={"session": session})
            self._comm.on_close(self._on_close)
            self._comm.on_msg(self._on_message)
        else:
            self._comm.send({"session": session})

    def _on_close(self, _: object) -> None:
        """The front end does not want it; on the kernel's main thread."""
        self._refused, self._comm = (self._told or {}).get("endpoint"), None

    def _on_message(self, _: object) -> None:
        """Whoever came late, such as a page that was loaded again, asks with any message to be told at once."""
        self._told = None
        self._woken.set()

    def _close(self) -> None:
        comm, self._comm, self._told, self._refused = self._comm, None, None, None
        if comm is not None:
            comm.close()
