"""Begin a run over a data set: find its files, and cut them into what is scored together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eaf_inference.dataset.fileset import files_of
from eaf_inference.dataset.slots import group_of
from eaf_inference.dataset.submission import Submission
from eaf_inference.dataset.task import Task
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.caller import warn_caller
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.dataset.options import Options
    from eaf_inference.dataset.place import Place
    from eaf_inference.inference.model import Model

__all__ = ["begin", "task_at"]


def begin(
    place: Callable[[], Place],
    model: Model,
    chunks: Any,
    options: Options,
    *,
    select: Callable[[Any], Any] | None = None,
    schema: Any = None,
) -> Submission:
    """Score a data set; see `eaf_inference.dask.submit.submit`.

    Parameters
    ----------
    place : callable
        Returns where to score it, once the arguments have been checked.
    """
    found: Any = files_of(chunks)
    expected = None
    if isinstance(chunks, Mapping | Sequence):
        found = list(found)
        expected = len(found)
    groups = (group_of(number, each) for number, each in enumerate(found))
    where = place()
    try:
        task = task_at(where, model, select=select, schema=schema)
    except BaseException:
        where.close()
        raise
    return Submission(where, task, groups, options, expected=expected)


def task_at(place: Place, model: Model, *, select: Callable[[Any], Any] | None, schema: Any) -> Task:
    """Return what is done for each part there.

    Raises
    ------
    InvalidInput
        `select` is no function.
    """
    if select is not None and not callable(select):
        raise InvalidInput(
            f"select is {kind_of(select)}. Expected a function that converts what a file holds to the model's input."
        )
    fingerprint = model.fingerprint()
    if fingerprint.probe is None:
        warn_caller(
            f"Model {model.name!r}: other weights in mid-run would not be noticed, because {fingerprint.remark}. "
            "Another version or configuration would be."
        )
    return Task(model=model, select=select, fingerprint=fingerprint, schema=schema, most_bytes=place.most_bytes())
