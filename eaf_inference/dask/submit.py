"""A data set over a Dask cluster: chunks sent as there is room, scores back in order, whatever happens to workers.

Each chunk is a task that reads and scores it, so that Dask can run it anywhere again; this side keeps a bounded
number of them under way and counts. A task carries the model, which has no secret, and the chunk.
"""

from __future__ import annotations

import os
import time
import uuid
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import dask
import distributed
import numpy as np
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker

from eaf_inference.dask.counting import WorkersCount
from eaf_inference.dask.summary import Summary, WorkerShare
from eaf_inference.dask.task import Failed, Scored, Task
from eaf_inference.errors import ConfigurationError, InferenceError, InvalidInput
from eaf_inference.inference.interrupts import Interrupts, stopping
from eaf_inference.inference.progress import Progress
from eaf_inference.inference.traffic import remarks
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from distributed import Client, Future

    from eaf_inference.inference.model import Model

__all__ = ["Submission", "submit"]

_LEAST_IN_FLIGHT = 8
_A_THREAD = (2, 16)  # chunks in flight for each thread of the cluster, at least and at most
_BUSY_FOR = 15.0  # seconds: three times what Dask's adaptive scaling wants to be done with
_TICK = 1.0  # seconds between looks at the cluster's size


def submit(
    model: Model,
    chunks: Iterable[Any],
    *,
    client: Client | None = None,
    select: Callable[[Any], Any] | None = None,
    retries: int = 2,
    in_flight: int | None = None,
    progress: bool | None = None,
) -> Submission:
    """Score a data set over a Dask cluster.

    Parameters
    ----------
    model : Model
    chunks : iterable
        Paths or URLs of parquet files, ``file.root:tree``, or arrays as the model takes them. Asked for one by
        one as there is room, so that it may be endless. Files are read on the workers, which have to see them
        under the same path.
    client : distributed.Client, optional
        By default the one that was made last.
    select : callable, optional
        From what a chunk holds to what the model takes, such as ``lambda events: events.jets.constituents``; runs on
        the workers, for files once before reading with an array that has a type and no data, to see which columns
        it needs. Without it a file has a jagged column for each of the recipe's variables, or pt, eta, phi and
        energy; or one for each input of a model without recipe.
    retries : int
        How often a chunk is begun again on whose worker the server was unavailable for the whole time budget. Lost
        workers do not count; input that does not fit is not tried again.
    in_flight : int, optional
        Chunks under way and not yet handed over. By default as many as keep the cluster, as it is at the time, busy
        for fifteen seconds, which is what an adaptive cluster grows by; 2 to 16 for each of its threads, 8 at least.
    progress : bool, optional
        Show a progress bar after a second. By default where somebody can see it.

    Returns
    -------
    Submission
        An iterator over the scores of each chunk, in order. The first chunks are on their way already.

    Raises
    ------
    ConfigurationError
        There is no client, or it is closed or asynchronous.
    InvalidInput
        `chunks` is one chunk rather than an iterable of them.
    """
    if isinstance(chunks, str | os.PathLike | Mapping | ak.Array | np.ndarray) or not isinstance(chunks, Iterable):
        raise InvalidInput(
            f"The chunks are {kind_of(chunks)}. Expected an iterable of files or arrays: [chunk], to score one."
        )
    if in_flight is not None and in_flight < 1:
        raise InvalidInput(f"in_flight is {in_flight}. Expected a positive number of chunks.")
    task = Task(model=model, select=select, topic=f"eaf-inference-{uuid.uuid4().hex}")
    return Submission(_usable(client), task, chunks, retries=retries, in_flight=in_flight, progress=progress)


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A chunk on its way."""

    number: int
    file: str
    future: Future[Any]

    def __str__(self) -> str:
        return f"Chunk {self.number} ({self.file})" if self.file else f"Chunk {self.number}"


class _Starts:
    """Which chunks workers have begun, as their events tell; a chunk that is begun twice was begun again."""

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self.again = 0

    def note(self, event: tuple[float, int]) -> None:
        """On the client's event loop."""
        _, number = event
        self.again += number in self._begun
        self._begun.add(number)

    def forget(self, number: int) -> None:
        self._begun.discard(number)


