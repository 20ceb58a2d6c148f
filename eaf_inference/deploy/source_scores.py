"""Compare an ONNX model's scores of rows with those of the network or estimator from which it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from eaf_inference.deploy.agreement import agree, change_of
from eaf_inference.deploy.exported import short
from eaf_inference.deploy.findings import ERROR, WARNING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from eaf_inference.deploy.agreement import Outputs
    from eaf_inference.deploy.exported import Reference
    from eaf_inference.inference.request import Sendable

__all__ = ["SourceComparison", "compared_with_source", "severity_of"]

_CLOSE = 1e-4  # the order of sums differs between libraries
_FEW = 0.2  # of the rows: where two neighbours are equally near, rounding decides


@dataclass(slots=True)
class SourceComparison:
    """How the scores of rows differ.

    Attributes
    ----------
    changes : dict of int to float
        The largest difference by row, relative to the largest score; 0 if it is rounding, inf for other
        shapes or whole numbers, or for NaN in one.
    failed : int
        Rows for which the user's own model fails.
    why : str
        How it fails.
    """

    changes: dict[int, float] = field(default_factory=dict)
    failed: int = 0
    why: str = ""


def compared_with_source(
    reference: Reference, sent: Mapping[int, Sendable], scores: Mapping[int, Outputs], *, batched: bool
) -> SourceComparison:
    """Compare the scores of rows.

    Parameters
    ----------
    reference : callable
        See `Export`.
    sent : mapping of int to Batch
        Each row alone, as the ONNX model takes it.
    scores : mapping of int to outputs
        What the ONNX model gives for it.
    batched : bool
        The first axis of the arrays counts rows.
    """
    found = SourceComparison()
    alike: dict[object, list[int]] = {}
    for row, batch in sent.items():
        alike.setdefault(tuple(each.shape for each in batch.tensors) if batched else row, []).append(row)
    for rows in alike.values():
        first = sent[rows[0]]
        columns = zip(*(sent[row].tensors for row in rows), strict=True)
        arrays = {name: np.concatenate(values) for name, values in zip(first.names, columns, strict=True)}
        copies = len(first.tensors[0]) if batched else 1  # of a row, where the model takes a fixed number
        try:
            values = reference(arrays)
        except Exception as error:  # noqa: BLE001  (a network may raise anything)
            found.failed, found.why = found.failed + len(rows), short(error)
            continue
        for place, row in enumerate(rows):
            own = {name: _flat(value[place * copies] if batched else value) for name, value in values.items()}
            own = {name: value for name, value in own.items() if name in scores[row]}
            other = {name: _flat(scores[row][name][0]) for name in own}
            equal = agree(own, other, 0, _CLOSE)
            found.changes[row] = 0.0 if equal else change_of(own, other, 0) or np.inf
    return found


def severity_of(wrong: int, rows: int) -> Literal["error", "warning"]:
    """Return how bad it is that this number of rows differs."""
    return ERROR if wrong > _FEW * rows else WARNING


def _flat(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).reshape(1, -1)
