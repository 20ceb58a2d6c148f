"""A model of a connection: arrays in, scores out.

An array passes through four modules: `marshal` prepares flat inputs, `batching` cuts them into batches, the
`pipeline` sends these, and `scatter` puts the replies back in the places of their rows.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import awkward as ak

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import nesting
from eaf_inference.inference.batching import batches
from eaf_inference.inference.caller import warn_caller
from eaf_inference.inference.checks import Checks
from eaf_inference.inference.description import as_html, as_text
from eaf_inference.inference.graph_job import GraphJob, prepare_graphs
from eaf_inference.inference.interrupts import stopping
from eaf_inference.inference.marshal import Job, columns, prepare
from eaf_inference.inference.named_inputs import NamedInputs
from eaf_inference.inference.partitions import is_lazy, over_partitions
from eaf_inference.inference.pipeline import Pipeline
from eaf_inference.inference.progress import progress_bar
from eaf_inference.inference.reloads import fingerprint_of, unchanged
from eaf_inference.inference.request import same_version
from eaf_inference.inference.scoring import Feedback, Scoring, try_batches
from eaf_inference.inference.stop import stopped_with
from eaf_inference.inference.traffic import Retrying, Traffic, remarks
from eaf_inference.inference.tuning import Tuning, fixed_sizes
from eaf_inference.inference.variations import VariedJob, score_variations, variations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from contextlib import AbstractContextManager

    from eaf_inference.inference.fingerprint import Fingerprint
    from eaf_inference.inference.padding import Finding, Key
    from eaf_inference.inference.pipeline import Limits
    from eaf_inference.inference.request import Sendable
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel
    from eaf_inference.inference.tuning import Learned
    from eaf_inference.inference.union_check import UnionFinding

    _Found: TypeAlias = "tuple[Mapping[Key, Finding], UnionFinding, Learned]"
    _State: TypeAlias = "tuple[ModelConnection, ModelSpec, int | None, str, _Found]"

__all__ = ["Model"]

_LOOK_EVERY = 0.5  # seconds: ipykernel 7.4 sees an interrupted await only when the event loop has something to do


class ModelConnection(Protocol):
    """What a model needs from its connection.

    Attributes
    ----------
    limits : Limits
    traffic : Traffic
    checks : dict of ModelSpec to Checks
    tunings : dict of ModelSpec to Tuning
        Shared by all copies of a model in this process.
    """

    limits: Limits
    traffic: Traffic
    checks: dict[ModelSpec, Checks]
    tunings: dict[ModelSpec, Tuning]

    @property
    def where(self) -> str:
        """The server's URL, or a remark that there is none yet."""

    def channels_of(self, model: Model) -> list[Channel]:
        """Return the replicas that serve a model."""