class Submission:
    """The scores of a data set's chunks, in order, while later ones are under way on a cluster.

    Made by `submit`. An iterator: the scores of a chunk come as soon as it and all before it are done, once each, and
    are not kept. Chunks are sent while it is iterated over; who stops taking scores stops the sending. `close`, the
    end of a ``with`` block, an interrupt, an error and losing the last reference give up what is under way.

    Raises
    ------
    InferenceError
        While iterating: a chunk failed for good. The message names it; the kind is that of its cause, and
        `InferenceError` itself where workers died of it or its cluster is gone.
    """

    def __init__(
        self,
        client: Client,
        task: Task,
        chunks: Iterable[Any],
        *,
        retries: int,
        in_flight: int | None,
        progress: bool | None,
    ) -> None:
        self._client = client
        self._task = task
        self._left: Iterator[tuple[int, Any]] = enumerate(chunks)
        self._retries = retries
        self._in_flight = in_flight
        self._room = in_flight or 0
        self._looked = -_TICK
        self._key = f"{task.model.name}-{uuid.uuid4().hex}"
        self._started = time.monotonic()
        self._shares: dict[str, WorkerShare] = {}
        self._chunks = self._jets = self._request_retries = 0
        self._truncated = self._leading = self._not_finite = 0
        self._seconds = 0.0
        self._starts = _Starts()
        self._interrupts = Interrupts()
        self._pending: deque[_Sent] = deque()
        self._bar = Progress(enabled=progress, label=task.model.name, unit="chunk")
        if isinstance(chunks, Sized):
            self._bar.expect(len(chunks))
        self._counting = WorkersCount(client, task.model.traffic)
        client.subscribe_topic(task.topic, self._starts.note)
        self._release = weakref.finalize(self, _release, client, task.topic, self._pending, self._bar, self._counting)
        self._release.atexit = False  # the client's own end is enough
        with stopping("Stopped while the first chunks were sent; no scores are returned."):
            try:
                self._fill()
            except BaseException:
                self.close()
                raise

    def __iter__(self) -> Submission:
        return self

    def __next__(self) -> Any:
        with stopping(self._stopped):
            return self._following()

    def _stopped(self) -> str:
        of = f" of {self._bar.total:,}" if self._bar.total is not None else ""
        return (
            f"Stopped after {self._chunks:,}{of} chunks ({self._jets:,} jets), whose scores were returned; "
            "the cluster gives up the others."
        )

    def _following(self) -> Any:
        """The next chunk's scores."""
        if not self._release.alive:
            raise StopIteration
        interrupts = self._interrupts
        try:
            interrupts.watch()
            self._fill()
            scored = self._result(self._pending[0]) if self._pending else None
            if scored is not None:
                sent = self._pending.popleft()
                sent.future.release()
                with interrupts:  # the bar's widgets must not be left half made
                    self._count(sent, scored)
            interrupts.release()
        except BaseException as error:  # an interrupt too
            interrupts.release(type(error))
            self.close()
            raise
        if scored is None:
            self.close()
            for remark in remarks(self.summary, self._task.model.name, self._task.model.longest):
                warnings.warn(remark, stacklevel=3)  # the line that asked for them
            raise StopIteration
        return scored.scores

    def __enter__(self) -> Submission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Submission of {self._task.model.name!r}: {self.summary.headline}>"

    @property
    def summary(self) -> Summary:
        """What was handed over, so far or in all."""
        return Summary(
            chunks=self._chunks,
            jets=self._jets,
            seconds=self._seconds,
            restarts=self._starts.again,
            retries=self._request_retries,
            truncated=self._truncated,
            leading=self._leading,
            not_finite=self._not_finite,
            workers=tuple(self._shares[name] for name in sorted(self._shares)),
        )

    def close(self) -> None:
        """Give up what is under way; harmless when it has ended."""
        self._left = iter(())
        self._release()

    def _fill(self) -> None:
        """Send chunks while there is room."""
        if self._in_flight is None and time.monotonic() - self._looked >= _TICK:
            least, most = _A_THREAD
            seconds = sum(share.seconds for share in self._shares.values())
            wanted = _BUSY_FOR * self._chunks / seconds if seconds else least
            self._room = max(_LEAST_IN_FLIGHT, round(_threads(self._client) * min(max(wanted, least), most)))
            self._looked = time.monotonic()
        while len(self._pending) < self._room:
            following = next(self._left, None)
            if following is None:
                break
            self._send(*following)

    def _send(self, number: int, chunk: Any) -> None:
        chunk = _absolute(os.fspath(chunk)) if isinstance(chunk, str | os.PathLike) else _packed(chunk)
        # arrays go with their task on purpose: scattered, they would be lost with the worker that holds them
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            future = self._client.submit(
                self._task, number, chunk, key=f"{self._key}-{number}", pure=False, retries=self._retries
            )
        self._pending.append(_Sent(number, chunk if isinstance(chunk, str) else "", future))

    def _result(self, sent: _Sent) -> Scored:
        """Wait for a chunk, sending others as the cluster grows."""
        future = sent.future
        while not future.done():
            with suppress(distributed.TimeoutError):
                future.exception(timeout=_TICK)  # waits; unlike distributed.wait, with the client that it belongs to
            self._interrupts.check()  # one that Python has ignored
            self._fill()
        try:
            outcome = future.result()
        except Exception as error:
            raise _given_up(sent, error) from error
        if isinstance(outcome, Failed):
            raise _given_up(sent, outcome.error) from outcome.error
        scored: Scored = outcome
        return scored

    def _count(self, sent: _Sent, scored: Scored) -> None:
        self._chunks += 1
        self._jets += scored.jets
        self._request_retries += scored.retries
        self._truncated += scored.truncated
        self._leading += scored.leading
        self._not_finite += scored.not_finite
        self._seconds = time.monotonic() - self._started
        self._starts.forget(sent.number)
        self._counting.handed_over(scored.jets)
        self._task.model.traffic.not_finite_of(scored.not_finite)
        share = self._shares.get(scored.worker, WorkerShare(scored.worker))
        self._shares[scored.worker] = replace(
            share,
            chunks=share.chunks + 1,
            jets=share.jets + scored.jets,
            seconds=share.seconds + scored.seconds,
        )
        rate = self._task.model.traffic.inferences_per_second or self._jets / self._seconds
        self._bar.say(f"{self._jets:,} jets, {rate:,.0f} jets/s")
        self._bar.update(1)


