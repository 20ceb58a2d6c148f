"""The same frames for the kernels of this server, on a Unix socket: widget and panel show the figures of one sampler.

The socket lies in a directory that only this user can enter, and kernels find it by an environment variable that they
inherit. So a kernel needs no token for it, whatever way users log in to this server. Nothing that comes from a kernel
is read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tornado.iostream import StreamClosedError
from tornado.netutil import bind_unix_socket
from tornado.tcpserver import TCPServer

from eaf_inference.metrics.feed import SOCKET
from eaf_inference.server.stream import Member

if TYPE_CHECKING:
    from tornado.iostream import IOStream

    from eaf_inference.server.clusters import Clusters
    from eaf_inference.server.facility import ServedFacility
    from eaf_inference.server.stream import Broadcast

__all__ = ["KernelServer"]

_HISTORY = 120.0  # seconds of it that a kernel gets first


class KernelServer(TCPServer):
    """Gives each kernel that connects the last minutes, and then what browsers get, one JSON text a line."""

    def __init__(self, broadcast: Broadcast, facility: ServedFacility, clusters: Clusters) -> None:
        super().__init__()
        self._broadcast, self._facility, self._clusters = broadcast, facility, clusters
        self._directory = Path(tempfile.mkdtemp(prefix="eaf-inference-"))  # short, as the paths of sockets must be
        self._path = str(self._directory / "jupyter")
        self.add_socket(bind_unix_socket(self._path, mode=0o600))
        os.environ[SOCKET] = self._path

    def close(self) -> None:
        """Listen no more, and remove the socket."""
        self.stop()
        if os.environ.get(SOCKET) == self._path:
            del os.environ[SOCKET]
        shutil.rmtree(self._directory, ignore_errors=True)

    async def handle_stream(self, stream: IOStream, address: object) -> None:  # noqa: ARG002  (tornado's)
        """Serve one kernel until it has enough."""
        await self._facility.look()
        kernel = _Kernel(stream)
        history = await self._facility.history(_HISTORY, self._clusters.workers)
        await kernel.send([self._facility.text, f'{{"type": "history", {history[1:]}'])
        self._broadcast.join(kernel)
        with contextlib.suppress(StreamClosedError):
            await stream.read_until_close()
        self._broadcast.leave(kernel)


class _Kernel(Member):
    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    async def send(self, texts: list[str]) -> None:
        with contextlib.suppress(StreamClosedError):
            for text in texts:
                await self._stream.write(text.encode() + b"\n")

    def leave(self, code: int | None = None) -> None:  # noqa: ARG002  (there is none on a plain socket)
        self._stream.close()
