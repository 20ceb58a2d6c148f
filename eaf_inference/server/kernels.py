"""A Unix socket with the browsers' frames for this server's kernels, so that widget and panel show the same figures.

The socket is in a directory that only this user can enter, and kernels inherit its path in an environment variable.
Therefore a kernel needs no token for it, however users log in to this server. The server reads nothing from kernels.
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

_HISTORY = 120.0  # seconds of history that a kernel receives first


class KernelServer(TCPServer):
    """Sends each kernel the last minutes, then the browsers' frames, one JSON text per line."""

    def __init__(self, broadcast: Broadcast, facility: ServedFacility, clusters: Clusters) -> None:
        super().__init__()
        self._broadcast, self._facility, self._clusters = broadcast, facility, clusters
        self._directory = Path(
            tempfile.mkdtemp(prefix="eaf-inference-")
        )  # short, because the length of socket paths is limited
        self._path = str(self._directory / "jupyter")
        self.add_socket(bind_unix_socket(self._path, mode=0o600))
        os.environ[SOCKET] = self._path

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        self.stop()
        if os.environ.get(SOCKET) == self._path:
            del os.environ[SOCKET]
        shutil.rmtree(self._directory, ignore_errors=True)

    async def handle_stream(self, stream: IOStream, address: object) -> None:  # noqa: ARG002  (tornado's)
        """Serve one kernel until it disconnects."""
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

    def leave(self, code: int | None = None) -> None:  # noqa: ARG002  (a plain socket has no close code)
        self._stream.close()
