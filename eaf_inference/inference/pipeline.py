"""The window of requests in flight: how many, which are tried again, and when it stops.

One `Pipeline` serves one call of one model, or one question to a server. The caller's thread does all the work;
gRPC's threads only put finished calls on a queue. A request is idempotent, so whatever was lost with a server or
a connection is sent again; what was answered is delivered once.
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
from eaf_inference.inference.failure import Action, Failure, failed
from eaf_inference.inference.interrupts import Interrupts
from eaf_inference.inference.traffic import Retrying, Traffic
from eaf_inference.inference.transport import Server, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from eaf_inference.credentials import Token

__all__ = ["Limits", "Pipeline", "Question", "Request", "Window", "ask"]

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05  # seconds
_LONGEST_PAUSE = 5.0
_SHORTEST_TIMEOUT = 0.001
_LEAD = 4  # a reply may be overtaken by at most this many windows of later ones
_HISTORY = 12  # failures kept for the message
_TOLD_EVERY = 1.0  # seconds, during an outage


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one call: seconds, seconds, and requests."""

    time_budget: float = 120.0
    request_timeout: float = 120.0
    max_in_flight: int = 16


class Request(Protocol):
    """What a pipeline sends."""

    @property
    def subject(self) -> str:
        """What it is about, for messages."""

    @property
    def work(self) -> float:
        """Its size, in any unit that is proportional to the server's effort."""

    @property
    def inferences(self) -> int:
        """How many rows it asks scores for."""

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""

    def start(self, server: Server, token: Token | None, timeout: float) -> Any:
        """Send it; gives gRPC's future."""


RequestT = TypeVar("RequestT", bound=Request)


@dataclass(frozen=True, slots=True)
class Question:
    """One call of Triton's service that is not an inference."""

    method: str
    message: Any
    subject: str = "the server"
    work: float = 1.0
    inferences: int = 0
    nbytes: int = 0

    def start(self, server: Server, token: Token | None, timeout: float) -> Any:
        return server.ask(self.method, self.message, token, timeout)


def ask(servers: Sequence[Server], questions: Sequence[Question], limits: Limits) -> list[Any]:
    """The answers of whichever replicas give them, in the order of the questions.

    All of it, what is tried again included, takes no longer than the longer of the two limits.

    Raises
    ------
    InferenceError
        One was not answered.
    """
    answers: dict[int, Any] = {}
    total = max(limits.time_budget, limits.request_timeout)
    with Pipeline[Question](servers, limits, total=total) as pipeline:

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


class Window:
    """How many requests to keep in flight: enough to keep the server busy, no more.

    As in TCP Vegas (https://doi.org/10.1109/49.464716), the shortest time that a request of some size has taken
    tells what the server and the network need for it; what it takes beyond that is waiting in a queue. The window
    grows while few of our requests wait, and shrinks when many do. Overload halves it.

    Parameters
    ----------
    most : int
        Its upper bound.
    servers : int
        Replicas that share the work; each is kept busy.
    """

    _FEW, _MANY = 0.8, 2.0  # waiting requests a server
    _FADING = 1.002  # the shortest time is forgotten at this rate: a server's luck changes

    def __init__(self, most: int, *, servers: int = 1) -> None:
        self.most = max(most, 1)
        self._servers = servers
        self._least_size = min(servers, self.most)
        self._size = float(min(2 * servers, self.most))
        self._shortest: dict[int, float] = {}  # seconds, by size of the request

    @property
    def size(self) -> int:
        return int(self._size)

    def replied(self, seconds: float, work: float, in_flight: int) -> None:
        """Learn from a reply.

        Parameters
        ----------
        seconds : float
            From sending to reply.
        work : float
            The request's size; requests within a fifth of one another are compared.
        in_flight : int
            Requests in flight when it was sent, itself included.
        """
        size = round(4 * math.log2(work))
        # … but a full window's own queue is no server's luck
        fading = self._FADING if in_flight <= 2 * self._servers else 1.0
        shortest = min(seconds, self._shortest.get(size, seconds) * fading)
        self._shortest[size] = shortest
        waiting = in_flight * (1 - shortest / seconds) / self._servers if seconds > 0 else 0.0
        if waiting < self._FEW and in_flight >= self.size:
            self._size = min(self._size + 1 / self._size, float(self.most))
        elif waiting > self._MANY:
            self._size = max(self._size - 1 / self._size, float(self._least_size))

    def overloaded(self) -> None:
        """Ask for less: the server said that it has too much, or is gone."""
        self._size = max(self._size / 2, float(self._least_size))


