"""One reader of all metrics sources for any number of listeners; it rests while there are none.

Once per interval, the sampler asks all sources that are due, waits for at most most of the interval, and gives a
snapshot to every listener. A slow source is not asked again before it has answered, and a failing one is asked less
often. The Jupyter server runs the sampler on its event loop. A kernel's loop is busy with the user's cell, so it uses
`run_in_thread`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from eaf_inference.errors import InferenceError
from eaf_inference.metrics.http import make_fetch
from eaf_inference.metrics.reading import Reading, assemble
from eaf_inference.metrics.snapshot import Snapshot, Source, followed_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from eaf_inference.metrics.http import Fetch
    from eaf_inference.metrics.timeline import Timeline

__all__ = ["Listener", "MetricsSource", "Sampler", "run_in_thread"]

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 5.0  # seconds between two attempts at a failing source; short, because a listener waits for it
_STALE_AFTER = 15.0  # seconds after which the last answer of a slow source is no longer shown
_MODELS_IN_HISTORY = 20  # the busiest, because models take most of a snapshot's memory


class MetricsSource(Protocol):
    """A source of metrics, such as `TritonMetrics` or `Prometheus`.

    Attributes
    ----------
    name, kind : str
        See `Source`.
    every : float
        Minimum seconds between two readings; with 0 it is read at every tick.
    """

    name: str
    kind: str
    every: float

    async def read(self, fetch: Fetch) -> Reading:
        """Measure once, within the source's own time limit; raise an `InferenceError` if that fails."""

    def down(self) -> Reading:
        """Return the reading to use while `read` fails."""


@dataclass(slots=True)
class _Watched:
    """A source and its state; times are of the monotonic clock."""

    source: MetricsSource
    reading: Reading | None = None
    answered: float | None = None
    error: str | None = None
    failures: int = 0
    due: float = float("-inf")
    task: asyncio.Task[None] | None = None

    def as_source(self, now: float) -> Source:
        return Source(
            name=self.source.name,
            kind=self.source.kind,
            age=None if self.answered is None else max(0.0, now - self.answered),
            error=self.error,
            retry_in=None if self.error is None else max(0.0, self.due - now),
            left_out=self.reading.left_out if self.reading else 0,
        )

    def current(self, now: float) -> Reading:
        """Return the last answer, unless it is too old."""
        if self.error is not None:
            return self.source.down()
        if self.reading is None or self.answered is None or now - self.answered > _STALE_AFTER + self.source.every:
            return Reading()
        return self.reading


