"""Make rows of other lengths, and batches of the same rows beside others, from a user's example.

Pure functions of arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.inference.batching import Batch
from eaf_inference.inference.inputs import RaggedInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.inputs import Inputs

__all__ = ["beside", "first", "resized", "same_lengths"]


def same_lengths(inputs: Inputs) -> NDArray[np.int64]:
    """Return the largest group of rows of equal lengths in every collection."""
    if not inputs.collections:
        return np.arange(inputs.rows)
    counts = np.stack([each.counts for each in inputs.collections])
    _, groups, sizes = np.unique(counts, axis=1, return_inverse=True, return_counts=True)
    return np.flatnonzero(groups.reshape(-1) == sizes.argmax())


def first(rows: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return this many of the rows, some of them several times if there are too few."""
    return np.resize(rows, number)


def resized(inputs: Inputs, lengths: Sequence[int | None]) -> Inputs:
    """Make one row with these lengths, of the constituents of the longest row.

    Parameters
    ----------
    inputs : Inputs
        At least one row.
    lengths : sequence of int or None
        One for each collection; None keeps the row's own length.
    """
    totals = sum((each.counts for each in inputs.collections), np.zeros(inputs.rows, np.int64))
    row = inputs.take(np.array([int(totals.argmax())]))
    wanted = {
        each.spec.name: length
        for length, collection in zip(lengths, row.collections, strict=True)
        for each in collection.inputs
    }
    made: list[Any] = []
    counts: dict[int, NDArray[np.int64]] = {}
    for each in row.arrays:
        length = wanted.get(each.spec.name)
        if not isinstance(each, RaggedInput) or length is None:
            made.append(each)
            continue
        own = int(each.counts[0])
        number = length if own else 0
        at = np.arange(number) % max(own, 1)
        counts.setdefault(number, np.array([number]))
        columns = [column[at] for column in each.columns]
        made.append(RaggedInput(each.spec, columns, each.pads, np.array([0]), counts[number], each.axis))
    return row.replaced(made, 1)


def beside(batch: Batch, others: Batch, kept: NDArray[np.bool_]) -> Batch:
    """Return the batch with the values of others in the places that are not kept; both have the same shapes."""
    kept = np.append(kept, np.zeros(len(batch.tensors[0]) - len(kept), np.bool_))  # copies that fill the batch
    tensors = [
        np.where(kept.reshape(-1, *(1 for _ in own.shape[1:])), own, other)
        for own, other in zip(batch.tensors, others.tensors, strict=True)
    ]
    tensors = [np.ascontiguousarray(each, own.dtype) for each, own in zip(tensors, batch.tensors, strict=True)]
    return Batch(batch.inputs, batch.rows, batch.size, tensors, batch.lengths)
