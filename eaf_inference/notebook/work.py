"""What one connection of this kernel does: progress, jets/s, an outage, and its Dask clusters."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import InferenceError
from eaf_inference.inference.progress import under_way
from eaf_inference.metrics.advice import Workers

if TYPE_CHECKING:
    from eaf_inference.connection import Connection

__all__ = ["Work", "work_of"]

log = logging.getLogger(__name__)

_CLUSTERS_EVERY = 10.0  # seconds; each look asks all workers
_works: weakref.WeakKeyDictionary[Connection, Work] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class Work:
    """What one connection does; panel and widget share it. Holds the connection weakly."""

    def __init__(self, connection: Connection) -> None:
        self._connection = weakref.ref(connection)
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
        self._note(connection)
        progress = under_way()
        busy = progress is not None or connection.traffic.in_flight > 0
        rate, retrying = connection.traffic.inferences_per_second, connection.traffic.retrying
        return {
            **self.last(),
            "busy": busy,
            "label": progress.label if progress else None,
            "done": progress.done if progress else None,
            "total": progress.total if progress else None,
            "inferences_per_second": None if rate is None else round(rate, 1),
            "retrying": {"reason": retrying.reason, "left": retrying.left} if retrying else None,
            "clusters": self._clusters_of(connection),
        }

    def last(self) -> dict[str, Any]:
        """The same, of what is over."""
        connection = self._connection()
        if connection is not None:
            self._note(connection)
        endpoint, user = self._where
        return {
            "endpoint": endpoint,
            "user": user,
            "busy": False,
            "label": None,
            "done": None,
            "total": None,
            "inferences_per_second": None,
            "retrying": None,
            "inferences": self._inferences,
            "not_finite": self._not_finite,
            "clusters": [],
        }

    def _note(self, connection: Connection) -> None:
        """The jets of this process, and those that a cluster's workers scored for it."""
        traffic = connection.traffic
        self._inferences, self._not_finite = traffic.inferences + traffic.elsewhere, traffic.not_finite

    @property
    def workers(self) -> Workers | None:
        """The workers of her Dask clusters, and what they get together; None where that is not known."""
        count = sum(each["configured"] or 0 for each in self._clusters)
        rate = sum(each["inferences_per_second"] or 0.0 for each in self._clusters)
        return Workers(count, rate) if count and rate else None

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
            if row.connected
        ]


def work_of(connection: Connection) -> Work:
    """The one `Work` of a connection."""
    with _lock:
        work = _works.get(connection)
        if work is None:
            work = _works[connection] = Work(connection)
    return work
