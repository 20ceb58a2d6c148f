"""Asynchronous clients that stand in for the processes of many workers, on simulated accelerators.

Two hundred workers do not fit on one machine, but what they do to a server does: each prepares a request for a stated
time, and sends it in the way of this client (a window of requests, the very `Window`) or of coffea's wrapper (one
request, its reply, the next). A reply whose scores are not the request's ends the measurement.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from eaf_inference.bench.models import CONSTITUENTS, VALUES
from eaf_inference.errors import BadReply, ServerUnavailable
from eaf_inference.inference import protocol
from eaf_inference.inference.pipeline import Limits, Window
from eaf_inference.inference.transport import frame_request
from eaf_inference.study.outcome import PIPELINED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = ["Crowd", "Door", "Load", "Served", "run"]

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
_LEAST_SETTLING = 0.7  # seconds until what is measured is no beginning


@dataclass(frozen=True, slots=True)
class Crowd:
    """Workers, and what they do.

    Attributes
    ----------
    models : tuple of str
        Each worker uses one of them.
    rows : int
        Of a request.
    preparing : float
        Seconds that a worker takes to prepare one.
    service : float
        Seconds that an accelerator is stated to take for one, for the time in which the crowd settles.
    by_affinity : bool
        Whether the requests for one model meet on one instance, or each goes to the least busy one; where there
        is a door, that is the door's to choose.
    """

    client: str
    workers: int
    models: tuple[str, ...]
    rows: int
    preparing: float
    service: float
    by_affinity: bool = False


@dataclass(frozen=True, slots=True)
class Door:
    """The one address of all instances: who vouches for it (PEM), and a token that it lets in."""

    address: str
    authority: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Served:
    """What the servers counted of some models: requests by model and server; rows and seconds in the queue of all."""

    placed: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: float = 0.0
    queue: float = 0.0

    @property
    def requests(self) -> int:
        return self.placed.total()

    @property
    def servers(self) -> int:
        """How many were used."""
        return len({server for _, server in self.placed})

    @property
    def met(self) -> float:
        """The share of requests that went to the server to which most for their model did."""
        most: Counter[str] = Counter()
        for (model, _), requests in self.placed.items():
            most[model] = max(most[model], requests)
        return most.total() / max(self.requests, 1)

    def since(self, before: Served) -> Served:
        return Served(self.placed - before.placed, self.rows - before.rows, self.queue - before.queue)


@dataclass(slots=True)
class Load:
    """What came of it while it was measured."""

    seconds: float = 0.0
    served: Served = field(default_factory=Served)
    latencies: list[float] = field(default_factory=list)
    window: int = 0

    def percentile(self, share: float) -> float | None:
        return float(np.percentile(self.latencies, share)) if self.latencies else None


def run(
    addresses: Sequence[str], crowd: Crowd, seconds: float, watch: Callable[[], Served], door: Door | None = None
) -> Load:
    """Let a crowd work for so many seconds, after it has settled.

    Parameters
    ----------
    addresses : sequence of str
        The instances.
    watch : callable
        What they have counted.
    door : Door, optional
        What stands before them, and gets the requests.
    """
    measurement = _Measurement(addresses, crowd, watch, door)
    with ThreadPoolExecutor(1) as pool:  # in a notebook this thread has a running event loop already
        running = pool.submit(asyncio.run, measurement.run(seconds))
        try:
            return running.result()
        except KeyboardInterrupt:
            measurement.stop()
            raise


class _Measurement:
    def __init__(
        self, addresses: Sequence[str], crowd: Crowd, watch: Callable[[], Served], door: Door | None
    ) -> None:
        self._addresses, self._crowd, self._watch, self._door = addresses, crowd, watch, door
        self._metadata = (("authorization", f"Bearer {door.token}"),) if door else ()
        self._random = random.Random(len(addresses) * 1000 + crowd.workers)  # noqa: S311
        self._busy: Counter[int] = Counter()
        self._task: asyncio.Task[Any] | None = None
        self._load = Load()
        self._working = True
        self._measuring = False
        values = np.random.default_rng(crowd.workers).normal(size=(crowd.rows, VALUES, CONSTITUENTS))
        self._values = values.astype(np.float32)
        self._right = self._values[:, 0, 0].tobytes()

    def stop(self) -> None:
        """End it early, from another thread."""
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def run(self, seconds: float) -> Load:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        channels = self._channels()
        self._stubs = [
            channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                response_deserializer=protocol.ModelInferResponse.FromString,
            )
            for channel in channels
        ]
        self._requests = [self._encoded(name) for name in self._crowd.models]
        work = self._pipelined if self._crowd.client == PIPELINED else self._blocking
        jobs = [self._measure(seconds), *(work(number) for number in range(self._crowd.workers))]
        tasks = [asyncio.create_task(each) for each in jobs]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)
            for channel in channels:
                await channel.close()
        return self._load

    def _channels(self) -> list[Any]:
        from grpc import aio

        if self._door is None:
            return [aio.insecure_channel(address, options=_OPTIONS) for address in self._addresses]
        credentials = grpc.ssl_channel_credentials(self._door.authority.encode())
        return [aio.secure_channel(self._door.address, credentials, options=_OPTIONS)]

    async def _measure(self, seconds: float) -> None:
        crowd = self._crowd
        await asyncio.sleep(max(_LEAST_SETTLING, 1.5 * crowd.workers * crowd.service / len(self._addresses)))
        before, began = self._watch(), time.monotonic()
        self._measuring = True
        await asyncio.sleep(seconds)
        self._load.served = self._watch().since(before)
        self._load.seconds = time.monotonic() - began
        self._measuring = self._working = False

    async def _blocking(self, number: int) -> None:
        await self._prepare(first=True)
        while self._working:
            await self._ask(number)
            await self._prepare()

    async def _pipelined(self, number: int) -> None:
        window = Window(Limits().max_in_flight)
        flying: set[asyncio.Task[None]] = set()

        async def one(in_flight: int) -> None:
            window.replied(await self._ask(number), 1.0, in_flight)

        await self._prepare(first=True)
        try:
            while self._working:
                while len(flying) >= window.size:
                    done, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.gather(*done)
                self._load.window = max(self._load.window, len(flying) + 1)
                flying.add(asyncio.create_task(one(len(flying) + 1)))
                await self._prepare()
            await asyncio.gather(*flying)
        finally:
            await _end(flying)

    async def _prepare(self, *, first: bool = False) -> None:
        """A worker's own work before a request; at first a part of it, so that workers are not in step."""
        await asyncio.sleep(self._crowd.preparing * (self._random.random() if first else 1.0))

    async def _ask(self, number: int) -> float:
        model = number % len(self._requests)
        instance = model % len(self._stubs) if self._crowd.by_affinity else self._least_busy()
        self._busy[instance] += 1
        began = time.monotonic()
        try:
            reply = await self._stubs[instance](self._requests[model], metadata=self._metadata)
        except grpc.RpcError as error:
            raise ServerUnavailable(
                f"A simulated worker's request failed: {error.code().name}, {error.details()}"
            ) from error
        finally:
            self._busy[instance] -= 1
        seconds = time.monotonic() - began
        if reply.raw_output_contents[0] != self._right:
            raise BadReply(f"A reply of {self._crowd.models[model]!r} has scores that are not those of its request.")
        if self._measuring:
            self._load.latencies.append(seconds)
        return seconds

    def _least_busy(self) -> int:
        return min(range(len(self._stubs)), key=lambda number: (self._busy[number], self._random.random()))

    def _encoded(self, model: str) -> bytes:
        request: Any = protocol.ModelInferRequest(model_name=model)
        request.inputs.add(name="x", datatype="FP32", shape=self._values.shape)
        request.outputs.add(name="score")
        return b"".join(frame_request(request.SerializeToString(), [self._values]))


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel what is not done, after a failure, and leave nothing behind that nobody looked at."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
