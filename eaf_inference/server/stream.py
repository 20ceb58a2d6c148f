"""The websocket for browsers, and the task that sends frames to all listeners.

Metrics are sampled only while there are listeners. Each listener chooses its interval, and the sampler uses the
shortest. A listener that reads too slowly misses snapshots, so that they do not fill the server's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from eaf_inference.server.handlers import RESOURCE

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from eaf_inference.metrics.sampler import Listener
    from eaf_inference.server.clusters import Clusters
    from eaf_inference.server.facility import ServedFacility

__all__ = ["Broadcast", "Member", "StreamHandler"]

log = logging.getLogger(__name__)

_FASTEST, _SLOWEST = 1.0, 60.0  # seconds between two snapshots
_LARGEST_MESSAGE = 1024  # bytes, from a browser
_PAUSE = 0.1  # seconds before listening to the sampler, or to a new one, again
_INTERNAL_ERROR = 1011  # RFC 6455


class Member(ABC):
    """A listener: a browser or a kernel.

    Attributes
    ----------
    interval : float
        Requested seconds between two snapshots.
    wants_clusters : bool
        Whether it shows the user's clusters.
    """

    interval = _FASTEST
    wants_clusters = False
    _sent_facility = _sent_clusters = ""
    _due = float("-inf")
    _writing: asyncio.Task[None] | None = None

    def update(self, facility: str, clusters: str, frame: str | None) -> None:
        """Send what changed, unless the listener has not read the last frames yet."""
        if self._writing is not None and not self._writing.done():
            return
        now = time.monotonic()
        texts = [] if facility == self._sent_facility else [facility]
        if self.wants_clusters and clusters not in ("", self._sent_clusters):
            texts.append(clusters)
            self._sent_clusters = clusters
        if frame is not None and now >= self._due:
            self._due = now + self.interval - _FASTEST / 2
            texts.append(frame)
        if texts:
            self._sent_facility = facility
            self._writing = asyncio.get_running_loop().create_task(self.send(texts))

    @abstractmethod
    async def send(self, texts: list[str]) -> None:
        """Send these frames."""

    @abstractmethod
    def leave(self, code: int | None = None) -> None:
        """End its connection."""


class Broadcast:
    """Sends frames to all listeners while there are any."""

    def __init__(self, facility: ServedFacility, clusters: Clusters) -> None:
        self._facility = facility
        self._clusters = clusters
        self._members: set[Member] = set()
        self._listening: Listener | None = None
        self._running: asyncio.Task[None] | None = None
        self._down: set[str] = set()
        facility.changed = clusters.changed = self._update_all

    def join(self, member: Member) -> None:
        """Register a listener."""
        self._members.add(member)
        self.keep_pace()
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    def leave(self, member: Member) -> None:
        """Unregister a listener."""
        self._members.discard(member)
        self.keep_pace()
        if not self._members:
            self._listen_again()

    def keep_pace(self) -> None:
        """Sample at the shortest interval that a listener requests."""
        sampler = self._facility.sampler
        wanted = min((member.interval for member in self._members), default=sampler.interval)
        is_faster = wanted < sampler.interval
        sampler.interval = wanted
        if is_faster:  # the sampler may be waiting for the rest of the longer interval
            self._listen_again()

    def look_at_clusters(self) -> None:
        """Request the clusters if a listener shows them."""
        if any(member.wants_clusters for member in self._members):
            self._clusters.look_soon()

    async def close(self) -> None:
        """End all connections."""
        for member in tuple(self._members):
            member.leave()
        self._members.clear()
        self._listen_again()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=_FASTEST)

    def _listen_again(self) -> None:
        if self._listening is not None:
            self._listening.hear(None)

    async def _run(self) -> None:
        try:
            while self._members:
                await self._facility.look()
                if not self._members:
                    break
                self._update_all()
                with self._facility.sampler.listen() as self._listening:
                    async for snapshot in self._listening:
                        if not self._members:
                            break
                        down = {replica.id for replica in snapshot.instances if not replica.up}
                        self._facility.look_soon(hurry=down != self._down)  # a replica went down or came back
                        self._down = down
                        self.look_at_clusters()
                        self._update_all(
                            await asyncio.to_thread(self._facility.frame, snapshot, self._clusters.workers)
                        )
                await asyncio.sleep(_PAUSE)
        except Exception:  # a bug; listeners notice the closed sockets and reconnect
            log.exception("the stream of metrics failed")
            for member in tuple(self._members):
                member.leave(_INTERNAL_ERROR)

    def _update_all(self, frame: str | None = None) -> None:
        facility, clusters = self._facility.text, self._clusters.text
        for member in self._members:
            member.update(facility, clusters, frame)


class StreamHandler(Member, WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One browser's socket."""

    auth_resource = RESOURCE

    def initialize(self, broadcast: Broadcast) -> None:
        """Keep the broadcast."""
        self._broadcast = broadcast

    @property
    def max_message_size(self) -> int:
        """The size of a message above which tornado closes the socket."""
        return _LARGEST_MESSAGE

    @ws_authenticated
    @authorized
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Open the socket."""
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> Awaitable[None] | None:
        """Register the browser."""
        self._broadcast.join(self)
        opened: Awaitable[None] | None = super().open(*args, **kwargs)
        return opened

    def on_close(self) -> None:
        """Unregister the browser."""
        self._broadcast.leave(self)
        super().on_close()

    def on_message(self, message: str | bytes) -> None:
        """Read the browser's interval and whether it shows clusters; ignore anything else."""
        try:
            content = json.loads(message)
        except (ValueError, RecursionError):
            return
        if not isinstance(content, dict):
            return
        self.wants_clusters = content.get("clusters") is True
        self._broadcast.look_at_clusters()
        wanted = content.get("interval")
        if isinstance(wanted, int | float) and not isinstance(wanted, bool) and wanted == wanted:  # not NaN
            self.interval = float(min(max(wanted, _FASTEST), _SLOWEST))
            self._due = float("-inf")
            self._broadcast.keep_pace()

    async def send(self, texts: list[str]) -> None:
        """Send these frames."""
        with contextlib.suppress(WebSocketClosedError):
            for text in texts:
                await self.write_message(text)

    def leave(self, code: int | None = None) -> None:
        """Close the socket."""
        self.close(code)
