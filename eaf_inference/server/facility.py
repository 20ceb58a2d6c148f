"""The facility as all browsers of one Jupyter server share it: its state and one sampler of its metrics.

The state is determined on demand, when the last result is outdated, and in a thread. The sampler only waits for
sockets, so it runs on the event loop.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import TYPE_CHECKING, Any

from eaf_inference.metrics.average import LONGEST
from eaf_inference.metrics.sampler import Sampler
from eaf_inference.metrics.timeline import EACH, STEP, Timeline
from eaf_inference.metrics.verdict import Verdict, judge
from eaf_inference.server.inquiry import Inquiry

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.metrics.snapshot import Snapshot
    from eaf_inference.metrics.workers import Workers
    from eaf_inference.server.inquiry import Findings

__all__ = ["ServedFacility"]

_FRESH = 10.0  # seconds for which a result is current
_PAUSES = (1.0, 5.0)  # seconds between failed attempts, first and longest; a user is waiting
_MOST_ROWS = 50_000  # GPUs, models and replicas of a whole history, about 10 MB of JSON
_MOST_MODELS = 1000  # of a snapshot
_CLOSE_WITHIN = 1.0  # seconds


class ServedFacility:
    """The facility as this user's browsers see it.

    Attributes
    ----------
    sampler : Sampler
        Samples its metrics. A new sampler replaces it when the sources change, which ends its listeners' iteration.
    changed : callable
        Called after each update.
    """

    def __init__(self) -> None:
        self.sampler = Sampler([], timeline=Timeline())
        self.changed: Callable[[], None] = lambda: None
        self._inquiry = Inquiry()
        self._findings: Findings | None = None
        self._updating: asyncio.Task[None] | None = None
        self._ended = float("-inf")
        self._failures = 0
        self._hurried = False
        self._written: tuple[object, str] | None = None
        self._closed = False

    async def look(self, *, hurry: bool = False) -> dict[str, Any]:
        """Return the state, at most a few seconds old.

        Parameters
        ----------
        hurry : bool
            Wait for an update, unless the last one ended just now.
        """
        task = self.look_soon(hurry=hurry)
        if task is not None and (hurry or self._findings is None):
            await asyncio.shield(task)
        return self.reply

    def look_soon(self, *, hurry: bool = False) -> asyncio.Task[None] | None:
        """Start an update if it is due, and return the pending update, if any.

        `hurry` applies until the next update starts, because a pending or just completed one may be outdated already.
        """
        self._hurried |= hurry
        if self._updating is None and not self._closed and time.monotonic() - self._ended >= self._pause:
            if self._hurried:
                self._hurried, self._failures = False, 0
            self._updating = asyncio.get_running_loop().create_task(self._update())
        return self._updating

    @property
    def reply(self) -> dict[str, Any]:
        """The state, in the form of the REST API."""
        if self._findings is None:
            raise RuntimeError("the facility has not been determined yet")
        sources = [source.name for source in self._findings.sources]
        metrics = {"configured": bool(sources), "sources": sources, "gpu": self._gpu()}
        return {**self._findings.reply, "metrics": metrics}

    @property
    def text(self) -> str:
        """The state as a frame for browsers, serialised only after changes; empty before the first update."""
        if self._findings is None:
            return ""
        key = (self._findings, self._gpu())
        if self._written is None or self._written[0] != key:
            self._written = key, json.dumps({"type": "facility", "facility": self.reply}, allow_nan=False)
        return self._written[1]

    async def history(self, seconds: float, workers: Workers | None) -> str:
        """Return the last snapshots, thinned if they are large, with mean and advice, as JSON."""
        return await asyncio.to_thread(self._history, seconds, workers)

    async def timeline(self, seconds: float) -> str:
        """Return the last seconds in columns, for charts, as JSON."""
        sampler = self.sampler
        if sampler.timeline is None:
            raise RuntimeError("this sampler keeps no timeline")
        points = sampler.timeline.points(seconds, time.time())
        columns = await asyncio.to_thread(sampler.timeline.columns, points)
        step = sampler.interval if seconds <= EACH else max(STEP, sampler.interval)
        return await asyncio.to_thread(_in_pieces, {"step": step, **columns})

    def frame(self, snapshot: Snapshot, workers: Workers | None) -> str:
        """Return the frame of a snapshot with mean and advice; this may take milliseconds."""
        content = {
            "type": "snapshot",
            "snapshot": snapshot.busiest(_MOST_MODELS).as_dict(),
            **self._verdict(self.sampler.history, workers).as_dict(),
        }
        return json.dumps(content, allow_nan=False)

    async def close(self) -> None:
        """Close the sampler and the connection, and wait briefly for a pending update."""
        self._closed = True
        await asyncio.wait([asyncio.create_task(self.sampler.close())], timeout=_CLOSE_WITHIN)
        if self._updating is not None:
            await asyncio.wait([self._updating], timeout=_CLOSE_WITHIN)
        await asyncio.to_thread(self._inquiry.close)

    @property
    def _pause(self) -> float:
        """Seconds from the end of one update to the start of the next."""
        shortest, longest = _PAUSES
        if self._hurried:
            return shortest
        return min(longest, shortest * 2.0 ** min(self._failures - 1, 30)) if self._failures else _FRESH

    async def _update(self) -> None:
        try:
            findings = await asyncio.to_thread(self._inquiry.ask)
            before, self._findings = self._findings, findings
            self._failures = 0 if findings.connected else self._failures + 1
        finally:
            self._ended, self._updating = time.monotonic(), None
        former = self.sampler
        is_elsewhere = before is None or before.settings != findings.settings
        if is_elsewhere:
            self.sampler = Sampler(findings.sources, timeline=Timeline())
            self.sampler.interval = former.interval
        self.changed()
        if is_elsewhere:
            await former.close()

    def _gpu(self) -> bool | None:
        """Whether any GPU is reported; None until all sources have answered."""
        newest = self.sampler.history[-1:]
        if any(snapshot.gpus for snapshot in newest):
            return True
        answered = [source.age is not None and source.error is None for each in newest for source in each.sources]
        return False if answered and all(answered) else None

    def _history(self, seconds: float, workers: Workers | None) -> str:
        history, interval = self.sampler.history, self.sampler.interval
        now = time.time()
        wanted = [snapshot for snapshot in history if snapshot.time >= now - seconds]
        rows = sum(len(each.gpus) + len(each.models) + len(each.instances) for each in wanted)
        step = max(1, math.ceil(rows / _MOST_ROWS))
        is_recent = history and now - history[-1].time < LONGEST
        verdict = self._verdict(history, workers).as_dict() if is_recent else {"average": None, "advice": None}
        rest = json.dumps({"interval": interval, **verdict}, allow_nan=False)
        # one at a time, because json holds the GIL, and so blocks the event loop, until it returns
        each = (json.dumps(snapshot.as_dict(), allow_nan=False) for snapshot in wanted[::-1][::step][::-1])
        return f'{{"snapshots": [{", ".join(each)}], {rest[1:]}'

    def _verdict(self, history: tuple[Snapshot, ...], workers: Workers | None) -> Verdict:
        max_batch = self._findings.max_batch if self._findings else None
        return judge(history, workers=workers, max_batch=max_batch)


def _in_pieces(content: Any) -> str:
    """Serialise one column at a time, because json holds the GIL, and so blocks the event loop, until it returns."""
    if isinstance(content, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_in_pieces(value)}" for key, value in content.items()) + "}"
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return "[" + ", ".join(map(_in_pieces, content)) + "]"
    return json.dumps(content, allow_nan=False)
