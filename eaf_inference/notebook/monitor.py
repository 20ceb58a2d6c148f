"""``triton.monitor()``: a widget that updates while a cell runs, because a thread of this kernel feeds it.

It stops when it or its connection is closed. Then, and where there is no front end (nbconvert, papermill), a static
view of the last minute takes its place and stays in the saved notebook. If a kernel is killed, the notebook keeps the
static view from when the widget was first shown. It is not updated below a live view, because JupyterLab would then
show both.

The widget rests while no view is visible. A view reports when it appears and disappears, but a closed page reports
nothing. So between cells, when the kernel can receive messages, it asks the views, and those that do not answer are
gone. A new view, or a page that becomes visible again, wakes it. No trait holds a secret, because front ends save
traits with the notebook.
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
from eaf_inference.metrics.totals import mean_queue_ms
from eaf_inference.notebook.load import load_of
from eaf_inference.notebook.static_views import monitor_html, monitor_text
from eaf_inference.notebook.work import work_of

if TYPE_CHECKING:
    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["WIDGET", "Monitor"]

WIDGET = Path(__file__).parents[1] / "static" / "widget.js"
_POINTS = 120  # of the chart, for two minutes
_MODELS = 20  # the busiest
_ASKED_EVERY = 5.0  # seconds; after a longer silence, the front end takes the kernel for dead
_UNSEEN = 30.0  # seconds between cells after which a silent view is gone
_NEVER_SEEN = 60.0  # the same before the first view, since JupyterLab creates views below the screen late


class Monitor(AnyWidget):
    """A live view of the server's GPUs and queue, and of this kernel's work; `Connection.monitor` returns it.

    Attributes
    ----------
    average, advice : dict or None
        The figures and the advice, as in `eaf_inference.metrics.verdict.Verdict.as_dict`.
    history : list of dict
        Points of the last two minutes: time, busy and queue_ms of the server; inferences_per_second of this kernel.
    session : dict or None
        As from `eaf_inference.notebook.work.Work.look`.
    state : str
        "live" or "stopped".
    problem : str
        Why there are no figures of the server.
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
        self._views: dict[str, float] = {}  # id → time of its last message
        self._seen = False  # whether there ever was a view
        self._asked = 0.0
        self._following = False
        self._lock = threading.Lock()
        super().__init__(_esm=_front_end(), problem=self._load.problem, session=self._work.look())
        self.comm.on_close(lambda _: self.stop())
        self.on_msg(self._on_view)
        self._points: deque[dict[str, float | None]] = deque(maxlen=_POINTS)
        if self._load.history:  # another widget follows it already
            self._take(self._load.history[-1])
        if self._shell is not None:
            self._shell.events.register("pre_run_cell", self._cell_begins)
            self._shell.events.register("post_run_cell", self._cell_ends)
        atexit.register(self.stop)
        self._follow()

    def stop(self) -> None:
        """Stop reading metrics; a static view replaces the widget."""
        if self._end():
            self._show_again()

    def close(self) -> None:
        """Stop, and remove the widget."""
        self._end()
        super().close()

    def _end(self) -> bool:
        """End the updates; return False if they had ended before."""
        if self._ended:
            return False
        self._ended = True
        atexit.unregister(self.stop)
        if self._shell is not None:
            for event, callback in (("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ends)):
                with contextlib.suppress(ValueError):  # the events were reset
                    self._shell.events.unregister(event, callback)
        if self.comm is not None:
            with self.hold_sync():
                self.state = "stopped"
                self.session = self._work.last()
        return True

    def _follow(self) -> None:
        """Follow the load, unless it is followed already."""
        with self._lock:
            if self._ended or self._following:
                return
            self._following = True
        # a new function each time, because the last one may be leaving
        self._load.follow(lambda snapshot: self._hear(snapshot))

    def _hear(self, snapshot: Snapshot) -> bool:
        """Show a snapshot, in the sampler's thread; return False to stop following."""
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
            self.send({"answer": self._idle_since is not None})  # during a cell, answers would arrive after its end
        return True

    def _take(self, snapshot: Snapshot) -> None:
        own = self.session["inferences_per_second"] if self.session else None
        if not self._points:
            self._points.extend(map(_point, self._load.history[:-1]))
        while self._points and (self._points[-1]["time"] or 0.0) >= snapshot.time:  # the clock was set back
            self._points.pop()
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
        """Return whether a view is left; during a cell, the views known before it count."""
        idle = self._idle_since
        if idle is None:
            return bool(self._views) or not self._seen
        now = time.monotonic()
        self._views = {view: seen for view, seen in self._views.items() if now - max(seen, idle) <= _UNSEEN}
        return bool(self._views) or (not self._seen and now - idle <= _NEVER_SEEN)

    def _on_view(self, _: object, content: Any, __: object) -> None:
        """Register or forget a view, on the kernel's main thread."""
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
            self.session = self._work.look() or self._work.last()  # with work since the last snapshot
            self._show_again()

    def __repr__(self) -> str:
        return f"<Monitor: {monitor_text(self._average, self.session, problem=self.problem)}>"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the live widget, and the static view for front ends without widgets."""
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
        """Display it with an id, so that the static view can replace it."""
        self._displayed = True
        self._publish(update=False)

    def _show_again(self) -> None:
        """Show the static view. Call this without a live view only, because JupyterLab would show both."""
        if self._displayed:
            self._publish(update=True)

    def _publish(self, *, update: bool) -> None:
        data, metadata = Monitor._repr_mimebundle_(self)  # ipywidgets removes the instance's method when it is closed
        display(  # type: ignore[no-untyped-call]
            data, metadata=metadata, raw=True, display_id=self._id, update=update
        )


def _front_end() -> str:
    """Return the widget's JavaScript."""
    try:
        return WIDGET.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"The widget's JavaScript, {WIDGET}, is missing. In a clone of the project, build it with "
            "npm ci && npm run build:prod; otherwise reinstall the package."
        ) from None


def _point(snapshot: Snapshot, own: float | None = None) -> dict[str, float | None]:
    """Return a point of the chart; `own` is the rate of this kernel in jets/s."""
    queue = mean_queue_ms(snapshot)
    return {
        "time": round(snapshot.time, 2),
        "busy": round(snapshot.busy.value, 3) if snapshot.busy else None,
        "queue_ms": None if queue is None else round(queue, 2),
        "inferences_per_second": own,
    }
