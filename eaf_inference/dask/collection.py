"""The scores of a data set as a dask-awkward array, which computes them when it is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import awkward as ak

from eaf_inference.dask.failure import part_failure
from eaf_inference.dataset.reading import Ranges
from eaf_inference.dataset.slots import Sent
from eaf_inference.dataset.task import Failed
from eaf_inference.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from distributed import Client

    from eaf_inference.dataset.parts import Part
    from eaf_inference.dataset.task import Task

__all__ = ["collection_of"]


def collection_of(client: Client, task: Task, parts: list[tuple[Part, Any]]) -> Any:
    """Return a dask-awkward array with a partition for each part; the first is scored for its type.

    Raises
    ------
    ConfigurationError
        dask-awkward is not installed.
    InferenceError
        The first part cannot be scored.
    InvalidInput
        There are no parts.
    """
    try:
        from dask_awkward.lib.io.io import from_map
    except ImportError as error:
        raise ConfigurationError("dask-awkward is missing: pip install dask-awkward.") from error
    if not parts:
        raise InvalidInput("The data set has no chunks. Expected at least one, from which the type is known.")
    scores = _Scores(task)
    first = client.submit(scores, parts[0], pure=False).result()
    meta = ak.Array(first.layout.to_typetracer(forget_length=True))
    return from_map(scores, parts, meta=meta, label=task.model.name)


@dataclass(frozen=True)
class _Scores:
    """Scores one part; a file that is too large to be read at once is scored range by range."""

    task: Task

    def __call__(self, chunk: tuple[Part, Any]) -> ak.Array:
        part, data = chunk
        outcome = self.task(part, data)
        if isinstance(outcome, Ranges):
            ranges = [replace(part, start=start, stop=stop) for start, stop in outcome.ranges]
            return ak.concatenate([self((each, None)) for each in ranges])
        if isinstance(outcome, Failed):
            raise part_failure(Sent(part, data).name, outcome.error) from outcome.error
        return ak.Array(outcome.scores)
