"""The load of a connection's server, followed by one thread however many widgets show it, and by none without.

The figures come from this kernel's Jupyter server where that has them, so that widget, status and panel show the
same; elsewhere this kernel measures by itself.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError
from eaf_inference.metrics.feed import listen
from eaf_inference.metrics.reading import total
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.metrics.targets import sources_of
from eaf_inference.metrics.verdict import judge
from eaf_inference.notebook.work import work_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot
    from eaf_inference.metrics.verdict import Verdict

__all__ = ["Load", "load_of", "measuring", "queue_of", "rate_of"]

log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between two snapshots
_KEPT = 120  # snapshots
_MEASURED_WITHIN = 1.3  # seconds in which a server that answers has been asked twice
_FOLLOWED_FOR = 60.0  # seconds after %triton_status, so that the next one knows more

_lock = threading.RLock()
_loads: weakref.WeakKeyDictionary[Connection, Load] = weakref.WeakKeyDictionary()


class Load:
    """What is measured of one connection's server.

    Attributes
    ----------
    known : bool
        Whether there is any place to ask.
    problem : str
        Why there is none.
    history : tuple of Snapshot
        Since somebody follows, and before that as far as the Jupyter server knows; oldest first, two minutes at most.
    verdict : Verdict or None
        The figures and the advice, as panel, widget and status show them; None before the first snapshot.
    """

    def __init__(self, connection: Connection) -> None:
        self.problem = ""
        self.history: tuple[Snapshot, ...] = ()
        self.verdict: Verdict | None = None
        self._connection = weakref.ref(connection)
        self._urls = connection.endpoint.urls
        try:
            self._sources = sources_of(connection.facility, self._urls)
        except ConfigurationError as error:
            self._sources, self.problem = [], str(error)
        self.known = bool(self._sources)
        if not self.known and not self.problem:
            self.problem = (
                f"No metrics endpoint is configured for {connection.where}, so its GPUs and queue are not known. "
                "Your facility's operators can set Facility.metrics_urls or Facility.prometheus_url."
            )
        self._shows: list[Callable[[Snapshot], bool]] = []
        self._stop: Callable[[], None] | None = None

    def follow(self, show: Callable[[Snapshot], bool]) -> None:
        """Call `show` with each snapshot from now on, in a thread, until it returns False."""
        with _lock:
            self._shows.append(show)
            if self._stop is None:
                self.history, self.verdict = (), None  # what lies between is not known
                self._stop = listen(
                    self._urls, earlier=self._begin_with, hear=self._hear, ended=self._measure
                ) or run_in_thread(self._sampler(), self._measured)

    def _measure(self) -> None:
        """Measure by oneself, where the Jupyter server does not, or does no more; in its thread."""
        with _lock:
            self._stop = run_in_thread(self._sampler(), self._measured) if self._shows else None

    def _sampler(self) -> Sampler:
        unread = [copy.copy(source) for source in self._sources]  # or rates reached back to the last follower
        return Sampler(unread, interval=_INTERVAL)  # it belongs to one event loop, and so to one thread

    def _begin_with(self, history: tuple[Snapshot, ...], verdict: Verdict | None) -> None:
        self.history, self.verdict = history[-_KEPT:], verdict

    def _measured(self, snapshot: Snapshot) -> None:
        """Judge what this kernel measured."""
        connection = self._connection()
        largest = {spec.name: spec.max_batch_size for spec in list(connection.paddings)} if connection else {}
        workers = work_of(connection).workers if connection else None
        history = (*self.history, snapshot)
        self._hear(snapshot, judge(history[-_KEPT:], workers=workers, max_batch=largest))

    def _hear(self, snapshot: Snapshot, verdict: Verdict) -> None:
        self.history = (*self.history, snapshot)[-_KEPT:]
        self.verdict = verdict
        with _lock:
            following = tuple(self._shows)
        leaving = [show for show in following if not _wants_more(show, snapshot)]
        with _lock:
            self._shows = [show for show in self._shows if show not in leaving]
            if self._shows:
                return
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()


def _wants_more(show: Callable[[Snapshot], bool], snapshot: Snapshot) -> bool:
    try:
        return show(snapshot)
    except Exception:  # one widget's fault must not stop the others
        log.exception("A listener to the server's load is dropped")
        return False


def load_of(connection: Connection) -> Load:
    """The one `Load` of a connection."""
    with _lock:
        load = _loads.get(connection)
        if load is None:
            load = _loads[connection] = Load(connection)
    return load


def measuring(connection: Connection) -> Callable[[], Verdict | None]:
    """Begin to follow the load; what is returned waits a second at most for the figures.

    Where the Jupyter server, a widget or an earlier status has followed it for a while there is nothing to wait for.
    """
    load = load_of(connection)
    if not load.known:
        return lambda: None
    enough = threading.Event()
    began = time.monotonic()

    def show(_: Snapshot) -> bool:
        if load.verdict and load.verdict.average.window:
            enough.set()
        return time.monotonic() - began < _FOLLOWED_FOR and connection_is_open()

    there = weakref.ref(connection)

    def connection_is_open() -> bool:
        followed = there()
        return followed is not None and not followed.closed

    load.follow(show)

    def measured() -> Verdict | None:
        if load.verdict is None or not load.verdict.average.window:
            enough.wait(max(0.0, began + _MEASURED_WITHIN - time.monotonic()))
        return load.verdict

    return measured


def queue_of(snapshot: Snapshot) -> float | None:
    """Milliseconds that a mean request of any model waits; None where none was measured."""
    waits = [
        (model.queue_ms, model.requests_per_second)
        for model in snapshot.models
        if model.queue_ms is not None and model.requests_per_second
    ]
    return sum(queue * rate for queue, rate in waits) / sum(rate for _, rate in waits) if waits else None


def rate_of(snapshot: Snapshot) -> float | None:
    """Inferences/s of all models; None where none is reported."""
    return total(model.inferences_per_second for model in snapshot.models)
