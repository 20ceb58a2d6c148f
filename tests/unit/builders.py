"""What several unit tests build: arrays in lists, specifications, jobs and a model that is a function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
from hypothesis import strategies as st

from eaf_inference.inference.batching import DenseInput, Job, RaggedInput
from eaf_inference.inference.layout import Outer
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.spec import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from eaf_inference.inference.batching import Batch

numbers = st.lists(st.floats(-100, 100, width=32), max_size=6)


def nested_lists(depth: int) -> st.SearchStrategy[list[Any]]:
    """Python lists `depth` levels above lists of numbers."""
    strategy: st.SearchStrategy[list[Any]] = numbers
    for _ in range(depth):
        strategy = st.lists(strategy, max_size=4)
    return strategy


def jagged(data: list[Any], depth: int, dtype: str = "float32") -> ak.Array:
    """An awkward array of lists `depth` levels above lists of numbers, whose type is right even where it is empty."""
    counts, level = [], [data]
    for _ in range(depth + 1):
        level = [inner for outer in level for inner in outer]
        if len(counts) < depth:
            counts.append([len(inner) for inner in level])
    content = ak.contents.NumpyArray(np.array(level, dtype))
    for sizes in reversed(counts):
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        content = ak.contents.ListOffsetArray(ak.index.Index64(offsets), content)
    return ak.Array(content)


def regular(values: np.ndarray[Any, Any]) -> ak.Array:
    """The same as an awkward array of regular lists, whatever sizes are 0."""
    content = ak.contents.NumpyArray(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        around = int(np.prod(values.shape[:axis]))
        content = ak.contents.RegularArray(content, values.shape[axis], zeros_length=around)
    return ak.Array(content)


def tensor(name: str, *shape: int, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def ragged(spec: TensorSpec, rows: Sequence[Sequence[float]], *, channels: int = 1, pad: float = 0.0) -> RaggedInput:
    """An input whose channel c of row r holds the row's values plus 1000·c."""
    counts = np.array([len(row) for row in rows], np.int64)
    flat = np.array([value for row in rows for value in row], spec.dtype)
    columns = [(flat + np.asarray(1000 * channel, spec.dtype)).astype(spec.dtype) for channel in range(channels)]
    return RaggedInput(spec, columns, [pad] * channels, np.cumsum(counts) - counts, counts)


def job_of(
    inputs: Sequence[RaggedInput | DenseInput], outputs: Sequence[TensorSpec], *, max_batch_size: int = 64
) -> Job:
    first = inputs[0]
    rows = len(first.counts) if isinstance(first, RaggedInput) else len(first.rows)
    return Job(inputs=inputs, outputs=outputs, outer=Outer(rows), max_batch_size=max_batch_size)


def cut(job: Job, lengths: Lengths, cell_budget: int) -> list[Batch]:
    """The job's batches under one rule for all its collections."""
    return list(job.batches([lengths] * len(job.collections), cell_budget))


def run(
    job: Job,
    model: Callable[[Batch], Mapping[str, np.ndarray[Any, Any]]],
    *,
    lengths: Lengths | None = None,
    cell_budget: int = 256,
    backwards: bool = False,
) -> list[Batch]:
    """Let `model`, a function of a batch's tensors, answer every batch; replies may come in any order."""
    batches = cut(job, lengths or Lengths(), cell_budget)
    for batch in reversed(batches) if backwards else batches:
        job.collect(batch, model(batch))
    return batches


def variable(**info: float | None) -> dict[str, float | None]:
    return {"median": 0.0, "norm_factor": 1.0, **info}


def recipe_text(inputs: Mapping[str, Mapping[str, Any]], **lengths: int) -> str:
    """The text of a ``preprocess.json``: input name -> variable name -> its numbers."""
    described = {
        name: {"var_names": list(infos), "var_infos": dict(infos), **lengths} for name, infos in inputs.items()
    }
    return json.dumps({"input_names": list(inputs), "output_names": ["scores"], **described})
