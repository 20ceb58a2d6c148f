"""Compare the outputs of a row in one batch with those in another. Pure functions of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eaf_inference.inference import agreement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Outputs: TypeAlias = Mapping[str, NDArray[Any]]

__all__ = ["FEWEST", "TOLERANCE", "agree", "change_of", "constant_outputs", "not_finite", "row_of"]

TOLERANCE = 1e-5  # as in the client's trial of padding
FEWEST = 8  # rows that show anything: fewer may have equal scores


def row_of(outputs: Outputs, place: int) -> Outputs:
    """Return the outputs of one row as those of a batch of one."""
    return {name: values[place : place + 1] for name, values in outputs.items()}


def agree(right: Outputs, outputs: Outputs, place: int, tolerance: float) -> bool:
    """Whether the row in this place has the outputs of a row scored alone. NaN equals only NaN."""
    return all(
        agreement.agree(values[0], outputs[name][place], _limit(values[0], tolerance))
        for name, values in right.items()
    )


def _limit(right: NDArray[Any], tolerance: float) -> agreement.Limit | None:
    """Return the difference that is allowed, relative to a score, to the largest of the row, and to 1."""
    if right.dtype.kind != "f":
        return None
    size = np.abs(right[np.isfinite(right)]).max(initial=0.0)
    return agreement.Limit(np.asarray(tolerance * max(1.0, float(size))), tolerance)


def change_of(right: Outputs, outputs: Outputs, place: int) -> float:
    """Return the largest difference from the outputs of a row scored alone, relative to the largest of them."""
    largest = 0.0
    for name, values in right.items():
        own, other = values[0], outputs[name][place]
        if own.dtype.kind == "f" and own.shape == other.shape:
            both = np.isfinite(own) & np.isfinite(other)
            scale = max(1.0, float(np.abs(own[both]).max(initial=0.0)))
            largest = max(largest, float(np.abs(own[both] - other[both]).max(initial=0.0)) / scale)
    return largest


def not_finite(outputs: Outputs) -> bool:
    """Whether any number is a NaN or an infinity."""
    return any(values.dtype.kind == "f" and not np.isfinite(values).all() for values in outputs.values())


def constant_outputs(rows: Sequence[Outputs]) -> list[str]:
    """Return the outputs that are equal in all rows, if there are enough rows to be suspicious."""
    if len(rows) < FEWEST:
        return []
    return [
        name
        for name, values in rows[0].items()
        if values.size
        and all(np.array_equal(each[name], values, equal_nan=values.dtype.kind == "f") for each in rows)
    ]
