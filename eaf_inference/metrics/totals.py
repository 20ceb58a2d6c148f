"""Sums and means that skip what is not reported, and the figures of a service as a whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["inference_rate", "mean", "mean_queue_ms", "ratio", "request_rate", "total", "weighted_mean"]


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum of the values that are reported, or None if none is."""
    reported = [value for value in values if value is not None]
    return math.fsum(reported) if reported else None


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are reported, or None if none is."""
    reported = [value for value in values if value is not None]
    return math.fsum(reported) / len(reported) if reported else None


def weighted_mean(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Return the mean of (value, weight) pairs; a pair without value or weight does not count."""
    both = [(value, weight) for value, weight in pairs if value is not None and weight]
    whole = math.fsum(weight for _, weight in both)
    return math.fsum(value * weight for value, weight in both) / whole if whole > 0 else None


def ratio(rows: Iterable[Mapping[str, float]], above: str, below: str) -> float | None:
    """Return Σ above / Σ below over the rows that have both, or None if Σ below is 0."""
    both = [(row[above], row[below]) for row in rows if above in row and below in row]
    counted = math.fsum(row[1] for row in both)
    return math.fsum(row[0] for row in both) / counted if counted > 0 else None


def inference_rate(snapshot: Snapshot) -> float | None:
    """Return the inferences per second of all models."""
    return total(model.inferences_per_second for model in snapshot.models)


def request_rate(snapshot: Snapshot) -> float | None:
    """Return the requests per second of all models."""
    return total(model.requests_per_second for model in snapshot.models)


def mean_queue_ms(snapshot: Snapshot) -> float | None:
    """Return the milliseconds that a mean request of any model waits in the queue."""
    return weighted_mean((model.queue_ms, model.requests_per_second) for model in snapshot.models)
