"""The connections of this process: the one made last, those that arrived in tasks, and the clusters that use them."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.connection import Connection

__all__ = ["NOTHING_SAID", "Follower", "Options", "current", "followers", "made", "shared"]

_lock = threading.Lock()
_latest: list[weakref.ref[Connection]] = []  # in the order of their making
_arrived: dict[Options, Connection] = {}  # by what they were told
followers: list[Follower] = []  # the Dask clusters of this process


@dataclass(frozen=True, slots=True)
class Options:
    """What `connect` was told, apart from secrets: enough to connect again elsewhere."""

    url: str | tuple[str, ...] | None
    ca: str | None
    allow_insecure_token: bool | None
    timeout: float = 10.0


NOTHING_SAID = Options(url=None, ca=None, allow_insecure_token=None)


class Follower(Protocol):
    """A Dask cluster, which works with a connection and has to know when it comes and goes."""

    @property
    def connection(self) -> Connection | None:
        """The one that it works with."""

    def connection_made(self) -> None:
        """There is a new one, for those that have none."""

    def connection_closed(self) -> None:
        """The one that it works with is gone."""


def made(connection: Connection) -> None:
    """Note that a user made a connection."""
    with _lock:
        _latest[:] = [each for each in _latest if each() is not None]
        _latest.append(weakref.ref(connection))
    for follower in followers:
        follower.connection_made()


def current() -> Connection | None:
    """The connection that was made last and is not closed."""
    with _lock:
        known = [each() for each in _latest]
    return next((each for each in reversed(known) if each is not None and not each.closed), None)


def shared(options: Options, make: Callable[[Options], Connection]) -> Connection:
    """The connection for what a pickled one was told: all copies that arrive in this process share it."""
    with _lock:
        connection = _arrived.get(options)
        if connection is None or connection.closed:
            connection = _arrived[options] = make(options)
    return connection
