"""Asynchronous clients that stand in for the processes of many workers.

Two hundred workers do not fit on one machine, but their requests do. Each simulated worker takes a stated time to
prepare a request. It sends requests as this client does (with the same `Window` of requests in flight and the same
readings of the server's counters, from which it notices a `Crowd`) or as coffea's wrapper does (one at a time). A
reply with wrong scores ends the measurement.
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

from eaf_facility.study.accelerator import CONSTITUENTS, VALUES
from eaf_facility.study.outcome import PIPELINED
from eaf_facility.study.server_counts import ServerCounts
from eaf_inference.errors import BadReply, ServerUnavailable
from eaf_inference.inference import protocol
from eaf_inference.inference.crowd import Crowd
from eaf_inference.inference.pipeline import Limits
from eaf_inference.inference.transport import frame_request
from eaf_inference.inference.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = ["EdgeProxy", "LoadResult", "WorkerGroup", "run_workers"]

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
_LEAST_SETTLING = 0.7  # seconds before the measurement starts …
_ROUNDS = 1.5, 6.0  # … and replies to each worker: those of this client notice a crowd after the second of two each


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """Simulated workers and their requests.

    Attributes
    ----------
    models : tuple of str
        Each worker uses one of them.
    rows : int
        Rows in a request.
    preparation : float
        Seconds that a worker takes to prepare a request.
    service : float
        Seconds that an accelerator takes for a request, which sets the time to settle.
    by_affinity : bool
        Whether all requests for a model go to the same Triton, or each to the least busy one. An edge proxy makes
        this choice itself.
    """

    client: str
    workers: int
    models: tuple[str, ...]
    rows: int
    preparation: float
    service: float
    by_affinity: bool = False


@dataclass(frozen=True, slots=True)
class EdgeProxy:
    """The common address of all Tritons (``host:port``), its certificate authority (PEM) and a valid token."""

    address: str
    authority: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(slots=True)
class LoadResult:
    """What was measured: the duration (s), the servers' counters, the latencies (s) and the largest window."""

    seconds: float = 0.0
    served: ServerCounts = field(default_factory=ServerCounts)
    latencies: list[float] = field(default_factory=list)
    window: int = 0

    def percentile(self, percent: float) -> float | None:
        """Return a percentile of the latencies in seconds; None without any."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else None


def run_workers(
    addresses: Sequence[str],
    group: WorkerGroup,
    seconds: float,
    read: Callable[[], ServerCounts],
    proxy: EdgeProxy | None = None,
) -> LoadResult:
    """Run simulated workers and measure them for a number of seconds, after they have settled.

    Parameters
    ----------
    addresses : sequence of str
        The Tritons, as ``host:port``.
    read : callable
        Reads their counters.
    proxy : EdgeProxy, optional
        Sends all requests through this proxy instead of to the Tritons.

    Raises
    ------
    BadReply
        A reply has wrong scores.
    ServerUnavailable
        A request failed.
    """
    measurement = _Measurement(addresses, group, read, proxy)
    with ThreadPoolExecutor(1) as pool:  # a notebook's thread already has a running event loop
        running = pool.submit(asyncio.run, measurement.run(seconds))
        try:
            return running.result()
        except KeyboardInterrupt:
            measurement.stop()
            raise


class _Measurement:
    def __init__(
        self,
        addresses: Sequence[str],
        group: WorkerGroup,
        read: Callable[[], ServerCounts],
        proxy: EdgeProxy | None,
    ) -> None:
        self._addresses, self._group, self._read, self._proxy = addresses, group, read, proxy
        self._metadata = (("authorization", f"Bearer {proxy.token}"),) if proxy else ()
        self._random = random.Random(len(addresses) * 1000 + group.workers)  # noqa: S311
        self._in_flight: Counter[int] = Counter()
        self._task: asyncio.Task[Any] | None = None
        self._result = LoadResult()
        self._working = True
        self._measuring = False
        values = np.random.default_rng(group.workers).normal(size=(group.rows, VALUES, CONSTITUENTS))
        self._values = values.astype(np.float32)
        self._expected = self._values[:, 0, 0].tobytes()

    def stop(self) -> None:
        """Cancel the measurement, from another thread."""
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def run(self, seconds: float) -> LoadResult:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        channels = self._channels()
        self._stubs = [
            channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                response_deserializer=protocol.ModelInferResponse.FromString,
            )
            for channel in channels
        ]
        self._counters = channels[0].unary_unary(
            "/inference.GRPCInferenceService/ModelStatistics",
            request_serializer=protocol.ModelStatisticsRequest.SerializeToString,
            response_deserializer=protocol.ModelStatisticsResponse.FromString,
        )
        self._requests = [self._encoded(name) for name in self._group.models]
        work = self._pipelined if self._group.client == PIPELINED else self._blocking
        jobs = [self._measure(seconds), *(work(number) for number in range(self._group.workers))]
        tasks = [asyncio.create_task(each) for each in jobs]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)
            for channel in channels:
                await channel.close()
        return self._result

    def _channels(self) -> list[Any]:
        from grpc import aio

        if self._proxy is None:
            return [aio.insecure_channel(address, options=_OPTIONS) for address in self._addresses]
        credentials = grpc.ssl_channel_credentials(self._proxy.authority.encode())
        return [aio.secure_channel(self._proxy.address, credentials, options=_OPTIONS)]

    async def _measure(self, seconds: float) -> None:
        group = self._group
        rounds = _ROUNDS[group.client == PIPELINED] * group.workers * group.service / len(self._addresses)
        await asyncio.sleep(max(_LEAST_SETTLING, rounds))
        before, began = self._read(), time.monotonic()
        self._measuring = True
        await asyncio.sleep(seconds)
        self._result.served = self._read().since(before)
        self._result.seconds = time.monotonic() - began
        self._measuring = self._working = False

    async def _blocking(self, number: int) -> None:
        await self._prepare(first=True)
        while self._working:
            await self._send(number)
            await self._prepare()

    async def _pipelined(self, number: int) -> None:
        window, crowd = Window(Limits().max_in_flight), Crowd()
        model = self._group.models[number % len(self._requests)]
        in_flight: set[asyncio.Task[None]] = set()

        async def send(size: int) -> None:
            seconds = await self._send(number)
            window.replied(seconds, 1.0, size)
            if crowd.due(seconds):
                question = protocol.ModelStatisticsRequest(name=model)
                crowd.read(await self._counters(question, metadata=self._metadata))
            window.crowded = crowd.long

        await self._prepare(first=True)
        try:
            while self._working:
                while len(in_flight) >= window.size:
                    done, in_flight = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.gather(*done)
                size = len(in_flight) + 1
                self._result.window = max(self._result.window, size)
                in_flight.add(asyncio.create_task(send(size)))
                await self._prepare()
            await asyncio.gather(*in_flight)
        finally:
            await _cancel(in_flight)

    async def _prepare(self, *, first: bool = False) -> None:
        """Wait for the preparation time; at first only for a random part of it, so that workers are not in step."""
        await asyncio.sleep(self._group.preparation * (self._random.random() if first else 1.0))

    async def _send(self, number: int) -> float:
        model = number % len(self._requests)
        replica = model % len(self._stubs) if self._group.by_affinity else self._least_busy()
        self._in_flight[replica] += 1
        began = time.monotonic()
        try:
            reply = await self._stubs[replica](self._requests[model], metadata=self._metadata)
        except grpc.RpcError as error:
            raise ServerUnavailable(
                f"A simulated worker's request failed: {error.code().name}, {error.details()}"
            ) from error
        finally:
            self._in_flight[replica] -= 1
        seconds = time.monotonic() - began
        if reply.raw_output_contents[0] != self._expected:
            raise BadReply(f"{self._group.models[model]!r} returned wrong scores to a simulated worker.")
        if self._measuring:
            self._result.latencies.append(seconds)
        return seconds

    def _least_busy(self) -> int:
        return min(range(len(self._stubs)), key=lambda number: (self._in_flight[number], self._random.random()))

    def _encoded(self, model: str) -> bytes:
        request: Any = protocol.ModelInferRequest(model_name=model)
        request.inputs.add(name="x", datatype="FP32", shape=self._values.shape)
        request.outputs.add(name="score")
        return b"".join(frame_request(request.SerializeToString(), [self._values]))


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel the tasks and retrieve their exceptions."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
