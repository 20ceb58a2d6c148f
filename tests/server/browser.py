"""A browser of the extension: it sends requests, opens a socket and reads frames."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from contextlib import asynccontextmanager

API = ("eaf-inference", "api")
CLUSTERS = '{"interval": 1, "clusters": true}'  # sent by a panel that shows clusters


class Stream:
    """An open socket."""

    def __init__(self, connection) -> None:
        self.connection = connection
        self.closed = False
        self.facility = None  # from the last frame

    async def next(self, kind: str = "snapshot", timeout: float = 20.0):
        """Return the next frame of this kind; None after the socket was closed."""
        ends = time.monotonic() + timeout
        while not self.closed:
            text = await asyncio.wait_for(self.connection.read_message(), ends - time.monotonic())
            self.closed = text is None  # tornado returns None once, and then waits forever
            frame = {"type": None} if text is None else json.loads(text)
            if frame["type"] == "facility":
                self.facility = frame["facility"]
            if frame["type"] == kind:
                return frame
        return None

    async def until(self, condition, kind: str = "snapshot", timeout: float = 30.0):
        """Return the first frame of this kind that meets the condition."""
        ends = time.monotonic() + timeout
        while not condition(frame := await self.next(kind, ends - time.monotonic())):
            pass
        return frame

    async def say(self, text: str | bytes) -> None:
        await self.connection.write_message(text)


class Browser:
    """A browser with the server's token."""

    def __init__(self, fetch, ws_fetch) -> None:
        self._fetch = fetch
        self._ws_fetch = ws_fetch

    async def get(self, name: str, **parameters):
        """Return the JSON of the response."""
        answer = await self._fetch(*API, name, params=parameters)
        assert answer.headers["Content-Type"] == "application/json"
        return json.loads(answer.body)

    async def post(self, name: str, content=None):
        """Return the status and the JSON of the response."""
        body = json.dumps({} if content is None else content)
        answer = await self._fetch(*API, *name.split("/"), method="POST", body=body, raise_error=False)
        return answer.code, json.loads(answer.body)

    async def clusters(self):
        """Return the frame with the clusters, as the panel receives it."""
        async with self.stream() as stream:
            await stream.say(CLUSTERS)
            return await stream.next("clusters")

    @asynccontextmanager
    async def stream(self):
        stream = Stream(await self._ws_fetch(*API, "stream"))
        try:
            yield stream
        finally:
            stream.connection.close()
            with contextlib.suppress(asyncio.TimeoutError):  # until the server has closed it
                while await stream.next(timeout=5) is not None:
                    pass


async def until(condition, timeout: float = 20.0) -> None:
    """Wait until the condition is true."""
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.02)
