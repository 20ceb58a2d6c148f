"""``triton.monitor()``: a widget that moves while a cell runs, because a thread of this kernel feeds it.

The kernel hears of its views only between cells. It stops when its connection is closed, when it is closed, or when
for a while no view of it is left; then, and wherever nobody watches (nbconvert, papermill), a static picture of the
last minute stands in its place, which outlives the kernel. No trait holds a secret: front ends save them with the
notebook.
"""

from __future__ import annotations

import atexit
import contextlib
import time
import uuid
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anywidget import AnyWidget
from IPython import get_ipython
from IPython.display import display
from traitlets import Dict, List, Unicode

from eaf_inference.errors import ConfigurationError
from eaf_inference.metrics.average import averaged
from eaf_inference.notebook.display import monitor_html, monitor_text
from eaf_inference.notebook.load import advice_of, load_of, queue_of, rate_of
from eaf_inference.notebook.session import work_of

if TYPE_CHECKING:
    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["WIDGET", "Monitor"]

WIDGET = Path(__file__).parents[1] / "static" / "widget.js"
_POINTS = 120  # of the chart: two minutes
_MODELS = 20  # the busiest
_CLEARED = 10.0  # seconds between cells for which no view has been left
_NEVER_SEEN = 60.0  # the same, where there was none yet: JupyterLab makes those below the screen late


class Monitor(AnyWidget):
    """A live picture of the server's GPUs and queue, and of what this kernel does with it.

    Made by `Connection.monitor`.

    Attributes
    ----------
    snapshot, advice : dict or None
        As `Snapshot.as_dict` and `Advice.as_dict` give them.
    history : list of dict
        time, busy, queue_ms and inferences_per_second of the last two minutes.
    session : dict or None
        As `eaf_inference.notebook.session.Work.look` gives it.
    state : str
        "live" or "stopped".
    problem : str
        Why there are no numbers of the server.
    """

    _esm = Unicode().tag(sync=True)
    snapshot: Any = Dict(default_value=None, allow_none=True).tag(sync=True)
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
        self._minute: Snapshot | None = None
        self._idle = False  # between cells
        self._seen = False
        self._unseen_since: float | None = None
        super().__init__(_esm=_front_end(), _view_count=0, problem=self._load.problem, session=self._work.look())
        self.comm.on_close(lambda _: self.stop())
        if self._load.history:
            self._take(self._load.history[-1])
        if self._shell is not None:
            self._shell.events.register("pre_run_cell", self._cell_begins)
            self._shell.events.register("post_run_cell", self._cell_ends)
        atexit.register(self.stop)
        self._load.follow(self._hear)

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

    def _hear(self, snapshot: Snapshot) -> bool:
        """Show this, in the sampler's thread; whether more is wanted."""
        if self._ended:
            return False
        session = self._work.look()
        if session is None or self._is_unseen():
            self.stop()
            return False
        with self.hold_sync():
            self.session = session
            self._take(snapshot)
        return True

    def _take(self, snapshot: Snapshot) -> None:
        if not self._load.known:
            return
        history = self._load.history
        self._minute = averaged(history)
        failed = [f"{source.name}: {source.error}" for source in snapshot.sources if source.error]
        self.problem = f"No metrics. {failed[0]}." if failed and len(failed) == len(snapshot.sources) else ""
        clusters = self.session["clusters"] if self.session else ()
        self.advice = None if self.problem else advice_of(history, self._connection(), clusters).as_dict()
        self.snapshot = snapshot.busiest(_MODELS).as_dict()
        self.history = [_point(each) for each in history[-_POINTS:]]

    def _is_unseen(self) -> bool:
        """Whether no view has been left for a while; what a cell does to views is known when it has ended."""
        now = time.monotonic()
        self._seen = self._seen or bool(self._view_count)
        if self._view_count or not self._idle:
            self._unseen_since = None
            return False
        if self._unseen_since is None:
            self._unseen_since = now
        return now - self._unseen_since > (_CLEARED if self._seen else _NEVER_SEEN)

    def _cell_begins(self, *_: object) -> None:
        self._idle = False

    def _cell_ends(self, *_: object) -> None:
        self._idle = True
        if self._is_batch:
            self._show_again()

    @property
    def _is_batch(self) -> bool:
        """Whether nobody watches: nbconvert and papermill run cells as somebody who cannot be asked for input."""
        kernel = getattr(self._shell, "kernel", None)
        if kernel is None:
            return False
        return kernel.get_parent().get("content", {}).get("allow_stdin") is False

    def __repr__(self) -> str:
        return f"<Monitor: {monitor_text(self._minute, self.session, problem=self.problem)}>"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and for those who cannot show it the picture as it is now."""
        data: dict[str, Any] = {
            "text/plain": repr(self),
            "text/html": monitor_html(
                self._minute, self.history, self.advice, self.session, problem=self.problem, live=not self._ended
            ),
        }
        if not self._ended and not self._is_batch:
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


def _point(snapshot: Snapshot) -> dict[str, float | None]:
    """One moment of the chart."""
    queue, rate = queue_of(snapshot), rate_of(snapshot)
    return {
        "time": round(snapshot.time, 2),
        "busy": round(snapshot.busy.value, 3) if snapshot.busy else None,
        "queue_ms": None if queue is None else round(queue, 2),
        "inferences_per_second": None if rate is None else round(rate, 1),
    }