def _release(client: Client, topic: str, pending: deque[_Sent], bar: Progress, counting: WorkersCount) -> None:
    """Let the cluster forget what nobody waits for; blocks nowhere, as garbage collection may call it anywhere."""
    while pending:
        pending.popleft().future.release()  # the last reference: what has not run is cancelled
    if client.status == "running":
        client.unsubscribe_topic(topic)
    counting.stop()
    bar.close()


def _usable(client: Client | None) -> Client:
    if client is None:
        try:
            client = distributed.default_client()
        except ValueError as error:
            raise ConfigurationError(
                "There is no Dask client. Make one, such as cluster.get_client() or distributed.Client(…)."
            ) from error
    if client.asynchronous:
        raise ConfigurationError(
            "The Dask client is asynchronous. Expected one that waits: make it without asynchronous=True."
        )
    if client.status != "running":
        raise ConfigurationError(f"The Dask client is {client.status}. Make a new one.")
    return client


def _threads(client: Client) -> int:
    try:
        return sum(client.nthreads().values())
    except (OSError, ClosedClientError) as error:
        raise InferenceError(
            f"The Dask cluster does not answer: {error}. Its scheduler or client is gone."
        ) from error


def _packed(chunk: Any) -> Any:
    """Without what a slice of an awkward array drags along: all of the array."""
    if isinstance(chunk, Mapping):
        return {name: _packed(array) for name, array in chunk.items()}
    if isinstance(chunk, list | tuple):
        return [_packed(array) for array in chunk]
    return ak.to_packed(chunk) if isinstance(chunk, ak.Array) else chunk


def _absolute(path: str) -> str:
    """A local path as the workers find it, whatever directory they are in."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _given_up(sent: _Sent, error: BaseException) -> InferenceError:
    """The error that says which chunk failed, and of what."""
    if isinstance(error, InferenceError):
        named = type(error)(f"{sent} failed: {error}")
        named.reason = error.reason
        return named
    if isinstance(error, KilledWorker):
        return InferenceError(
            f"{sent} was given up, as its workers died of it, probably for lack of memory: send smaller chunks, or "
            f"give the workers more. {error}"
        )
    if isinstance(error, distributed.CancelledError):
        return InferenceError(f"{sent} was cancelled: its cluster or client is gone, or has forgotten it. {error}")
    if isinstance(error, RuntimeError) and "deserialization of the task graph" in str(error):
        cause = error.__cause__ or error
        return ConfigurationError(
            f"{sent} did not reach a worker, as the cluster's scheduler cannot read it ({type(cause).__name__}: "
            f"{cause}). Expected the eaf-inference, awkward and Python there that are here: see triton.clusters()."
        )
    if isinstance(error, ImportError):
        return ConfigurationError(
            f"{sent} failed, as its worker lacks a package: {error}. Install it on the workers."
        )
    return InferenceError(f"{sent} failed on its worker: {type(error).__name__}: {error}")