class Model:
    """A model on the server, called like a function of arrays.

    Made by `Connection.model`. A pickled model holds no connection or credentials; on another machine it uses that
    machine's own. Findings about its padding travel with it, and all its copies in a process share them.
    dask-awkward's ``map_partitions(model, jets)`` builds its graph without asking the server.

    Attributes
    ----------
    spec : ModelSpec
        Inputs, outputs, recipe and class labels.
    """

    def __init__(
        self, connection: ModelConnection, spec: ModelSpec, *, cell_budget: int | None = None, since: str = ""
    ) -> None:
        if cell_budget is not None and cell_budget < 1:
            raise InvalidInput(f"cell_budget is {cell_budget}. Expected a positive number of rows × length.")
        self._connection = connection
        self._cell_budget = cell_budget
        self._checks = Checks.shared(connection.checks, spec, since)
        self._tuning = connection.tunings.setdefault(spec, Tuning())
        self.spec = spec
        self._version = spec.version
        self._warned = False  # that arrays are sent whole

    def __getstate__(self) -> _State:
        checks = self._checks
        found = checks.padding.found, checks.unions.found, self._tuning.learned
        return self._connection, self.spec, self._cell_budget, checks.since, found

    def __setstate__(self, state: _State) -> None:
        connection, spec, cell_budget, since, (of_padding, of_unions, learned) = state
        Model.__init__(self, connection, spec, cell_budget=cell_budget, since=since)
        self._checks.padding.adopt(of_padding)
        self._checks.unions.adopt(of_unions)
        self._tuning.adopt(learned)

    @property
    def tuning(self) -> Tuning:
        """What is known about the sizes of its requests, and what bounds them; it prints as a table."""
        return self._tuning if self._cell_budget is None else self._tuning.with_budget(self._cell_budget)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def __name__(self) -> str:
        """The model's name: Dask shows it for tasks that call the model."""
        return self.name

    @property
    def where(self) -> str:
        """The server's URL, or a remark that there is none yet."""
        return self._connection.where

    @property
    def traffic(self) -> Traffic:
        """The traffic of its connection."""
        return self._connection.traffic

    @property
    def note(self) -> str:
        """What the user should know: findings about padding, and what the server does not show; mostly empty."""
        why = self.spec.unread
        unread = f"its recipe and class labels are unknown, as the server does not show them: {why}" if why else ""
        parts = (unread, self.spec.unused, self._whole, self._checks.padding.note, self._checks.unions.note)
        return "; ".join(part for part in parts if part)

    @property
    def _whole(self) -> str:
        """Why an array is one request, and how it is split; empty if it is split."""
        if not self.spec.may_have_batch_axis:
            return ""
        return (
            "each array is sent whole, as one request, because no batch axis is declared; if the first axis of every "
            f"input and output counts rows, write triton.model({self.name!r}, batch_axis=0)"
        )

    def __repr__(self) -> str:
        return as_text(self.spec, self.where, self.note)

    def _repr_html_(self) -> str:
        return as_html(self.spec, self.where, self.note)

    def __call__(self, data: Any, *, progress: bool | None = None) -> Any:
        """Score all rows.

        Parameters
        ----------
        data : awkward.Array, dask_awkward.Array, numpy.ndarray, table or mapping
            With a recipe: records ``… × jets × constituents`` with the recipe's variables, or with a complete set
            of coordinates, such as pt, eta, phi and mass, from which `eaf_inference.features` computes them. Without
            a recipe, or to bypass it: ``{input name: array}``, or the array alone if there is one input. A pandas,
            polars or pyarrow table, whose columns are matched with the model's features by name.
        progress : bool, optional
            Show a progress bar after a second; by default only in a notebook or a terminal.

        Returns
        -------
        awkward.Array, or numpy.ndarray or dict of them if all inputs were numpy arrays
            With the same outer nesting. A single output gives its values, several give a record of them; an output
            with labels is a record with one field per class. A dask_awkward.Array gives one too, without asking the
            server until it is computed.

        Raises
        ------
        InvalidInput
            The arrays are not what the model takes.
        ServerUnavailable, NotAuthorized, ModelNotFound, ModelNotReady, BadReply
            The server did not give scores.
        """
        if is_lazy(data):
            return over_partitions(self, data)
        if isinstance(data, NamedInputs | Iterator):  # of a `select` that yields several
            return score_variations(self, data, progress=progress)
        if nesting.is_tracer(data):  # dask-awkward builds a graph and needs only the type of the scores
            result = self._prepare(data).result()
            return ak.Array(ak.to_layout(result).to_typetracer(forget_length=True))
        with stopping("Stopped; no scores are returned."):
            (scores,) = self.map([data], progress=progress)
        return scores

    variations = variations

    def fingerprint(self) -> Fingerprint:
        """Send a few fixed rows to every replica, and return what decides the model's scores.

        Returns
        -------
        Fingerprint
            Keep it beside the scores: ``fingerprint.matches(other)`` tells whether two are of the same model.

        Raises
        ------
        ModelChanged
            The replicas serve different models, or the configuration changed since the model was looked up.
        InferenceError
            No replica answers.
        """
        with stopping("Stopped while the model's fingerprint was taken."):
            return fingerprint_of(self._connection.channels_of(self), self._connection.limits, self.spec)

    def unchanged(self, expected: Fingerprint, *, since_latest: bool = False) -> AbstractContextManager[None]:
        """Return a context that raises `ModelChanged` unless each replica serves the expected model before and after.

        It costs a few small requests at both ends; with `since_latest` the end of the one before counts as the start.
        A replica that answers before and not after is a `ServerUnavailable`: it may have given scores of another one.
        """
        channels, limits = self._connection.channels_of(self), self._connection.limits
        return unchanged(channels, limits, self.spec, expected, since_latest=since_latest)

    async def async_call(self, data: Any) -> Any:
        """Score all rows while the event loop does other work; `asyncio.gather` runs several calls at once.

        A thread makes the call. If the task is cancelled, it sends nothing more and drops the replies that are still
        to come.

        Parameters
        ----------
        data : awkward.Array, numpy.ndarray or mapping
            As `__call__` takes it.

        Returns
        -------
        awkward.Array, numpy.ndarray or dict
            As `__call__` returns it.

        Raises
        ------
        InferenceError
            As `__call__` raises it.
        """
        with stopped_with():
            call = asyncio.ensure_future(asyncio.to_thread(self, data, progress=False))
            try:
                while not call.done():
                    await asyncio.wait({call}, timeout=_LOOK_EVERY)
            finally:
                call.cancel()  # if no thread has begun it
            return call.result()

    def map(
        self, chunks: Iterable[Any], *, progress: bool | None = None, traffic: Traffic | None = None
    ) -> Iterator[Any]:
        """Score chunks in order, while later ones are in flight.

        Parameters
        ----------
        chunks : iterable
            Each as `__call__` takes it. They are taken one by one, so that memory holds only a few.
        progress : bool, optional
        traffic : Traffic, optional
            Counts this call alone, besides the connection's. With it, no warning is given of what it counts.

        Yields
        ------
        awkward.Array or numpy.ndarray
            As `__call__` returns it.
        """
        counted = traffic or Traffic()
        counted.part_of(self._connection.traffic)
        try:
            yield from self._stream(chunks, progress, counted)
        except GeneratorExit:  # the caller stops early, and still gets the remarks
            self._remark(counted if traffic is None else None)
            raise
        self._remark(counted if traffic is None else None)

    def _remark(self, traffic: Traffic | None) -> None:
        for remark in remarks(traffic, self.name) if traffic else ():
            warn_caller(remark)

    def _stream(self, chunks: Iterable[Any], progress: bool | None, traffic: Traffic) -> Iterator[Any]:  # noqa: FBT001
        """Score chunks while later ones are in flight."""
        jobs: deque[Job | GraphJob | VariedJob] = deque()
        whole = self._connection.traffic
        total: int | None = None
        returned = 0

        def waiting(retrying: Retrying | None) -> None:
            traffic.retries_until(retrying)
            if retrying is None:
                bar.say("")
            else:
                bar.say_now(str(retrying))

        def stopped() -> str:
            if not traffic.inferences:
                return "Stopped before the first jets were scored; no scores are returned."
            jets = f"{traffic.inferences:,} of {total:,} jets" if total else f"{traffic.inferences:,} jets"
            if not returned:
                return f"Stopped after {jets}; no scores are returned."
            return f"Stopped after {jets}; the scores of {returned:,} chunks were returned."

        with ExitStack() as stack:
            stack.enter_context(stopping(stopped))
            channels = self._connection.channels_of(self)
            limits = self._connection.limits  # known once it is open
            pipeline = stack.enter_context(Pipeline[Scoring](channels, limits, traffic, waiting=waiting))
            bar = stack.enter_context(
                progress_bar(enabled=progress, label=self.name, rate=lambda: whole.inferences_per_second)
            )
            trial = functools.partial(try_batches, channels, limits, self.spec, waiting=waiting)
            tuning = self._tuning
            shape = tuning.shape if self._cell_budget is None else fixed_sizes(self._cell_budget)
            look = functools.partial(tuning.crowd.ask, channels[0], self.spec, limits.request_timeout)
            feedback = Feedback(pipeline, tuning, self.spec, look)

            def receive(*, full: bool) -> None:
                request, reply = pipeline.next_reply()
                self._version = same_version(self.name, self._version, reply)  # known only now if none was requested
                feedback.replied(request.batch, full=full)
                request.outputs.put(request.batch, request.read(reply))
                with pipeline.interrupts:  # an interrupt would leave the bar's widgets half made
                    bar.update(request.batch.size)

            def finished() -> Iterator[Any]:
                nonlocal returned
                while jobs and jobs[0].outputs.complete:
                    job = jobs.popleft()
                    job = job.finished() if isinstance(job, VariedJob) else job
                    traffic.not_finite_of(job.unexplained())
                    scores = job.result()
                    pipeline.interrupts.release()
                    returned += 1
                    yield scores
                    feedback.pause()  # the caller's own work is no part of it
                    pipeline.interrupts.watch()

            for chunk in chunks:
                job = chunk if isinstance(chunk, Job | GraphJob | VariedJob) else self._prepare(chunk)
                jobs.append(job)
                if job.is_whole and self._whole and not self._warned:
                    self._warned = True
                    warn_caller(f"Model {self.name!r}: {self._whole}.")
                for truncation, rows in job.truncations:
                    traffic.cut(truncation, rows)
                if isinstance(chunks, list) and len(chunks) == 1:  # with more chunks the total is unknown
                    bar.expect(job.rows)
                    total = job.rows
                sent = job.part if isinstance(job, VariedJob) else job
                parts: Iterator[Sendable]
                if isinstance(sent, GraphJob):
                    together = self._checks.unions.together(sent.graphs, sent.graph, trial)
                    parts = sent.batches(shape, together=together)
                else:
                    padding = self._checks.padding.padding(sent.inputs, trial)
                    sent.outputs.follow(padding.followers)
                    parts = batches(sent.inputs, padding.lengths, shape)
                for batch in parts:
                    while not pipeline.has_room:
                        receive(full=True)
                        yield from finished()
                    pipeline.submit(Scoring(self.spec, batch, sent.outputs, tuning))
                yield from finished()
            while pipeline.busy:
                receive(full=False)
                yield from finished()
        tuning.call_ended()

    def _prepare(self, data: Any) -> Job | GraphJob:
        """Check a caller's arrays, and flatten them."""
        if is_lazy(data):
            raise InvalidInput(
                "A chunk is a dask-awkward array. Expected arrays with data: call the model with it, model(array)."
            )
        if self.spec.graph is not None:
            return prepare_graphs(data, self.spec, self.spec.graph)
        return prepare(data, self.spec)

    def columns(self, present: Collection[str]) -> tuple[str, ...]:
        """Return the columns that the model reads, of a record array or file with these columns."""
        return self.spec.graph.inputs if self.spec.graph else columns(self.spec, present)
