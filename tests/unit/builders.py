"""Builders for unit tests: nested arrays, specifications, inputs, and a model that is a function."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
from hypothesis import strategies as st

from eaf_inference.inference.batching import batches
from eaf_inference.inference.inputs import DenseInput, Inputs, RaggedInput
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.scatter import Scatter
from eaf_inference.inference.spec import TensorSpec
from eaf_inference.inference.tuning import fixed_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from eaf_inference.inference.batching import Batch

numbers = st.lists(st.floats(-100, 100, width=32), max_size=6)


def nested_lists(depth: int) -> st.SearchStrategy[list[Any]]:
    """Draw Python lists `depth` levels above lists of numbers."""
    strategy: st.SearchStrategy[list[Any]] = numbers
    for _ in range(depth):
        strategy = st.lists(strategy, max_size=4)
    return strategy


def jagged(data: list[Any], depth: int, dtype: str = "float32") -> ak.Array:
    """Make lists `depth` levels above lists of numbers, of the right type even if they are empty."""
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
    """Return the values as an awkward array of regular lists, even if some sizes are 0."""
    content = ak.contents.NumpyArray(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        around = int(np.prod(values.shape[:axis]))
        content = ak.contents.RegularArray(content, values.shape[axis], zeros_length=around)
    return ak.Array(content)


def tensor(name: str, *shape: int, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def ragged(spec: TensorSpec, rows: Sequence[Sequence[float]], *, channels: int = 1, pad: float = 0.0) -> RaggedInput:
    """Make an input in which channel c holds each row's values plus 1000·c."""
    counts = np.array([len(row) for row in rows], np.int64)
    flat = np.array([value for row in rows for value in row], spec.dtype)
    columns = [(flat + np.asarray(1000 * channel, spec.dtype)).astype(spec.dtype) for channel in range(channels)]
    return RaggedInput(spec, columns, [pad] * channels, np.cumsum(counts) - counts, counts)


@dataclass
class Rows:
    """Some rows: their inputs, and the outputs that come back for them."""

    inputs: Inputs
    outputs: Scatter


def rows_of(
    arrays: Sequence[RaggedInput | DenseInput], outputs: Sequence[TensorSpec], *, max_batch_size: int = 64
) -> Rows:
    first = arrays[0]
    number = len(first.counts) if isinstance(first, RaggedInput) else len(first.rows)
    inputs = Inputs(arrays, rows=number, max_batch_size=max_batch_size)
    return Rows(inputs, Scatter(outputs, inputs))


def cut(rows: Rows, lengths: Lengths, cell_budget: int) -> list[Batch]:
    """Cut the rows into batches, under one rule for all collections."""
    return list(batches(rows.inputs, [lengths] * len(rows.inputs.collections), fixed_sizes(cell_budget)))


def run(
    rows: Rows,
    model: Callable[[Batch], Mapping[str, np.ndarray[Any, Any]]],
    *,
    lengths: Lengths | None = None,
    cell_budget: int = 256,
    backwards: bool = False,
) -> list[Batch]:
    """Let `model`, a function of a batch's tensors, answer every batch, in order or backwards."""
    sent = cut(rows, lengths or Lengths(), cell_budget)
    for batch in reversed(sent) if backwards else sent:
        rows.outputs.put(batch, model(batch))
    return sent


def variable(**info: float | None) -> dict[str, float | None]:
    return {"median": 0.0, "norm_factor": 1.0, **info}


def recipe_text(inputs: Mapping[str, Mapping[str, Any]], **lengths: int) -> str:
    """Return the text of a ``preprocess.json``: input name -> variable name -> its numbers."""
    described = {
        name: {"var_names": list(infos), "var_infos": dict(infos), **lengths} for name, infos in inputs.items()
    }
    return json.dumps({"input_names": list(inputs), "output_names": ["scores"], **described})
