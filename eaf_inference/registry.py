"""The connections of this process: its user's, those that arrived in tasks, and the clusters that use them."""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULTS", "Key", "LinkedCluster", "Options", "Registry", "linked_clusters"]

Key: TypeAlias = tuple[int, str, int]  # process id, registry, number of the connection in it


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
        self._name = secrets.token_hex(8)  # process ids are equal on different machines
        self._numbers: weakref.WeakKeyDictionary[Made, int] = weakref.WeakKeyDictionary()
        self._pickled: weakref.WeakValueDictionary[Key, Made] = weakref.WeakValueDictionary()
        self._count = count()

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

    def key(self, connection: Made) -> Key:
        """Return what its pickles carry, so that they become the same connection again in this process."""
        with self._lock:
            if connection not in self._numbers:
                self._numbers[connection] = next(self._count)
            key = os.getpid(), self._name, self._numbers[connection]
            self._pickled[key] = connection
        return key

    def unpickled(self, key: Key, options: Options, make: Callable[[Options], Made]) -> Made:
        """Return the connection that was pickled in this process, or the one for pickles of other processes.

        A forked process is another one, since gRPC channels do not survive a fork.
        """
        with self._lock:
            own = self._pickled.get(key) if key[0] == os.getpid() else None
        return own if own is not None else self.shared(options, make)

    def shared(self, options: Options, make: Callable[[Options], Made]) -> Made:
        """Return the connection that all copies from other processes with these options share in this process."""
        with self._lock:
            connection = self._arrived.get(options)
            if connection is None or connection.closed:
                connection = self._arrived[options] = make(options)
        return connection