class Listener:
    """An asynchronous iterator over new snapshots, inside its `with` block; `Sampler.listen` returns it.

    A slow listener misses snapshots and does not delay the others.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._news = asyncio.Event()
        self._snapshot: Snapshot | None = None

    def __enter__(self) -> Listener:
        self._sampler._add(self)  # noqa: SLF001  (both classes are one unit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sampler._remove(self)  # noqa: SLF001

    def __aiter__(self) -> AsyncIterator[Snapshot]:
        return self

    async def __anext__(self) -> Snapshot:
        await self._news.wait()
        self._news.clear()
        if self._snapshot is None:
            raise StopAsyncIteration  # the sampler was closed
        return self._snapshot

    def hear(self, snapshot: Snapshot | None) -> None:
        """Offer this snapshot instead of an older one that was not taken; None ends the iteration."""
        self._snapshot = snapshot
        self._news.set()


class Sampler:
    """Reads all sources once per interval while there are listeners.

    It belongs to the event loop of its listeners.

    Parameters
    ----------
    sources : sequence of MetricsSource
        In order of trust, see `eaf_inference.metrics.reading.assemble`.
    interval : float
        Seconds between two snapshots.
    history : float
        Seconds for which snapshots are kept.
    timeline : Timeline, optional
        Keeps the numbers of charts for longer.
    """

    def __init__(
        self,
        sources: Sequence[MetricsSource],
        *,
        interval: float = 1.0,
        history: float = 600.0,
        timeline: Timeline | None = None,
    ) -> None:
        self.interval = interval
        self.timeline = timeline
        self._watched = [_Watched(source) for source in sources]
        self._kept = max(1, round(history / interval))
        self._history: tuple[Snapshot, ...] = ()  # never changed in place, because other threads read it
        self._listeners: set[Listener] = set()
        self._reader: asyncio.Task[None] | None = None
        self._left = asyncio.Event()

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """Snapshots with their busiest models, oldest first; there are none of times without listeners."""
        return self._history

    def listen(self) -> Listener:
        """Add a listener: ``with sampler.listen() as snapshots: async for snapshot in snapshots: …``."""
        return Listener(self)

    async def close(self) -> None:
        """End all iterations and wait for requests in flight."""
        for listener in tuple(self._listeners):
            listener.hear(None)
        self._listeners.clear()
        self._left.set()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    def _add(self, listener: Listener) -> None:
        self._listeners.add(listener)
        self._left.clear()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._read_on())

    def _remove(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners:
            self._left.set()

    async def _read_on(self) -> None:
        """Tick until there are no listeners."""
        try:
            fetch = make_fetch()
            while self._listeners or self._under_way:
                if not self._listeners:
                    # No need to cancel: each ends within its time limit, and a listener may come first.
                    await asyncio.wait(self._under_way, timeout=self.interval)
                    continue
                began = time.monotonic()
                snapshot = await self._tick(fetch, began)
                self._history = followed_by(self._history, snapshot.busiest(_MODELS_IN_HISTORY))[-self._kept :]
                if self.timeline is not None:
                    self.timeline.add(snapshot)
                for listener in self._listeners:
                    listener.hear(snapshot)
                await self._rest(began + self.interval - time.monotonic())
        finally:  # after an error, no listener must wait forever; on a normal exit there are none
            for listener in self._listeners:
                listener.hear(None)

    @property
    def _under_way(self) -> list[asyncio.Task[None]]:
        return [watched.task for watched in self._watched if watched.task]

    async def _rest(self, seconds: float) -> None:
        """Sleep, or wait until the last listener leaves."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._left.wait(), max(0.0, seconds))

    async def _tick(self, fetch: Fetch, now: float) -> Snapshot:
        for watched in self._watched:
            if watched.task is None and now >= watched.due:
                watched.due = now + max(self.interval, watched.source.every) - self.interval / 2
                watched.task = asyncio.get_running_loop().create_task(self._ask(watched, fetch))
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=0.8 * self.interval)
        now = time.monotonic()
        return assemble(
            [watched.current(now) for watched in self._watched],
            time=time.time(),
            sources=[watched.as_source(now) for watched in self._watched],
        )

    async def _ask(self, watched: _Watched, fetch: Fetch) -> None:
        """Read one source and record the result."""
        try:
            watched.reading = await watched.source.read(fetch)
        except InferenceError as error:
            self._failed(watched, error.reason or str(error))
        except Exception as error:  # an error of one source must not stop the others
            log.warning("%r cannot be read", watched.source, exc_info=True)
            self._failed(watched, f"{type(error).__name__}")
        else:
            watched.answered, watched.error, watched.failures = time.monotonic(), None, 0
        finally:
            watched.task = None

    def _failed(self, watched: _Watched, why: str) -> None:
        pause = min(_LONGEST_PAUSE, self.interval * 2.0 ** min(watched.failures, 30))
        watched.failures += 1
        watched.error = why
        watched.due = max(watched.due, time.monotonic() + pause - self.interval / 2)


def run_in_thread(sampler: Sampler, show: Callable[[Snapshot], None]) -> Callable[[], None]:
    """Follow a sampler in a thread with its own event loop.

    Parameters
    ----------
    show : callable
        Called in that thread with each snapshot; a slow one skips to the newest. If it raises, the error is logged
        and the thread ends.

    Returns
    -------
    callable
        Ends the thread and waits for requests in flight, unless `show` calls it; may be called again.
    """
    loop = asyncio.new_event_loop()
    listening = sampler.listen()

    async def follow() -> None:
        with listening as snapshots:
            async for snapshot in snapshots:
                show(snapshot)
        await sampler.close()

    def run() -> None:
        try:
            loop.run_until_complete(follow())
        except Exception:  # of the callback; a thread can only log it
            log.exception("The sampler's thread ends")
            loop.run_until_complete(sampler.close())
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run, name="eaf-inference-sampler", daemon=True)
    thread.start()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is already closed
            loop.call_soon_threadsafe(listening.hear, None)
        if threading.current_thread() is not thread:
            thread.join()

    return stop
