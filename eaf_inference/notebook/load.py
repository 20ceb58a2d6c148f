"""The load of a connection's server, read by one thread however many widgets follow it, and by none without."""

from __future__ import annotations

import copy
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError
from eaf_inference.metrics.advice import Advice, Workers, advise
from eaf_inference.metrics.average import averaged
from eaf_inference.metrics.reading import total
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.metrics.targets import sources_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eaf_inference.connection import Connection
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["Load", "advice_of", "load_of", "measuring", "queue_of", "rate_of"]

log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between two snapshots
_MINUTE = 60.0  # seconds
_MEASURED_WITHIN = 1.3  # seconds in which a server that answers has been asked twice

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
    """

    def __init__(self, connection: Connection) -> None:
        self.problem = ""
        try:
            self._sources = sources_of(connection.facility, connection.endpoint.urls)
        except ConfigurationError as error:
            self._sources, self.problem = [], str(error)
        self.known = bool(self._sources)
        if not self.known and not self.problem:
            self.problem = (
                f"Nobody says where the metrics of {connection.where} are, so its GPUs and queue are not known. "
                "Your facility's operators can: Facility.metrics_urls, or Facility.prometheus_url."
            )
        self._sampler: Sampler | None = None
        self._shows: list[Callable[[Snapshot], bool]] = []
        self._stop: Callable[[], None] | None = None

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """Since somebody follows, oldest first, ten minutes at most."""
        sampler = self._sampler
        return sampler.history if sampler else ()

    def follow(self, show: Callable[[Snapshot], bool]) -> None:
        """Call `show` with each snapshot from now on, in a thread, until it returns False."""
        with _lock:
            self._shows.append(show)
            if self._stop is None:  # a sampler belongs to one event loop, and so to one thread
                unread = [copy.copy(source) for source in self._sources]  # or rates reached back to the last follower
                self._sampler = Sampler(unread, interval=_INTERVAL)
                self._stop = run_in_thread(self._sampler, self._show)

    def _show(self, snapshot: Snapshot) -> None:
        with _lock:
            following = tuple(self._shows)
        leaving = [show for show in following if not _wants_more(show, snapshot)]
        with _lock:
            self._shows = [show for show in self._shows if show not in leaving]
            if self._shows:
                return
            stop, self._stop, self._sampler = self._stop, None, None
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


def measuring(connection: Connection) -> Callable[[], tuple[Snapshot, ...]]:
    """Begin to measure the load; what is returned waits a second at most for what was measured.

    Where a widget has followed the load for a while there is nothing to wait for.
    """
    load = load_of(connection)
    if not load.known or any(snapshot.window for snapshot in load.history):
        return lambda: load.history
    enough = threading.Event()
    began = time.monotonic()
    found: tuple[Snapshot, ...] = ()

    def show(snapshot: Snapshot) -> bool:
        nonlocal found
        found = load.history
        if snapshot.window or time.monotonic() - began > _MEASURED_WITHIN:
            enough.set()
        return not enough.is_set()

    load.follow(show)

    def measured() -> tuple[Snapshot, ...]:
        enough.wait(max(0.0, began + _MEASURED_WITHIN - time.monotonic()))
        enough.set()
        return found

    return measured


def advice_of(
    history: Sequence[Snapshot], connection: Connection | None, clusters: Sequence[dict[str, Any]] = ()
) -> Advice:
    """What the history says to the user of this connection.

    Parameters
    ----------
    clusters : sequence of dict
        Her Dask clusters, with ``configured`` and ``inferences_per_second``.
    """
    count = sum(each["configured"] or 0 for each in clusters)
    rate = sum(each["inferences_per_second"] or 0.0 for each in clusters)
    largest = {spec.name: spec.max_batch_size for spec in list(connection.paddings)} if connection else {}
    advice = advise(history, workers=Workers(count, rate) if count and rate else None, max_batch=largest)
    seconds = averaged(history).window
    if seconds is None or seconds > _MINUTE / 2:
        return advice
    text = advice.text.replace("the last minute", f"the last {max(1.0, seconds):.0f} s")  # that is all there is
    return Advice(advice.kind, advice.title, text, advice.capacity)


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
