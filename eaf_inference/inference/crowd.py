"""Notice from a server's own counters that many users share it, so that each keeps only one request in its queue.

Latencies alone do not tell: to a client that comes when the queue is long, the server looks slow. Triton counts the
time that requests wait apart from the time in which they are computed.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.inference._grpc_workarounds import outcome, start_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel

__all__ = ["Crowd"]

_FIRST, _EVERY = 0.25, 1.0  # seconds from the first request to a reading, and to another; between later ones
_LONGEST_PAUSE = 300.0  # seconds until a server that shows no counters is asked again
_LONG, _SHORT = 8.0, 2.0  # queue time over compute time above which a queue is long, and below which it is short
_FEWEST = 4  # requests of all users between two readings
_EARLY = 12  # readings that may follow each reply …
_REPLIES = 16  # … and to this process between two later ones: each counts against a user's share of calls
_SMOOTH = 0.25  # weight of the latest reply


class Crowd:
    """Whether a model's queue is long; all calls of a process share it.

    Parameters
    ----------
    clock : callable
        Returns seconds.

    Attributes
    ----------
    long : bool
        The queue was long between the latest two readings, and this process's own requests wait in it.
    readings : int
    request_seconds : float
        The server's time for a request of any user, without the queue.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.long = False
        self.readings = 0
        self.request_seconds = 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0  # when a reading is due
        self._pause = _EVERY
        self._replies = 0  # since the latest reading
        self._latency: float | None = None
        self._source: Channel | None = None
        self._before: tuple[int, int, int] | None = None
        self._was_long = False
        self._queue_seconds = 0.0  # that a request waited

    def due(self, seconds: float) -> bool:
        """Note a reply that took so long, and return whether to read the server's counters now."""
        with self._lock:
            now = self._clock()
            if self._latency is None:
                self._next, self._latency = now - seconds + _FIRST, seconds
            self._latency += (seconds - self._latency) * _SMOOTH
            # a reading through a load balancer may mix several servers, and others may have left since
            self.long = self._was_long and self._latency > self._queue_seconds / 2
            self._replies += 1
            if now < self._next or self._replies < (1 if self.readings < _EARLY else _REPLIES):
                return False
            self._next, self._replies = float("inf"), 0  # until it is answered
            return True

    def ask(self, channel: Channel, spec: ModelSpec, timeout: float) -> None:
        """Ask a server for its counters; the answer is read when it comes."""
        from eaf_inference.inference import protocol

        def answered(future: Any) -> None:  # on gRPC's thread
            reply, error = outcome(future)
            if error is not None or isinstance(reply, InferenceError):
                self._missed()
                return
            if channel is not self._source:
                self._source, self._before = channel, None
            self.read(reply)

        request = protocol.ModelStatisticsRequest(name=spec.name, version=spec.version)
        try:
            token = channel.credentials.token()
            start_call(lambda: channel.ask("ModelStatistics", request, token, timeout), answered)
        except (InferenceError, ConfigurationError):  # the inferences themselves report what is wrong
            self._missed()

    def _missed(self) -> None:
        """Ask ever more rarely a server that shows no counters, or refuses calls beyond a share."""
        with self._lock:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next = self._clock() + self._pause

    def read(self, statistics: Any) -> None:
        """Compare a server's ModelStatistics with the reading before."""
        stats = [each.inference_stats for each in statistics.model_stats]
        requests = sum(each.success.count for each in stats)
        queue = sum(each.queue.ns for each in stats)
        compute = sum(each.compute_input.ns + each.compute_infer.ns + each.compute_output.ns for each in stats)
        with self._lock:
            self._pause = _EVERY
            self._next = self._clock() + (_FIRST if self._before is None else _EVERY)
            if self._before is not None:
                more, waited, computed = (
                    requests - self._before[0],
                    queue - self._before[1],
                    compute - self._before[2],
                )
                if 0 <= more < _FEWEST:
                    return
                if more > 0 and computed > 0 and waited >= 0:  # otherwise the server was restarted
                    self._was_long = waited > (_SHORT if self._was_long else _LONG) * computed
                    self._queue_seconds, self.request_seconds = waited / more / 1e9, computed / more / 1e9
                    self.readings += 1
            self._before = requests, queue, compute
