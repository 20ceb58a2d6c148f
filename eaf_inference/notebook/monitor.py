"""``triton.monitor()``: a widget that moves while a cell runs, because a thread of this kernel feeds it.

It stops when it, or its connection, is closed; then, and wherever nobody watches (nbconvert, papermill), a static
picture of the last minute stands in its place, which outlives the kernel. A notebook whose kernel was killed keeps
the picture of when the widget was shown: renewed below a live view, JupyterLab's output would be given a second one.

It rests while nobody looks. A view says when it comes and goes, but a page that is closed says nothing; so between
cells, when the kernel hears of its front ends, the views are asked, and those that do not answer are gone. A view
that comes, or whose page is looked at again, wakes it. No trait holds a secret: front ends save them with the
notebook.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import uuid
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anywidget import AnyWidget
from IPython import get_ipython
from IPython.display import display
from traitlets import Dict, List, Unicode

from eaf_inference._kernel import is_batch
from eaf_inference.errors import ConfigurationError
from eaf_inference.notebook.display import monitor_html, monitor_text
from eaf_inference.notebook.load import load_of, queue_of
from eaf_inference.notebook.work import work_of

if TYPE_CHECKING:
    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["WIDGET", "Monitor"]

WIDGET = Path(__file__).parents[1] / "static" / "widget.js"
_POINTS = 120  # of the chart: two minutes
_MODELS = 20  # the busiest
_ASKED_EVERY = 5.0  # seconds; the front end takes a longer silence for the kernel's end
_UNSEEN = 30.0  # seconds between cells after which a view that does not answer is gone
_NEVER_SEEN = 60.0  # the same, where there was none yet: JupyterLab makes those below the screen late


class Monitor(AnyWidget):
    """A live picture of the server's GPUs and queue, and of what this kernel does with it.

    Made by `Connection.monitor`.

    Attributes
    ----------
    average, advice : dict or None
        The figures and what they say, as `eaf_inference.metrics.verdict.Verdict.as_dict` gives them.
    history : list of dict
        time, busy and queue_ms of the server, and jets_per_second of this kernel, in the last two minutes.
    session : dict or None
        As `eaf_inference.notebook.work.Work.look` gives it.
    state : str
        "live" or "stopped".
    problem : str
        Why there are no numbers of the server.
    """

    _esm = Unicode().tag(sync=True)
    average: Any = Dict(default_value=None, allow_none=True).tag(sync=True)
    history: List[dict[str, float | None]] = List().tag(sync=True)
    advice: Any = Dict(default_value=None, allow_none=True).tag(sync=True)
    session: Any = Dict(default_value=None, allow_none=True).tag(sync=True)
    state = Unicode("live").tag(sync=True)
    problem = Unicode().tag(sync=True)

    def __init__(self, connection: Connection) -> None:
        self._connection = weakref.ref(connection)
        self._load = load_of(connection)
        self._work = work_of(connection)
        self._shell = get_ipython()
        self._id = uuid.uuid4().hex
        self._displayed = self._ended = False
        self._average: Snapshot | None = None
        self._idle_since: float | None = None  # None while a cell runs
        self._views: dict[str, float] = {}  # their id → when each was seen
        self._seen = False  # whether there ever was one
        self._asked = 0.0
        self._following = False
        self._lock = threading.Lock()
        super().__init__(_esm=_front_end(), problem=self._load.problem, session=self._work.look())
        self.comm.on_close(lambda _: self.stop())
        self.on_msg(self._view_says)
        self._points: deque[dict[str, float | None]] = deque(maxlen=_POINTS)
        if self._load.history:  # somebody else follows it
            self._take(self._load.history[-1])
        if self._shell is not None:
            self._shell.events.register("pre_run_cell", self._cell_begins)
            self._shell.events.register("post_run_cell", self._cell_ends)
        atexit.register(self.stop)
        self._follow()

    def stop(self) -> None:
        """Read nothing more; the last picture stays where the widget was shown."""
        if self._end():
            self._show_again()

    def close(self) -> None:
        """Take the widget away."""
        self._end()
        super().close()

    def _end(self) -> bool:
        """Whether it had not ended before."""
        if self._ended:
            return False
        self._ended = True
        atexit.unregister(self.stop)
        if self._shell is not None:
            for event, callback in (("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ends)):
                with contextlib.suppress(ValueError):  # somebody reset the events
                    self._shell.events.unregister(event, callback)
        if self.comm is not None:
            with self.hold_sync():
                self.state = "stopped"
                self.session = self._work.last()
        return True

    def _follow(self) -> None:
        """Listen to the load, unless it does."""
        with self._lock:
            if self._ended or self._following:
                return
            self._following = True
        self._load.follow(lambda snapshot: self._hear(snapshot))  # each its own: an earlier one may be leaving

    def _hear(self, snapshot: Snapshot) -> bool:
        """Show this, in the sampler's thread; whether more is wanted."""
        if self._ended:
            return False
        session = self._work.look()
        if session is None:
            self.stop()
            return False
        with self._lock:
            self._following = self._is_watched()
            if not self._following:
                return False
        with self.hold_sync():
            self.session = session
            self._take(snapshot)
        if time.monotonic() - self._asked >= _ASKED_EVERY:
            self._asked = time.monotonic()
            self.send({"answer": self._idle_since is not None})  # else the answers wait for the cell's end
        return True

    def _take(self, snapshot: Snapshot) -> None:
        own = self.session["inferences_per_second"] if self.session else None
        if not self._points:
            self._points.extend(map(_point, self._load.history[:-1]))
        self._points.append(_point(snapshot, own))
        self.history = list(self._points)
        verdict = self._load.verdict
        if not self._load.known or verdict is None:
            return
        failed = [f"{source.name}: {source.error}" for source in snapshot.sources if source.error]
        self.problem = f"No metrics. {failed[0]}." if failed and len(failed) == len(snapshot.sources) else ""
        self._average = verdict.average.busiest(_MODELS)
        self.average = self._average.as_dict()
        self.advice = verdict.advice.as_dict() if verdict.advice and not self.problem else None

    def _is_watched(self) -> bool:
        """Whether a view is left; while a cell runs, none can tell."""
        idle = self._idle_since
        if idle is None:
            return bool(self._views) or not self._seen
        now = time.monotonic()
        self._views = {view: seen for view, seen in self._views.items() if now - max(seen, idle) <= _UNSEEN}
        return bool(self._views) or (not self._seen and now - idle <= _NEVER_SEEN)

    def _view_says(self, _: object, content: Any, __: object) -> None:
        """A view is there, or goes; on the kernel's main thread."""
        view = content.get("view") if isinstance(content, dict) else None
        if not isinstance(view, str):
            return
        with self._lock:
            self._seen = True
            if content.get("seen"):
                self._views[view] = time.monotonic()
            else:
                self._views.pop(view, None)
        if content.get("seen"):
            self._follow()

    def _cell_begins(self, *_: object) -> None:
        self._idle_since = None

    def _cell_ends(self, *_: object) -> None:
        self._idle_since = time.monotonic()
        if is_batch():
            self.session = self._work.look() or self._work.last()  # with what came after the last snapshot
            self._show_again()

    def __repr__(self) -> str:
        return f"<Monitor: {monitor_text(self._average, self.session, problem=self.problem)}>"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and for those who cannot show it the picture as it is now."""
        data: dict[str, Any] = {
            "text/plain": repr(self),
            "text/html": monitor_html(
                self._average, self.history, self.advice, self.session, problem=self.problem, live=not self._ended
            ),
        }
        if not self._ended and not is_batch():
            view, metadata = super()._repr_mimebundle_() or ({}, {})
            return {**view, **data}, metadata
        return data, {}

    def _ipython_display_(self, **_: object) -> None:
        """Display it under a name, so that the picture can take its place."""
        self._displayed = True
        self._publish(update=False)

    def _show_again(self) -> None:
        """Only where no live view is, or is wanted: JupyterLab would add another one to it."""
        if self._displayed:
            self._publish(update=True)

    def _publish(self, *, update: bool) -> None:
        data, metadata = Monitor._repr_mimebundle_(self)  # ipywidgets takes the instance's away when it is closed
        display(  # type: ignore[no-untyped-call]
            data, metadata=metadata, raw=True, display_id=self._id, update=update
        )


def _front_end() -> str:
    """The widget's JavaScript."""
    try:
        return WIDGET.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"The widget's JavaScript, {WIDGET}, was not built. In a clone of the project: "
            "npm ci && npm run build:prod; else install the package again."
        ) from None


def _point(snapshot: Snapshot, own: float | None = None) -> dict[str, float | None]:
    """One moment of the chart; `own` are the jets/s of this kernel."""
    queue = queue_of(snapshot)
    return {
        "time": round(snapshot.time, 2),
        "busy": round(snapshot.busy.value, 3) if snapshot.busy else None,
        "queue_ms": None if queue is None else round(queue, 2),
        "jets_per_second": own,
    }
