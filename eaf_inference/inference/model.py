"""One model of one connection: arrays in, scores out.

Puts the four parts together: the recipe and the layout make flat inputs, batching cuts them, the pipeline sends
them, and the replies are scattered back to the user's lists.
"""

from __future__ import annotations

import functools
import warnings
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference._text import printable
from eaf_inference.errors import BadReply, InferenceError, InvalidInput
from eaf_inference.inference import layout
from eaf_inference.inference.batching import DenseInput, Given, Job, RaggedInput
from eaf_inference.inference.conversion import cast
from eaf_inference.inference.features import FEATURES, KINEMATICS, compute
from eaf_inference.inference.interrupts import stopping
from eaf_inference.inference.padding import PaddingCheck
from eaf_inference.inference.pipeline import Pipeline
from eaf_inference.inference.progress import progress_bar
from eaf_inference.inference.request import Inference
from eaf_inference.inference.traffic import Retrying, Traffic, remarks
from eaf_inference.inference.truncation import PT, hardest, pt_of
from eaf_inference.inference.wrong_input import kind_of, lacking
from eaf_inference.tables import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from eaf_inference.connection import Connection
    from eaf_inference.inference.batching import Batch
    from eaf_inference.inference.layout import Outer
    from eaf_inference.inference.padding import Finding, Key
    from eaf_inference.inference.recipe import Recipe
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["Model"]

CELL_BUDGET = 64 * 128  # rows × padded length of a batch; measured on CPU, larger ones suit a GPU