@dataclass(slots=True, eq=False)
class _Flight(Generic[RequestT]):
    """One request on its way: what was tried, and what is to be tried next."""

    number: int
    request: RequestT
    server: Server | None = None
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

    A context manager: leaving it, for whatever reason, gives up what is still in flight. Its replies are dropped
    when they come. The calls are not cancelled on the wire: that crashes a Triton older than 25.03, and with it
    everybody's work (triton-inference-server/server#7368, #8034; seen with 2.51), to save the few requests that
    a window holds.

    Parameters
    ----------
    servers : sequence of Server
        Replicas that serve the same.
    limits : Limits
    traffic : Traffic, optional
        Where to count what is sent and answered.
    total : float
        Seconds for all of it.
    waiting : callable, optional
        Called during an outage, about once a second, with what is known of it; with None when it is over. By the
        thread that waits for replies.

    Attributes
    ----------
    interrupts : Interrupts
        Notes every Ctrl-C while the context is open; to be released while other code than the call's runs.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        limits: Limits,
        traffic: Traffic | None = None,
        *,
        total: float = math.inf,
        waiting: Callable[[Retrying | None], None] | None = None,
    ) -> None:
        self.interrupts = Interrupts()
        self._ends = time.monotonic() + total
        self._servers = servers
        self._limits = limits
        self._traffic = traffic or Traffic()
        self._tell_waiting = waiting or (lambda _: None)
        self._retrying: Retrying | None = None
        self._window = Window(limits.max_in_flight, servers=len(servers))
        self._finished: queue.SimpleQueue[_Flight[RequestT]] = queue.SimpleQueue()
        self._flying: dict[int, _Flight[RequestT]] = {}
        self._waiting: list[tuple[float, int, _Flight[RequestT]]] = []  # a heap: not before, number, flight
        self._next = 0

    def __enter__(self) -> Pipeline[RequestT]:
        self.interrupts.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.interrupts.hold()  # a second Ctrl-C
        self._traffic.given_up(len(self._flying))
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
        if outstanding >= self._window.size or self._all_rest():
            return False
        oldest = min(itertools.chain(self._flying, (number for _, number, _ in self._waiting)))
        return self._next - oldest < _LEAD * self._limits.max_in_flight

    def submit(self, request: RequestT) -> None:
        """Send a request."""
        flight = _Flight(self._next, request)
        self._next += 1
        self._send(flight)

    def next_reply(self) -> tuple[RequestT, Any]:
        """Wait for the next request that is answered; tries again what asks for it.

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
            if isinstance(reply, InferenceError):  # what came is not a reply
                raise reply
            if reply is not None:
                return flight.request, reply

    def _wait(self) -> _Flight[RequestT] | None:
        """The next finished flight; sends those whose pause is over meanwhile."""
        now = time.monotonic()
        while self._waiting and (self._waiting[0][0] <= now):
            self._send(heapq.heappop(self._waiting)[2])
        timeout = self._waiting[0][0] - now if self._waiting else None
        if self._retrying is not None:
            with self.interrupts:
                self._tell_waiting(self._retrying)
            timeout = _TOLD_EVERY if timeout is None else min(timeout, _TOLD_EVERY)
        self.interrupts.check()  # one that Python has ignored does not wait for the next reply
        try:
            return self._finished.get(timeout=timeout)
        except queue.Empty:
            return None

    def _send(self, flight: _Flight[RequestT]) -> None:
        server = self._pick(avoid=flight.server if flight.failures else None)
        flight.token = server.credentials.token()
        flight.server = server
        flight.started = time.monotonic()
        with self.interrupts:
            future = flight.request.start(server, flight.token, self._timeout_of(flight))
            self._flying[flight.number] = flight
            self._traffic.sent(again=bool(flight.failures))
            flight.in_flight = len(self._flying)
            future.add_done_callback(lambda future: self._done(flight, server, future))  # may be done: at once, here
            del future  # its __del__ takes gRPC's lock: it runs here or on gRPC's thread, uninterrupted

    def _timeout_of(self, flight: _Flight[RequestT]) -> float:
        """Seconds that a request has for its reply."""
        left = max(self._ends - time.monotonic(), _SHORTEST_TIMEOUT)
        if len(self._servers) > 1 and not flight.moved:
            left /= 2  # if this replica is silent, another one has the rest
        return min(self._limits.request_timeout, left)

    def _done(self, flight: _Flight[RequestT], server: Server, future: Any) -> None:
        """On gRPC's thread, where no interrupt comes: note the time and the outcome, and hand over."""
        flight.ended = time.monotonic()
        flight.reply, error = outcome(future)
        flight.failure = None if error is None else Failure.of(error, server.address, flight.token)
        self._finished.put(flight)

    def _pick(self, avoid: Server | None) -> Server:
        """The replica with the least to do among those not resting after a failure."""
        if len(self._servers) == 1:
            return self._servers[0]
        now = time.monotonic()
        load = Counter(flight.server for flight in self._flying.values())
        return min(
            self._servers,
            key=lambda server: (max(server.resting_until - now, 0.0), server is avoid, load[server]),
        )

    def _all_rest(self) -> bool:
        now = time.monotonic()
        return all(server.resting_until > now for server in self._servers)

    def _examine(self, flight: _Flight[RequestT]) -> Any | None:
        """The reply, or None when the request goes out again."""
        reply, flight.reply = flight.reply, None
        failure, flight.failure = flight.failure, None
        with self.interrupts:  # both or neither: what is in flight stays in flight, or has landed
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
        self._window.replied(seconds, flight.request.work, flight.in_flight)
        return reply

    def _note_outage(self, retrying: Retrying | None) -> None:
        """Remember it, and say when it is over."""
        is_over = retrying is None and self._retrying is not None
        self._retrying = retrying
        if is_over:
            with self.interrupts:
                self._tell_waiting(None)

    def _try_again(self, flight: _Flight[RequestT], failure: Failure) -> None:
        """Put the flight back among the waiting, or raise."""
        server = flight.server
        assert server is not None  # noqa: S101  (for the type checker: it has been sent)
        pause = 0.0
        if failure.action is Action.BACK_OFF:
            pause = self._pause_for(flight, failure)
            server.resting_until = max(server.resting_until, time.monotonic() + pause)
            if not self._all_rest():
                pause = 0.0  # another replica takes it at once
                self._note_outage(None)
            self._window.overloaded()
        elif failure.action is Action.ELSEWHERE_ONCE and not flight.moved and time.monotonic() < self._ends:
            flight.moved = True
        elif failure.action is Action.RENEW_TOKEN and not flight.renewed:
            if server.credentials.renewed_after(flight.token):
                flight.renewed = True
            elif server.credentials.unavailable:  # what gives tokens is down, and may be back within the budget
                pause = self._pause_for(flight, failure, server.credentials.trouble)
            else:
                raise failed(flight.failures, flight.request.subject, server.credentials.trouble)
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
        # decorrelated jitter: clients that failed together do not come back together
        flight.pause = min(_LONGEST_PAUSE, random.uniform(_FIRST_PAUSE, flight.pause * 3))  # noqa: S311
        return min(left, until_end / 2, failure.retry_after or flight.pause)
