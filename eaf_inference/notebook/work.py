"""The work of one connection in this kernel: progress, rate, retries, and its Dask clusters."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import InferenceError
from eaf_inference.inference.progress import under_way
from eaf_inference.metrics.workers import Workers

if TYPE_CHECKING:
    from eaf_inference.connection import Connection

__all__ = ["Work", "work_of"]

log = logging.getLogger(__name__)

_CLUSTERS_EVERY = 10.0  # seconds between two requests, each of which goes to all workers
_works: weakref.WeakKeyDictionary[Connection, Work] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class Work:
    """The work of one connection, shared by panel and widget. It holds the connection weakly."""

    def __init__(self, connection: Connection) -> None:
        self._connection = weakref.ref(connection)
        self._clusters: list[dict[str, Any]] = []
        self._inferences = self._not_finite = 0
        self._where: tuple[str | None, str | None] = (None, None)
        self._clusters_due = 0.0
        self._asking: threading.Thread | None = None

    def look(self) -> dict[str, Any] | None:
        """Return the session for panel and widget; None once the connection is closed or gone."""
        connection = self._connection()
        if connection is None or connection.closed:
            return None
        try:
            self._where = connection.endpoint.url, connection.user
        except InferenceError:  # it was closed just now
            return None
        self._note(connection)
        progress = under_way()
        busy = progress is not None or connection.traffic.in_flight > 0
        rate, retrying = connection.traffic.inferences_per_second, connection.traffic.retrying
        left = progress.seconds_left if progress and not retrying else None  # an outage may last any time
        return {
            **self.last(),
            "busy": busy,
            "label": progress.label if progress else None,
            "done": progress.done if progress else None,
            "total": progress.total if progress else None,
            "unit": progress.unit if progress else None,
            "failed": progress.failed if progress else 0,
            "left": None if left is None else round(left),
            "inferences_per_second": None if rate is None else round(rate, 1),
            "retrying": {"reason": retrying.reason, "left": retrying.left} if retrying else None,
            "clusters": self._clusters_of(connection),
        }

    def last(self) -> dict[str, Any]:
        """Return the session after the connection has ended."""
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
            "unit": None,
            "failed": 0,
            "left": None,
            "inferences_per_second": None,
            "retrying": None,
            "inferences": self._inferences,
            "not_finite": self._not_finite,
            "clusters": [],
        }

    def _note(self, connection: Connection) -> None:
        """Remember the jets of this process and those that a cluster's workers scored for it."""
        traffic = connection.traffic
        self._inferences, self._not_finite = traffic.inferences + traffic.elsewhere, traffic.not_finite

    @property
    def workers(self) -> Workers | None:
        """The workers of the user's Dask clusters; None if they report no rate."""
        return Workers.of(self._clusters)

    def _clusters_of(self, connection: Connection) -> list[dict[str, Any]]:
        """Return the clusters of a few seconds ago, and request new ones in a thread, which takes a while."""
        if not connection.linked_clusters:
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
            log.debug("Cannot ask the clusters: %s", error)
            return
        self._clusters = [
            {
                "name": row.name,
                "state": row.state,
                "workers": row.workers,
                "configured": row.configured,
                "inferences_per_second": row.inferences_per_second,
            }
            for row in table
            if row.connected
        ]


def work_of(connection: Connection) -> Work:
    """Return the `Work` of a connection; each has one."""
    with _lock:
        work = _works.get(connection)
        if work is None:
            work = _works[connection] = Work(connection)
    return work
