"""Score variations of an array, such as jets with shifted energies, and send only the rows that they changed.

The first array is the nominal one. A row of a variation that is one of its rows, bit for bit after all preparation,
has that row's scores; only the others are sent. Rows are compared and not trusted to be in the same place, so that
variations may select, add and reorder rows.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eaf_inference.errors import InferenceError
from eaf_inference.inference import nesting
from eaf_inference.inference.graph_job import GraphJob, GraphOutputs
from eaf_inference.inference.interrupts import stopping
from eaf_inference.inference.named_inputs import checked, naming, varied
from eaf_inference.inference.partitions import is_lazy
from eaf_inference.inference.same_rows import KnownRows, rows_of_graphs, rows_of_inputs
from eaf_inference.inference.scatter import Scatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from numpy.typing import NDArray

    from eaf_inference.inference.marshal import Job
    from eaf_inference.inference.same_rows import Rows
    from eaf_inference.inference.traffic import Traffic

    Prepared: TypeAlias = "Job | GraphJob"

__all__ = ["VariedJob", "score_variations", "variations"]


class _Model(Protocol):
    """What variations need of a model."""

    def __call__(self, data: Any) -> Any: ...
    def map(self, chunks: Iterable[Any], *, progress: bool | None, traffic: Traffic | None) -> Iterator[Any]: ...
    def _prepare(self, data: Any) -> Prepared: ...


def score_variations(
    model: _Model,
    pairs: Iterable[tuple[str, Any]],
    *,
    progress: bool | None = None,
    traffic: Traffic | None = None,
) -> dict[str, Any]:
    """Score several inputs of which the later ones share rows with the first.

    Parameters
    ----------
    model : Model
    pairs : iterable of (str, object)
        Names and inputs, nominal first. They are taken one by one.
    progress : bool, optional
    traffic : Traffic, optional
        Counts this call alone, besides the connection's.

    Returns
    -------
    dict of str to awkward.Array, numpy.ndarray or dict
        The scores of each, in its own lists. For arrays without data, their types.

    Raises
    ------
    InvalidInput
        The pairs are not what is expected.
    InferenceError
        As the model raises it; about an input, with its name.
    """
    left = checked(pairs)
    first = next(left)
    if is_lazy(first[1]) or nesting.is_tracer(first[1]):
        return {name: model(data) for name, data in itertools.chain([first], left)}
    plan = _Plan(itertools.chain([first], left), model._prepare)  # noqa: SLF001  (nothing for users)
    with stopping("Stopped; no scores are returned."):
        scores = list(model.map(plan, progress=progress, traffic=traffic))
    return dict(zip(plan.names, scores, strict=True))


def variations(
    model: _Model, data: Any, functions: Mapping[str, Callable[[Any], Any]], *, progress: bool | None = None
) -> dict[str, Any]:
    """Score an array and variations of it; of these, only the rows that differ are sent.

    Parameters
    ----------
    data : awkward.Array, numpy.ndarray, table or mapping
        The nominal input, as `__call__` takes it.
    functions : mapping of str to callable
        For each variation's name, a function that takes the nominal input and returns the varied one. It may
        change, drop, add or reorder rows.
    progress : bool, optional

    Returns
    -------
    dict of str to awkward.Array, numpy.ndarray or dict
        The scores of ``"nominal"`` and of each variation, each in the lists of its own input. A row that is bit
        for bit a nominal one has the very scores of that.

    Raises
    ------
    InvalidInput
        A variation fails, or is not what the model takes; the message names it. Or one is called "nominal".
    InferenceError
        As `__call__` raises it.
    """
    return score_variations(model, varied(data, functions), progress=progress)


@dataclass(frozen=True, slots=True, eq=False)
class VariedJob:
    """A variation on its way: only the rows that are no nominal ones are sent.

    Attributes
    ----------
    whole : Job or GraphJob
        All of its rows.
    part : Job or GraphJob
        The rows that are sent.
    sent, known : array of int64
        The places of these, and of the others.
    places : array of int64
        The place of each of the others among the nominal rows.
    nominal : Scatter or GraphOutputs
        The outputs of the nominal rows.
    """

    whole: Prepared
    part: Prepared
    sent: NDArray[np.int64]
    known: NDArray[np.int64]
    places: NDArray[np.int64]
    nominal: Any

    @property
    def rows(self) -> int:
        return self.part.rows

    @property
    def outputs(self) -> Any:
        return self.part.outputs

    @property
    def is_whole(self) -> bool:
        return self.whole.is_whole

    @property
    def truncations(self) -> Any:
        return self.whole.truncations

    def finished(self) -> Prepared:
        """Return the job of all rows, complete; the nominal outputs must be."""
        outputs: Any = self.whole.outputs
        if len(self.known):  # otherwise their inputs may be of another kind
            outputs.take_over(self.known, self.nominal, self.places)
        outputs.take_over(self.sent, self.part.outputs, np.arange(len(self.sent)))
        return self.whole


class _Plan:
    """An iterable of the jobs of some variations; the first is the nominal one.

    Parameters
    ----------
    pairs : iterable of (str, object)
        Names and inputs, taken one by one.
    prepare : callable
        Makes a job of an input.

    Attributes
    ----------
    names : list of str
        Of the jobs so far.
    """

    def __init__(self, pairs: Iterable[tuple[str, Any]], prepare: Callable[[Any], Prepared]) -> None:
        self.names: list[str] = []
        self._pairs = pairs
        self._prepare = prepare

    def __iter__(self) -> Iterator[Prepared | VariedJob]:
        known: KnownRows | None = None
        nominal: Any = None
        for name, data in self._pairs:
            try:
                job = self._prepare(data)
            except InferenceError as error:
                raise naming(error, name) from error
            self.names.append(name)
            if known is None:
                job = _part(job) if _has_callers_memory(job) else job  # a variation may change that in place
                known, nominal = KnownRows(_rows(job)), job.outputs
                yield job
                continue
            places = known.places_of(_rows(job))
            sent, same = np.flatnonzero(places < 0), np.flatnonzero(places >= 0)
            yield VariedJob(job, _part(job, sent), sent, same, places[same], nominal)


def _rows(job: Prepared) -> Rows:
    return rows_of_graphs(job.graphs) if isinstance(job, GraphJob) else rows_of_inputs(job.inputs)


def _has_callers_memory(job: Prepared) -> bool:
    """Whether some of the prepared numbers are the caller's own, as no recipe made them."""
    if isinstance(job, GraphJob):
        return True
    own = [array for each in job.inputs.arrays for array in each.caller_values.columns]
    callers = [array for values in job.caller_values for array in values.columns]
    return any(np.may_share_memory(mine, theirs) for mine in own for theirs in callers)


def _part(job: Prepared, rows: NDArray[np.int64] | None = None) -> Prepared:
    """Return a job for copies of some rows, or of all, with outputs of its own."""
    if isinstance(job, GraphJob):
        graphs = copy.deepcopy(job.graphs) if rows is None else job.graphs.take(rows)
        return replace(job, graphs=graphs, outputs=GraphOutputs(graphs, job.outer, job.spec, job.graph))
    inputs = job.inputs.copy() if rows is None else job.inputs.take(rows)
    return replace(job, inputs=inputs, outputs=Scatter(job.spec.outputs, inputs))
