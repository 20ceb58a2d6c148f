"""Keep a window of requests in flight, and retry those that fail.

One `Pipeline` serves one call of one model, or one question to a server. The caller's thread does all the work;
gRPC's threads only put finished calls on a queue. A request is idempotent, so whatever is lost with a server or a
connection is sent again; each reply is delivered once.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import queue
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from eaf_inference.errors import InferenceError
from eaf_inference.inference._grpc_workarounds import outcome, start_call
from eaf_inference.inference.failure import Action, Failure, failed
from eaf_inference.inference.interrupts import Interrupts
from eaf_inference.inference.stop import stop_of_this_call
from eaf_inference.inference.traffic import Retrying, Traffic
from eaf_inference.inference.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from eaf_inference.auth.token import Token
    from eaf_inference.inference.transport import Channel

__all__ = ["Limits", "Pipeline", "Question", "Request", "ask"]

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05  # seconds
_LONGEST_PAUSE = 5.0
_SHORTEST_TIMEOUT = 0.001
_LEAD = 4  # windows of later requests that may overtake one request
_HISTORY = 12  # failures kept for the error message
_REPORT_EVERY = 1.0  # seconds, during an outage


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one call.

    Attributes
    ----------
    time_budget : float
        Seconds for which a failing request is tried again.
    request_timeout : float
        Seconds for one attempt.
    max_in_flight : int
        Requests in flight.
    """

    time_budget: float = 120.0
    request_timeout: float = 120.0
    max_in_flight: int = 16


class Request(Protocol):
    """What a pipeline sends."""

    @property
    def subject(self) -> str:
        """What the request is about, for messages."""

    @property
    def work(self) -> float:
        """Its size, in any unit proportional to the server's effort."""

    @property
    def inferences(self) -> int:
        """The number of rows to score."""

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""

    def start(self, channel: Channel, token: Token | None, timeout: float) -> Any:
        """Send it and return gRPC's future."""

    def halves(self) -> Sequence[Any]:
        """Return two requests for half of it each, if the server has too little memory for it; else none."""


RequestT = TypeVar("RequestT", bound=Request)


@dataclass(frozen=True, slots=True)
class Question:
    """A call of Triton's service other than an inference."""

    method: str
    message: Any
    subject: str = "a query"
    work: float = 1.0
    inferences: int = 0
    nbytes: int = 0

    def start(self, channel: Channel, token: Token | None, timeout: float) -> Any:
        return channel.ask(self.method, self.message, token, timeout)

    def halves(self) -> tuple[()]:
        return ()


def ask(channels: Sequence[Channel], questions: Sequence[Question], limits: Limits) -> list[Any]:
    """Ask any of the replicas, and return the answers in the order of the questions.

    The whole takes no longer than the longer of the two limits, retries included.

    Raises
    ------
    InferenceError
        A question was not answered.
    """
    answers: dict[int, Any] = {}
    total = max(limits.time_budget, limits.request_timeout)
    with Pipeline[Question](channels, limits, total=total) as pipeline:

        def receive() -> None:
            question, answer = pipeline.next_reply()
            answers[id(question)] = answer

        for question in questions:
            while not pipeline.has_room:
                receive()
            pipeline.submit(question)
        while pipeline.busy:
            receive()
    return [answers[id(question)] for question in questions]


@dataclass(slots=True, eq=False)
class _Flight(Generic[RequestT]):
    """A request in flight, with its failures so far and the next attempt."""

    number: int
    request: RequestT
    channel: Channel | None = None
    reply: Any = None
    failure: Failure | None = None
    token: Token | None = None
    started: float = 0.0
    ended: float = 0.0
    in_flight: int = 0
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    failing_since: float | None = None
    pause: float = _FIRST_PAUSE
    renewed: bool = False
    moved: bool = False


