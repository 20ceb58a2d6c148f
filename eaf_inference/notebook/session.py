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
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import InferenceError
from eaf_inference.inference.progress import under_way
from eaf_inference.registry import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from comm.base_comm import BaseComm
    from IPython.core.interactiveshell import InteractiveShell

    from eaf_inference.connection import Connection

__all__ = ["TARGET", "Work", "follow_session", "leave_session", "look_now", "work_of"]

log = logging.getLogger(__name__)

TARGET = "eaf-inference"  # the comm's, as the labextension registers it
_PAUSE = 0.5  # seconds between two looks
_AGAIN = 5.0  # seconds after which the same is told again while a cell runs
_WINDOW = 5.0  # seconds over which the rate is taken
_CLUSTERS_EVERY = 10.0  # seconds; each look asks all workers
_works: weakref.WeakKeyDictionary[Connection, Work] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_session: _Session | None = None  # of this kernel


class Work:
    """What one connection does; panel and widget share it. Holds the connection weakly."""

    def __init__(self, connection: Connection) -> None:
        self._connection = weakref.ref(connection)
        self._counted: deque[tuple[float, int]] = deque()
        self._clusters: list[dict[str, Any]] = []
        self._inferences = self._not_finite = 0
        self._where: tuple[str | None, str | None] = (None, None)
        self._clusters_due = 0.0
        self._asking: threading.Thread | None = None

    def look(self) -> dict[str, Any] | None:
        """The session as panel and widget take it; None once the connection is closed or gone."""
        connection = self._connection()
        if connection is None or connection.closed:
            return None
        try:
            self._where = connection.endpoint.url, connection.user
        except InferenceError:  # closed meanwhile
            return None
        self._inferences, self._not_finite = connection.traffic.inferences, connection.traffic.not_finite
        progress = under_way()
        return {
            **self.last(),
            "busy": progress is not None or connection.traffic.in_flight > 0,
            "label": progress.label if progress else None,
            "done": progress.done if progress else None,
            "total": progress.total if progress else None,
            "inferences_per_second": self._rate(time.monotonic(), self._inferences),
            "clusters": self._clusters_of(connection),
        }

    def last(self) -> dict[str, Any]:
        """The same, of what is over."""
        connection = self._connection()
        endpoint, user = self._where
        return {
            "endpoint": endpoint,
            "user": user,
            "busy": False,
            "label": None,
            "done": None,
            "total": None,
            "inferences_per_second": None,
            "inferences": connection.traffic.inferences if connection else self._inferences,
            "not_finite": connection.traffic.not_finite if connection else self._not_finite,
            "clusters": [],
        }

    def _rate(self, now: float, inferences: int) -> float | None:
        """Over the last seconds; None before there are any."""
        with _lock:
            counted = self._counted
            if counted and now - counted[-1][0] > _WINDOW:  # nobody looked for a while
                counted.clear()
            counted.append((now, inferences))
            while len(counted) > 2 and now - counted[1][0] >= _WINDOW:
                counted.popleft()
            since, before = counted[0]
        return round((inferences - before) / (now - since), 1) if now - since >= _PAUSE / 2 else None

    def _clusters_of(self, connection: Connection) -> list[dict[str, Any]]:
        """The clusters as they were a few seconds ago: asking takes a while, and is done beside."""
        if not connection.followers:
            self._clusters = []
        elif time.monotonic() >= self._clusters_due and (self._asking is None or not self._asking.is_alive()):
            self._clusters_due = time.monotonic() + _CLUSTERS_EVERY
            self._asking = threading.Thread(
                target=self._ask, args=(connection,), name="eaf-inference-clusters", daemon=True
            )
            self._asking.start()
        return self._clusters

    def _ask(self, connection: Connection) -> None:
        try:
            table = connection.clusters()
        except (InferenceError, OSError, RuntimeError) as error:  # RuntimeError: the client's loop has ended
            log.debug("The clusters cannot be asked: %s", error)
            return
        self._clusters = [
            {
                "name": row.name,
                "state": row.state,
                "workers": row.workers,
                "configured": row.configured,
                "inferences_per_second": row.inferences_per_s,
            }
            for row in table
        ]


def work_of(connection: Connection) -> Work:
    """The one `Work` of a connection."""
    with _lock:
        work = _works.get(connection)
        if work is None:
            work = _works[connection] = Work(connection)
    return work


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
        elif session["endpoint"] != self._refused and (session != self._told or self._is_due):
            self._send(session)

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