class Model:
    """A model on the server, called like a function of arrays.

    Made by `Connection.model`. Pickles without connection or credentials: where it arrives it finds that
    machine's own on first use. What was found about its padding travels with it, and is shared by all its copies
    in a process. dask-awkward's ``map_partitions(model, jets)`` builds its graph without asking the server.

    Attributes
    ----------
    spec : ModelSpec
        Inputs, outputs, recipe and class labels.
    """

    def __init__(self, connection: Connection, spec: ModelSpec, *, cell_budget: int = CELL_BUDGET) -> None:
        if cell_budget < 1:
            raise InvalidInput(f"cell_budget is {cell_budget}. Expected a positive number of rows × length.")
        self._connection = connection
        self._cell_budget = cell_budget
        self._padding = connection.paddings.setdefault(spec, PaddingCheck(spec))
        self.spec = spec

    def __getstate__(self) -> tuple[Connection, ModelSpec, int, Mapping[Key, Finding]]:
        return self._connection, self.spec, self._cell_budget, self._padding.found

    def __setstate__(self, state: tuple[Connection, ModelSpec, int, Mapping[Key, Finding]]) -> None:
        connection, spec, cell_budget, found = state
        Model.__init__(self, connection, spec, cell_budget=cell_budget)
        self._padding.adopt(found)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def __name__(self) -> str:
        """The model's: tasks that call it show it as they show a function's."""
        return self.name

    @property
    def where(self) -> str:
        """The server's URL, or that there is none yet."""
        return self._connection.where

    @property
    def traffic(self) -> Traffic:
        """That of its connection."""
        return self._connection.traffic

    @property
    def note(self) -> str:
        """What was found about its padding, or could not be found about the model, where that is worth saying."""
        why = self.spec.unread
        unread = (
            f"its recipe and class labels are not known, because the server does not tell them: {why}" if why else ""
        )
        return "; ".join(part for part in (unread, self._padding.note) if part)

    @property
    def longest(self) -> int | None:
        """The most constituents that it takes; None where there is no limit."""
        return self._padding.maximum

    def __repr__(self) -> str:
        version = f" version {self.spec.version}" if self.spec.version else ""
        taken = "records of " + ", ".join(self.spec.recipe.required) if self.spec.recipe else ""
        lines = [
            f"<Model {self.name!r}{version} on {self.where}",
            f"  takes {taken or '; '.join(map(str, self.spec.inputs))}",
            f"  gives {'; '.join(map(self.describe_output, self.spec.outputs))}",
        ]
        if self.spec.left_out:
            lines.append(f"  leaves out {'; '.join(self.spec.left_out)}")
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(map(printable, lines)) + ">"

    def _repr_html_(self) -> str:
        from eaf_inference.notebook.display import model_html

        return model_html(self)

    def describe_output(self, tensor: TensorSpec) -> str:
        """An output with its classes, in words."""
        labels = self.spec.labels.get(tensor.name)
        return f"{tensor} ({', '.join(labels)})" if labels else str(tensor)

    def __call__(self, data: Any, *, progress: bool | None = None) -> Any:
        """Scores of all rows.

        Parameters
        ----------
        data : awkward.Array, numpy.ndarray or mapping
            With a recipe: records ``… × jets × constituents`` with the recipe's variables, or with pt, eta, phi
            and energy, of which the JetClass variables are computed. Without, or to bypass it:
            ``{input name: array}``; the array alone where there is one input.
        progress : bool, optional
            Show a progress bar after a second. By default where somebody can see it.

        Returns
        -------
        awkward.Array, or numpy.ndarray or dict of them where all inputs were numpy arrays
            Of the same outer nesting. One output alone gives its values, several a record of them; an output
            with labels is a record with a field for each class.

        Raises
        ------
        InvalidInput
            The arrays are not what the model takes.
        ServerUnavailable, NotAuthorized, ModelNotFound, ModelNotReady, BadReply
            The server did not give scores.
        """
        if layout.is_tracer(data):  # a graph is being built: only the type of the scores is asked for
            job, _ = self._prepare(data, Traffic())
            return ak.Array(ak.to_layout(self._result(job, as_numpy=False)).to_typetracer(forget_length=True))
        with stopping("Stopped; no scores are returned."):
            (scores,) = self.map([data], progress=progress)
        return scores

    def map(
        self, chunks: Iterable[Any], *, progress: bool | None = None, traffic: Traffic | None = None
    ) -> Iterator[Any]:
        """Scores of each chunk, in order, while later ones are under way.

        Parameters
        ----------
        chunks : iterable
            Each as `__call__` takes it; asked for one by one, so that memory holds a few of them only.
        progress : bool, optional
        traffic : Traffic, optional
            Counts this call alone; the connection's counts it too.

        Yields
        ------
        awkward.Array or numpy.ndarray
            As `__call__` gives it.
        """
        traffic = traffic or Traffic()
        traffic.part_of(self._connection.traffic)
        try:
            yield from self._stream(chunks, progress, traffic)
        except GeneratorExit:  # the caller has enough, and is to know what she has
            self._remark(traffic)
            raise
        self._remark(traffic)

    def _remark(self, traffic: Traffic) -> None:
        for remark in remarks(traffic, self.name, self.longest):
            warnings.warn(remark, stacklevel=4)  # the line that called the model

    def _stream(self, chunks: Iterable[Any], progress: bool | None, traffic: Traffic) -> Iterator[Any]:  # noqa: FBT001
        """Scores of each chunk, while later ones are under way."""
        jobs: deque[tuple[Job, bool]] = deque()
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

        with (
            stopping(stopped),
            Pipeline[Inference](
                self._connection.servers_of(self), self._connection.limits, traffic, waiting=waiting
            ) as pipeline,
            progress_bar(enabled=progress, label=self.name, rate=lambda: whole.inferences_per_second) as bar,
        ):
            trial = functools.partial(self._try, waiting=waiting)

            def receive() -> None:
                request, reply = pipeline.next_reply()
                request.batch.job.collect(request.batch, request.outputs(reply))
                with pipeline.interrupts:  # the bar's widgets must not be left half made
                    bar.update(request.batch.size)

            def finished() -> Iterator[Any]:
                nonlocal returned
                while jobs and jobs[0][0].complete:
                    job, as_numpy = jobs.popleft()
                    traffic.not_finite_of(job.unexplained())
                    scores = self._result(job, as_numpy)
                    pipeline.interrupts.release()
                    returned += 1
                    yield scores
                    pipeline.interrupts.watch()

            for chunk in chunks:
                job, as_numpy = self._prepare(chunk, traffic)
                jobs.append((job, as_numpy))
                if isinstance(chunks, list) and len(chunks) == 1:  # of more, only the last one tells the total
                    bar.expect(job.rows)
                    total = job.rows
                lengths = self._padding.lengths(job, trial)
                for batch in job.batches(lengths, self._cell_budget):
                    while not pipeline.has_room:
                        receive()
                        yield from finished()
                    pipeline.submit(Inference(self.spec, batch))
                yield from finished()
            while pipeline.busy:
                receive()
                yield from finished()

    def _try(
        self, batches: Sequence[Batch], waiting: Callable[[Retrying | None], None]
    ) -> list[dict[str, NDArray[Any]] | InferenceError]:
        """The outputs of each batch, or the error with which the model refuses it: the padding check's."""
        servers, limits = self._connection.servers_of(self), self._connection.limits
        outcomes: list[dict[str, NDArray[Any]] | InferenceError] = []
        while len(outcomes) < len(batches):
            # the first alone: a token that is refused is not sent with all
            several = limits.max_in_flight if outcomes else 1
            with ExitStack() as stack:
                pipelines = []
                for batch in batches[len(outcomes) : len(outcomes) + several]:  # one each: a refusal ends no other's
                    pipelines.append(stack.enter_context(Pipeline[Inference](servers, limits, waiting=waiting)))
                    pipelines[-1].submit(Inference(self.spec, batch))
                for pipeline in pipelines:
                    try:
                        request, reply = pipeline.next_reply()
                        outcomes.append(request.outputs(reply))
                    except (InvalidInput, BadReply) as error:
                        outcomes.append(error)
        return outcomes

    def columns(self, present: Collection[str]) -> tuple[str, ...]:
        """What it reads of a record array or file that has these columns; nothing else is touched.

        With a recipe its variables, or the kinematics of which the missing ones are computed, and the pt by which
        constituents are kept; without one, its inputs. Where columns are missing, those that are expected.
        """
        if self.spec.recipe is None:
            return tuple(spec.name for spec in self.spec.inputs if spec.name in present or not spec.optional)
        orders = [names for names in PT if all(name in present for name in names)] if self.longest is not None else []
        return tuple(dict.fromkeys((*self._variables(self.spec.recipe, present), *(orders[0] if orders else ()))))

    @staticmethod
    def _variables(recipe: Recipe, present: Collection[str]) -> tuple[str, ...]:
        """Those that are computed from, of records with these fields, or those that are expected."""
        held = [name for name in recipe.variables if name in present]
        missing = [name for name in recipe.required if name not in present]
        if missing and all(name in FEATURES for name in missing) and all(name in present for name in KINEMATICS):
            return tuple(dict.fromkeys((*held, *KINEMATICS)))
        return tuple(dict.fromkeys((*recipe.required, *held)))

    def _prepare(self, data: Any, traffic: Traffic) -> tuple[Job, bool]:
        """The job of one chunk, and whether its scores go back as numpy arrays."""
        if self.spec.recipe is not None and not isinstance(data, Mapping):
            return self._by_recipe(data, traffic), False
        if self.spec.unread and isinstance(data, ak.Array) and data.fields:
            raise InvalidInput(
                f"{self.name!r} was called with records, and its recipe for them is not known, because the server "
                f"does not tell it ({self.spec.unread}). Pass the recipe, triton.model({self.name!r}, "
                "preprocess=FILE); or the inputs as the model takes them, {input name: array} with "
                f"{'; '.join(map(str, self.spec.inputs))}."
            )
        values = self._by_name(data)
        inputs, outer = self._as_given(values)
        job = Job(inputs=inputs, outputs=self.spec.outputs, outer=outer, max_batch_size=self.spec.max_batch_size)
        return job, all(isinstance(value, np.ndarray) for value in values.values())

    def _by_recipe(self, records: Any, traffic: Traffic) -> Job:
        recipe = self.spec.recipe
        assert recipe is not None  # noqa: S101  (the caller has looked)
        present = records.fields if isinstance(records, ak.Array) else ()
        names = self._variables(recipe, present)
        if not set(names) <= set(present):
            missing = [name for name in recipe.required if name not in present]
            computed = missing if all(name in FEATURES for name in missing) else []
            sources = KINEMATICS if computed else ()
            raise lacking(records, recipe.required, f"The input of {self.name!r}", sources=sources, computed=computed)
        fields, nested = layout.flatten_fields(records, names, what=f"The input of {self.name!r}")
        given = Given(tuple(fields.values()), nested.counts)
        derived = [name for name in recipe.required if name not in fields]
        if derived:
            fields |= compute(fields, nested, derived)
        channels = recipe.apply(fields, int(nested.counts.sum()))
        starts, counts, kept = nested.starts, nested.counts, None
        most = self.longest
        long = 0 if most is None else int(np.count_nonzero(counts > most))
        if most is not None and (long or layout.is_tracer(records)):  # a graph has to know that pt is read
            pt = pt_of(records, fields, nested)
            traffic.cut(long, leading=pt is None)
            counts = np.minimum(counts, most)
            if pt is not None:
                kept = hardest(pt, nested.counts, most)
                starts = np.cumsum(counts) - counts
        inputs = []
        shared: dict[int, NDArray[np.float32]] = {}  # what several inputs have in common stays one array
        for spec in self.spec.inputs:
            if spec.name in channels:
                columns = []
                for values, _ in channels[spec.name]:
                    if kept is not None and id(values) not in shared:
                        shared[id(values)] = values[kept]
                    columns.append(self._as_declared(shared.get(id(values), values), spec))
                pads = [pad for _, pad in channels[spec.name]]
                inputs.append(RaggedInput(spec, columns, pads, starts, counts))
        return Job(
            inputs=inputs,
            outputs=self.spec.outputs,
            outer=nested.outer,
            max_batch_size=self.spec.max_batch_size,
            given=[given],
        )

    def _as_declared(self, values: NDArray[np.float32], spec: TensorSpec) -> NDArray[Any]:
        """Normalised values in the input's own float type, which may be narrower."""
        try:
            with np.errstate(over="raise"):
                return values.astype(spec.dtype, copy=False)
        except FloatingPointError:
            raise InvalidInput(
                f"The recipe of {self.name!r} gives values beyond the range of {spec.datatype} for input "
                f"{spec.name!r}. Expected bounds in the recipe that keep them inside: tell the model's owner."
            ) from None

    def _by_name(self, data: Any) -> dict[str, Any]:
        """The arrays by input name, all there and none unknown."""
        if not isinstance(data, Mapping):
            if len(self.spec.inputs) != 1:
                raise InvalidInput(
                    f"{self.name!r} takes {len(self.spec.inputs)} inputs and got {kind_of(data)}. Expected "
                    f"{{input name: array}} with {'; '.join(map(str, self.spec.inputs))}.{_by_field(data, self.spec)}"
                )
            data = {self.spec.inputs[0].name: data}
        names = [spec.name for spec in self.spec.inputs]
        for given in data:
            if given not in names:
                raise InvalidInput(
                    f"{self.name!r} has no input {given!r}.{did_you_mean(given, names)} "
                    f"Expected {'; '.join(map(str, self.spec.inputs))}."
                )
        absent = [spec for spec in self.spec.inputs if spec.name not in data and not spec.optional]
        if absent:
            raise InvalidInput(f"{self.name!r} lacks an array for {'; '.join(map(str, absent))}.")
        return {name: _as_array(data[name], name) for name in names if name in data}

    def _as_given(self, values: Mapping[str, Any]) -> tuple[list[RaggedInput | DenseInput], Outer]:
        inputs: list[RaggedInput | DenseInput] = []
        first: tuple[str, Outer] | None = None
        for spec in self.spec.inputs:
            if spec.name not in values:
                continue
            value = values[spec.name]
            jagged = not isinstance(value, np.ndarray) and spec.shape.count(-1) == 1
            if jagged:
                columns, nested = layout.columns_of(value, spec)
                outer = nested.outer
                columns = [cast(column, spec) for column in columns]
                inputs.append(RaggedInput(spec, columns, [0.0] * len(columns), nested.starts, nested.counts))
            else:
                rows, outer = layout.dense_of(value, spec, batched=self.spec.max_batch_size > 0)
                inputs.append(DenseInput(spec, cast(rows, spec)))
            if first is None:
                first = spec.name, outer
            elif not first[1].same_as(outer):
                raise InvalidInput(
                    f"The inputs of {self.name!r} do not belong to the same rows: {first[0]!r} has {first[1].rows} "
                    f"and {spec.name!r} has {outer.rows}, or their outer lists differ. Expected the same events × "
                    "jets in all."
                )
        if first is None:
            raise InvalidInput(f"{self.name!r} got no array at all.")
        return inputs, first[1]

    def _result(self, job: Job, as_numpy: bool) -> Any:  # noqa: FBT001  (private)
        if as_numpy:
            arrays = {spec.name: job.dense(spec.name) for spec in self.spec.outputs}
            around = () if job.outer.length is None else (job.outer.length, *job.outer.levels)
            shaped = {name: array.reshape((*around, *array.shape[1:])) for name, array in arrays.items()}
            return shaped if len(shaped) > 1 else next(iter(shaped.values()))
        contents = {spec.name: self._labelled(spec.name, job.nested(spec.name)) for spec in self.spec.outputs}
        if len(contents) > 1:
            rows = ak.contents.RecordArray(list(contents.values()), list(contents), length=job.rows)
        else:
            rows = next(iter(contents.values()))
        array = ak.Array(layout.wrap(rows, job.outer))
        return array[0] if job.outer.length is None else array

    def _labelled(self, name: str, content: ak.contents.Content) -> ak.contents.Content:
        """The content, with the classes of its last axis as fields."""
        labels = self.spec.labels.get(name)
        if labels is None:
            return content
        values = ak.Array(content)
        classes = [ak.to_layout(values[..., position]) for position in range(len(labels))]
        return ak.contents.RecordArray(classes, list(labels), length=len(content))


def _by_field(data: Any, spec: ModelSpec) -> str:
    """How to pass records whose fields are a model's inputs."""
    names = [tensor.name for tensor in spec.inputs if not tensor.optional]
    if not isinstance(data, ak.Array) or not set(names) <= set(data.fields):
        return ""
    return f" Pass the fields: {{{', '.join(f'{name!r}: records[{name!r}]' for name in names)}}}."


def _as_array(value: Any, name: str) -> Any:
    """numpy or awkward, or a list of awkward channels."""
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInput(f"Input {name!r} is a masked array. Expected no missing values: fill them with .filled().")
    if isinstance(value, ak.Array | np.ndarray):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(part, ak.Array) for part in value):
        return value
    if hasattr(value, "__array__"):
        return np.asarray(value)
    raise InvalidInput(
        f"Input {name!r} is {kind_of(value)}. Expected a numpy or awkward array, or a list of awkward channels."
    )
