"""The websocket on which a browser sees what happens, and the one task that feeds all of them.

Nobody listens, nothing is asked. Each socket names its own pace, the sampler keeps the fastest of them, and who reads
too slowly misses snapshots instead of filling this server's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
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

__all__ = ["Broadcast", "StreamHandler"]

log = logging.getLogger(__name__)

_FASTEST, _SLOWEST = 1.0, 60.0  # seconds between two snapshots
_LARGEST_MESSAGE = 1024  # bytes that a browser may send
_PAUSE = 0.1  # seconds before the sampler, or another one, is listened to again
_INTERNAL_ERROR = 1011  # RFC 6455


class Broadcast:
    """Tells every socket what is new while there are any."""

    def __init__(self, facility: ServedFacility, clusters: Clusters) -> None:
        self._facility = facility
        self._clusters = clusters
        self._sockets: set[StreamHandler] = set()
        self._listening: Listener | None = None
        self._running: asyncio.Task[None] | None = None
        self._down: set[str] = set()
        facility.changed = clusters.changed = self._tell

    def join(self, socket: StreamHandler) -> None:
        """One more."""
        self._sockets.add(socket)
        self.keep_pace()
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    def leave(self, socket: StreamHandler) -> None:
        """One less."""
        self._sockets.discard(socket)
        self.keep_pace()
        if not self._sockets:
            self._listen_again()

    def keep_pace(self) -> None:
        """Sample as often as the fastest socket wants."""
        sampler = self._facility.sampler
        wanted = min((socket.interval for socket in self._sockets), default=sampler.interval)
        is_faster = wanted < sampler.interval
        sampler.interval = wanted
        if is_faster:  # it may be asleep for the length of the slower interval
            self._listen_again()

    def look_at_clusters(self) -> None:
        """Ask for them while a socket wants them."""
        if any(socket.wants_clusters for socket in self._sockets):
            self._clusters.look_soon()

    async def close(self) -> None:
        """Close all sockets."""
        for socket in tuple(self._sockets):
            socket.close()
        self._sockets.clear()
        self._listen_again()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=_FASTEST)

    def _listen_again(self) -> None:
        if self._listening is not None:
            self._listening.hear(None)

    async def _run(self) -> None:
        try:
            while self._sockets:
                await self._facility.look()
                if not self._sockets:
                    break
                self._tell()
                with self._facility.sampler.listen() as self._listening:
                    async for snapshot in self._listening:
                        if not self._sockets:
                            break
                        down = {instance.id for instance in snapshot.instances if not instance.up}
                        self._facility.look_soon(hurry=down != self._down)  # an instance went, or came back
                        self._down = down
                        self.look_at_clusters()
                        self._tell(await asyncio.to_thread(self._facility.frame, snapshot, self._clusters.workers))
                await asyncio.sleep(_PAUSE)
        except Exception:  # a fault of ours: the browsers are told by a closed socket, and come back
            log.exception("the stream of metrics ends")
            for socket in tuple(self._sockets):
                socket.close(_INTERNAL_ERROR)

    def _tell(self, frame: str | None = None) -> None:
        facility, clusters = self._facility.text, self._clusters.text
        for socket in self._sockets:
            socket.tell(facility, clusters, frame)


class StreamHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One browser's socket.

    Attributes
    ----------
    interval : float
        Seconds between two snapshots that it wants.
    wants_clusters : bool
        Whether it shows the user's clusters.
    """

    auth_resource = RESOURCE

    def initialize(self, broadcast: Broadcast) -> None:
        """Take what it belongs to."""
        self.interval = _FASTEST
        self.wants_clusters = False
        self._broadcast = broadcast
        self._facility = self._clusters = ""
        self._due = float("-inf")
        self._writing: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        """Whoever sends more is disconnected."""
        return _LARGEST_MESSAGE

    @ws_authenticated
    @authorized
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Open the socket."""
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> Awaitable[None] | None:
        """Join the others."""
        self._broadcast.join(self)
        opened: Awaitable[None] | None = super().open(*args, **kwargs)
        return opened

    def on_close(self) -> None:
        """Leave the others."""
        self._broadcast.leave(self)
        super().on_close()

    def on_message(self, message: str | bytes) -> None:
        """Take the interval that the browser wants, and whether it wants clusters; nothing else."""
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

    def tell(self, facility: str, clusters: str, frame: str | None) -> None:
        """Send what is new to this browser, unless it has not read the last yet."""
        if self._writing is not None and not self._writing.done():
            return
        now = time.monotonic()
        texts = [] if facility == self._facility else [facility]
        if self.wants_clusters and clusters not in ("", self._clusters):
            texts.append(clusters)
            self._clusters = clusters
        if frame is not None and now >= self._due:
            self._due = now + self.interval - _FASTEST / 2
            texts.append(frame)
        if texts:
            self._facility = facility
            self._writing = asyncio.get_running_loop().create_task(self._write(texts))

    async def _write(self, texts: list[str]) -> None:
        with contextlib.suppress(WebSocketClosedError):
            for text in texts:
                await self.write_message(text)
