"""The load of a connection's server, followed by one thread for all widgets, and by none without a widget.

The figures come from this kernel's Jupyter server if it has them, so widget, status and panel show the same.
Otherwise this kernel measures them itself.
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
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.metrics.snapshot import followed_by
from eaf_inference.metrics.targets import sources_of
from eaf_inference.metrics.verdict import judge
from eaf_inference.notebook.work import work_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot
    from eaf_inference.metrics.verdict import Verdict

__all__ = ["Load", "load_of", "measuring"]

log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between two snapshots
_KEPT = 120  # snapshots
_MEASURED_WITHIN = 1.3  # seconds; enough for two scrapes of a server that answers
_FOLLOWED_FOR = 60.0  # seconds after %triton_status, so that the next one has figures at once

_NOT_CONFIGURED = (
    "No metrics endpoint is configured for {}, so its GPUs and queue are not known. Your facility's operators can "
    "set Facility.metrics_urls or Facility.prometheus_url."
)
_ENDED = (
    "The facility on this machine that served {} has ended. Start one with `eaf-inference up`, then connect again."
)

_lock = threading.RLock()
_loads: weakref.WeakKeyDictionary[Connection, Load] = weakref.WeakKeyDictionary()


class Load:
    """The load of one connection's server.

    Attributes
    ----------
    known : bool
        Whether there is a metrics source.
    problem : str
        Why there is none; empty if there is one.
    history : tuple of Snapshot
        Oldest first, at most two minutes: since the first follower, and before that from the Jupyter server.
    verdict : Verdict or None
        The figures and the advice that panel, widget and status show; None before the first snapshot.
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
            none = _ENDED if connection.endpoint.source == "local facility" else _NOT_CONFIGURED
            self.problem = none.format(connection.where)
        self._followers: list[Callable[[Snapshot], bool]] = []
        self._stop: Callable[[], None] | None = None

    def follow(self, show: Callable[[Snapshot], bool]) -> None:
        """Call `show` in a thread with each new snapshot until it returns False."""
        with _lock:
            self._followers.append(show)
            if self._stop is None:
                self.history, self.verdict = (), None  # these are outdated, and nothing was measured since
                self._stop = listen(
                    self._urls, earlier=self._begin_with, hear=self._hear, ended=self._measure
                ) or run_in_thread(self._sampler(), self._measured)

    def _measure(self) -> None:
        """Measure in this kernel, because the Jupyter server has no figures or ended its feed."""
        with _lock:
            self._stop = run_in_thread(self._sampler(), self._measured) if self._followers else None

    def _sampler(self) -> Sampler:
        # copies, or the first rates would reach back to an earlier sampler
        unread = [copy.copy(source) for source in self._sources]
        return Sampler(unread, interval=_INTERVAL)  # a sampler belongs to one event loop, so to one thread

    def _begin_with(self, history: tuple[Snapshot, ...], verdict: Verdict | None) -> None:
        self.history, self.verdict = history[-_KEPT:], verdict

    def _measured(self, snapshot: Snapshot) -> None:
        """Judge a snapshot that this kernel measured."""
        connection = self._connection()
        largest = {spec.name: spec.max_batch_size for spec in list(connection.checks)} if connection else {}
        workers = work_of(connection).workers if connection else None
        history = followed_by(self.history, snapshot)
        self._hear(snapshot, judge(history[-_KEPT:], workers=workers, max_batch=largest))

    def _hear(self, snapshot: Snapshot, verdict: Verdict) -> None:
        self.history = followed_by(self.history, snapshot)[-_KEPT:]
        self.verdict = verdict
        with _lock:
            following = tuple(self._followers)
        leaving = [show for show in following if not _wants_more(show, snapshot)]
        with _lock:
            self._followers = [show for show in self._followers if show not in leaving]
            if self._followers:
                return
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()


def _wants_more(show: Callable[[Snapshot], bool], snapshot: Snapshot) -> bool:
    try:
        return show(snapshot)
    except Exception:  # an error of one widget must not stop the others
        log.exception("A follower of the server's load failed and is removed")
        return False


def load_of(connection: Connection) -> Load:
    """Return the `Load` of a connection; each has one."""
    with _lock:
        load = _loads.get(connection)
        if load is None:
            load = _loads[connection] = Load(connection)
    return load


def measuring(connection: Connection) -> Callable[[], Verdict | None]:
    """Start to follow the load, and return a function that waits for the figures for about a second.

    It does not wait if the Jupyter server, a widget or an earlier status has followed the load already.
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

    reference = weakref.ref(connection)

    def connection_is_open() -> bool:
        followed = reference()
        return followed is not None and not followed.closed

    load.follow(show)

    def measured() -> Verdict | None:
        if load.verdict is None or not load.verdict.average.window:
            enough.wait(max(0.0, began + _MEASURED_WITHIN - time.monotonic()))
        return load.verdict

    return measured