class Pipeline(Generic[RequestT]):
    """Requests in, replies out, in the order in which they finish.

    A context manager: leaving it for any reason abandons the requests in flight and drops their replies. The
    calls are not cancelled on the wire. That would save the few requests of a window, but it crashes a Triton older
    than 25.03 and with it everybody's work (https://github.com/triton-inference-server/server/issues/7368 and /8034;
    seen with 2.51).

    Parameters
    ----------
    channels : sequence of Channel
        Replicas that serve the same models.
    limits : Limits
    traffic : Traffic, optional
        Counts what is sent and answered.
    total : float
        Seconds for all requests together.
    waiting : callable, optional
        Called about once a second during an outage, with its reason and end, and with None when it is over; always
        on the thread that waits for replies.

    Attributes
    ----------
    latest : tuple of (float, float) or None
        When the latest reply came, by the monotonic clock, and the seconds that it took; None if it was retried.
    interrupts : Interrupts
        Notes every Ctrl-C while the context is open. Release it while code outside the call runs.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        limits: Limits,
        traffic: Traffic | None = None,
        *,
        total: float = math.inf,
        waiting: Callable[[Retrying | None], None] | None = None,
    ) -> None:
        self.interrupts = Interrupts()
        self._ends = time.monotonic() + total
        self._channels = channels
        self._limits = limits
        self._traffic = traffic or Traffic()
        self._report = waiting or (lambda _: None)
        self._retrying: Retrying | None = None
        self.window = Window(limits.max_in_flight, channels=len(channels))
        self._finished: queue.SimpleQueue[_Flight[RequestT] | None] = queue.SimpleQueue()  # None wakes it
        self._stop = stop_of_this_call()
        self._stop.on_request(lambda: self._finished.put(None))
        self._flying: dict[int, _Flight[RequestT]] = {}
        self._waiting: list[tuple[float, int, _Flight[RequestT]]] = []  # a heap: not before, number, flight
        self._next = 0
        self.latest: tuple[float, float] | None = None

    def __enter__(self) -> Pipeline[RequestT]:
        self.interrupts.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.interrupts.hold()  # against a second Ctrl-C
        self._traffic.abandoned(len(self._flying))
        self._note_outage(None)
        self._flying.clear()
        self._waiting.clear()
        self.interrupts.release(kind)

    @property
    def busy(self) -> bool:
        """Whether replies are still to come."""
        return bool(self._flying or self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether another request may be submitted now."""
        outstanding = len(self._flying) + len(self._waiting)
        if outstanding == 0:
            return True
        if outstanding >= self.window.size or self._all_rest():
            return False
        oldest = min(itertools.chain(self._flying, (number for _, number, _ in self._waiting)))
        return self._next - oldest < _LEAD * self._limits.max_in_flight

    def submit(self, request: RequestT) -> None:
        """Send a request."""
        self._stop.check()
        flight = _Flight(self._next, request)
        self._next += 1
        self._send(flight)

    def next_reply(self) -> tuple[RequestT, Any]:
        """Wait for the next answered request; retry those that fail meanwhile.

        Raises
        ------
        InferenceError
            A request failed for good.
        """
        while True:
            flight = self._wait()
            if flight is None:
                continue
            reply = self._examine(flight)
            if isinstance(reply, InferenceError):  # the answer could not be read
                raise reply
            if reply is not None:
                return flight.request, reply

    def _wait(self) -> _Flight[RequestT] | None:
        """Send the requests whose pause is over, and return the next finished flight, if any."""
        now = time.monotonic()
        while self._waiting and (self._waiting[0][0] <= now):
            self._send(heapq.heappop(self._waiting)[2])
        timeout = self._waiting[0][0] - now if self._waiting else None
        if self._retrying is not None:
            with self.interrupts:
                self._report(self._retrying)
            timeout = _REPORT_EVERY if timeout is None else min(timeout, _REPORT_EVERY)
        self.interrupts.check()  # one that Python ignored must not wait for the next reply
        self._stop.check()
        try:
            return self._finished.get(timeout=timeout)
        except queue.Empty:
            return None

    def _send(self, flight: _Flight[RequestT]) -> None:
        channel = self._pick(avoid=flight.channel if flight.failures else None)
        flight.token = channel.credentials.token()
        flight.channel = channel
        flight.started = time.monotonic()
        with self.interrupts:
            timeout = self._timeout_of(flight)
            start_call(
                lambda: flight.request.start(channel, flight.token, timeout),
                lambda future: self._done(flight, channel, future),
            )
            self._flying[flight.number] = flight
            self._traffic.sent(again=bool(flight.failures))
            flight.in_flight = len(self._flying)

    def _timeout_of(self, flight: _Flight[RequestT]) -> float:
        """Return the seconds that a request has for its reply."""
        left = max(self._ends - time.monotonic(), _SHORTEST_TIMEOUT)
        if len(self._channels) > 1 and not flight.moved:
            left /= 2  # leaves time for another replica if this one is silent
        return min(self._limits.request_timeout, left)

    def _done(self, flight: _Flight[RequestT], channel: Channel, future: Any) -> None:
        """Note the time and the outcome, on gRPC's thread, where no interrupt arrives."""
        flight.ended = time.monotonic()
        flight.reply, error = outcome(future)
        flight.failure = None if error is None else Failure.of(error, channel.address, flight.token)
        self._finished.put(flight)

    def _pick(self, avoid: Channel | None) -> Channel:
        """Pick the least busy replica among those not resting after a failure."""
        if len(self._channels) == 1:
            return self._channels[0]
        now = time.monotonic()
        load = Counter(flight.channel for flight in self._flying.values())
        return min(
            self._channels,
            key=lambda channel: (max(channel.resting_until - now, 0.0), channel is avoid, load[channel]),
        )

    def _all_rest(self) -> bool:
        return all(channel.resting_until > time.monotonic() for channel in self._channels)

    def _examine(self, flight: _Flight[RequestT]) -> Any | None:
        """Return the reply, or None if the request is sent again."""
        reply, flight.reply = flight.reply, None
        failure, flight.failure = flight.failure, None
        with self.interrupts:  # keeps the list of flights and the count of them equal
            del self._flying[flight.number]
            if failure is None:
                seconds = flight.ended - flight.started
                self._traffic.answered(flight.request.inferences, flight.request.nbytes, seconds)
            else:
                self._traffic.failed()
        if failure is not None:
            flight.failures.append(failure)
            self._try_again(flight, failure)
            return None
        self._note_outage(None)
        self.window.replied(seconds, flight.request.work, flight.in_flight)
        self.latest = None if flight.failures else (flight.ended, seconds)
        return reply

    def _note_outage(self, retrying: Retrying | None) -> None:
        """Remember an outage, and report its end."""
        is_over = retrying is None and self._retrying is not None
        self._retrying = retrying
        if is_over:
            with self.interrupts:
                self._report(None)

    def _try_again(self, flight: _Flight[RequestT], failure: Failure) -> None:
        """Queue the request for another attempt, or raise."""
        channel = flight.channel
        assert channel is not None  # noqa: S101  (for the type checker)
        channel.check_open()  # closed here, so no server is gone
        pause = 0.0
        if failure.out_of_memory and (halves := flight.request.halves()):
            for half in halves:
                heapq.heappush(self._waiting, (time.monotonic(), self._next, _Flight(self._next, half)))
                self._next += 1
            return
        if failure.action is Action.BACK_OFF:
            pause = self._pause_for(flight, failure)
            channel.resting_until = max(channel.resting_until, time.monotonic() + pause)
            if not self._all_rest():
                pause = 0.0  # another replica can take it now
                self._note_outage(None)
            self.window.overloaded()
        elif failure.action is Action.ELSEWHERE_ONCE and not flight.moved and time.monotonic() < self._ends:
            flight.moved = True
        elif failure.action is Action.RENEW_TOKEN and not flight.renewed:
            if channel.credentials.renewed_after(flight.token):
                flight.renewed = True
            elif channel.credentials.unavailable:  # the source of tokens is down, and may return in time
                pause = self._pause_for(flight, failure, channel.credentials.trouble)
            else:
                raise failed(flight.failures, flight.request.subject, channel.credentials.trouble)
        else:
            raise failed(flight.failures, flight.request.subject)
        log.info("%s: %s; trying again in %.2f s", flight.request.subject, failure, pause)
        heapq.heappush(self._waiting, (time.monotonic() + pause, flight.number, flight))

    def _pause_for(self, flight: _Flight[RequestT], failure: Failure, trouble: str = "") -> float:
        now = time.monotonic()
        flight.failing_since = flight.failing_since or now
        left = self._limits.time_budget - (now - flight.failing_since)
        until_end = self._ends - now
        self._note_outage(Retrying(failure.in_short if not trouble else "no fresh token", now + min(left, until_end)))
        if left <= 0 or until_end < 2 * _FIRST_PAUSE:
            raise failed(flight.failures, flight.request.subject, trouble)
        # decorrelated jitter: clients that failed together must not return together
        flight.pause = min(_LONGEST_PAUSE, random.uniform(_FIRST_PAUSE, flight.pause * 3))  # noqa: S311
        return min(left, until_end / 2, failure.retry_after or flight.pause)
