"""The connections of this process: its user's, those that arrived in tasks, and the clusters that use them."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULTS", "LinkedCluster", "Options", "Registry", "linked_clusters"]


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of `connect` except secrets, which suffice to connect again in another process."""

    url: str | tuple[str, ...] | None
    ca: str | None
    allow_insecure_token: bool | None
    timeout: float = 10.0


DEFAULTS = Options(url=None, ca=None, allow_insecure_token=None)


class LinkedCluster(Protocol):
    """A Dask cluster that works with a connection and is notified when one is made or closed."""

    @property
    def connection(self) -> object | None:
        """The cluster's connection."""

    def connection_made(self) -> None:
        """Take the new connection if this cluster has none."""

    def connection_closed(self) -> None:
        """Forget the cluster's connection, which was closed."""


linked_clusters: list[LinkedCluster] = []  # the Dask clusters of this process


class Closable(Protocol):
    """What the registry needs to know of a connection."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""


Made = TypeVar("Made", bound=Closable)


class Registry(Generic[Made]):
    """The open connections of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: list[weakref.ref[Made]] = []  # oldest first
        self._arrived: dict[Options, Made] = {}

    def add(self, connection: Made) -> None:
        """Register a connection that a user made, and notify the clusters."""
        with self._lock:
            self._made[:] = [each for each in self._made if each() is not None]
            self._made.append(weakref.ref(connection))
        for cluster in linked_clusters:
            cluster.connection_made()

    def current(self) -> Made | None:
        """Return the newest connection that is not closed."""
        with self._lock:
            known = [each() for each in self._made]
        return next((each for each in reversed(known) if each is not None and not each.closed), None)

    def shared(self, options: Options, make: Callable[[Options], Made]) -> Made:
        """Return the connection that all pickled copies with these options share in this process."""
        with self._lock:
            connection = self._arrived.get(options)
            if connection is None or connection.closed:
                connection = self._arrived[options] = make(options)
        return connection
