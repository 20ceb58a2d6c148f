"""Score the parts of a data set on a Dask cluster.

Each part is one task, so that Dask can run it again on any worker. A task carries the part and the model, which
contains no secret.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import dask
import distributed
from distributed.client import ClosedClientError

from eaf_inference.dask.collection import collection_of
from eaf_inference.dask.counting import WorkersCount
from eaf_inference.dask.failure import part_failure
from eaf_inference.dataset.place import MEMORY_SHARE, identity
from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Future

    from eaf_inference.dataset.parts import Part
    from eaf_inference.dataset.results import Scored
    from eaf_inference.dataset.task import Task
    from eaf_inference.inference.traffic import Traffic

__all__ = ["Cluster"]

_UNKNOWN = 256 << 20  # bytes of a part before the first worker is there: an eighth of a worker of 2 GiB


@dataclass(frozen=True, slots=True)
class _OnWorker:
    """The task with a notice of its start, from which restarts are counted."""

    task: Task
    topic: str

    def __call__(self, part: Part, data: Any) -> Any:
        worker = distributed.get_worker()
        worker.log_event(self.topic, identity(part))
        return self.task(part, data, worker=str(worker.name))


class _Starts:
    """Counts restarts from the events that workers send when they start a part."""

    def __init__(self) -> None:
        self._started: set[tuple[Any, ...]] = set()
        self.restarts = 0

    def note(self, event: tuple[float, Any]) -> None:
        """Count an event; runs on the client's event loop."""
        part = tuple(event[1])
        self.restarts += part in self._started
        self._started.add(part)


class Cluster:
    """The workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client or None
        None for the client that was created last.
    traffic : Traffic
        The counters of the model's connection.

    Raises
    ------
    ConfigurationError
        There is no client, or it is closed or asynchronous.
    """

    def __init__(self, client: Client | None, traffic: Traffic) -> None:
        self._client = _usable(client)
        self._traffic = traffic
        self._topic = f"eaf-inference-{uuid.uuid4().hex}"
        self._starts = _Starts()
        self._client.subscribe_topic(self._topic, self._starts.note)
        self._counting = WorkersCount(self._client, traffic)

    def again(self) -> Cluster:
        return Cluster(self._client, self._traffic)

    @property
    def restarts(self) -> int:
        return self._starts.restarts

    def threads(self) -> int:
        return sum(self._asked(self._client.nthreads).values())

    def most_bytes(self) -> int | None:
        workers = self._asked(lambda: self._client.scheduler_info(n_workers=-1))["workers"].values()
        if not workers:
            return _UNKNOWN
        limits = [worker["memory_limit"] / worker["nthreads"] for worker in workers if worker["memory_limit"]]
        return int(min(limits) * MEMORY_SHARE) if limits else None

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            if self._client.status in ("closing", "closed"):
                raise ClosedClientError("the client is closed")  # noqa: TRY301
            return question()
        except (OSError, ClosedClientError) as error:
            raise InferenceError(
                f"The Dask cluster does not answer: {error}. Its scheduler or client is gone: make a "
                "new client, and start the run again."
            ) from error

    def send(
        self, task: Task, part: Part, data: Any, *, key: str, avoid: str, done: Callable[[], object]
    ) -> Future[Any]:
        others = {}
        if avoid:
            workers = self._asked(lambda: self._client.scheduler_info(n_workers=-1))["workers"]
            names = [address for address, worker in workers.items() if str(worker["name"]) != avoid]
            others = {"workers": names, "allow_other_workers": True} if names else {}
        # arrays travel inside their task: scattered, they would be lost with the worker that holds them
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            future: Future[Any] = self._asked(
                lambda: self._client.submit(
                    _OnWorker(task, self._topic), part, _packed(data), key=key, pure=False, **others
                )
            )
        future.add_done_callback(lambda _: done())
        return future

    def release(self, future: Any) -> None:
        future.release()  # the last reference, so Dask cancels a task that has not run

    def failure(self, name: str, error: BaseException) -> InferenceError:
        return part_failure(name, error)

    def returned(self, scored: Scored) -> None:
        self._counting.returned(scored.jets)
        self._traffic.not_finite_of(scored.not_finite)

    def collection(self, task: Task, parts: list[tuple[Part, Any]]) -> Any:
        return collection_of(self._client, task, parts)

    def close(self) -> None:
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._topic)
        self._counting.stop()


def _usable(client: Client | None) -> Client:
    if client is None:
        try:
            client = distributed.default_client()
        except ValueError as error:
            raise ConfigurationError(
                "There is no Dask client. Create one with cluster.get_client() or distributed.Client(…), or pass "
                "client=concurrent.futures.ThreadPoolExecutor(4) to score in this process."
            ) from error
    if not isinstance(client, distributed.Client):
        raise ConfigurationError(
            f"client is {kind_of(client)}. Expected a distributed.Client, as cluster.get_client() returns it, or a "
            "pool of concurrent.futures."
        )
    if client.asynchronous:
        raise ConfigurationError(
            "The Dask client is asynchronous. Expected a client that was created without asynchronous=True."
        )
    if client.status != "running":
        raise ConfigurationError(f"The Dask client is {client.status}. Create a new one.")
    return client


def _packed(data: Any) -> Any:
    """Pack awkward arrays, because a slice would be sent with the whole array that it came from."""
    if isinstance(data, Mapping):
        return {name: _packed(array) for name, array in data.items()}
    if isinstance(data, list | tuple):
        return [_packed(array) for array in data]
    return ak.to_packed(data) if isinstance(data, ak.Array) else data
