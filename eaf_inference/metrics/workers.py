"""The user's Dask workers: sums over what each reports with its heartbeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["REPORT", "WorkerSums", "Workers", "sums_of"]

# The key of our report among a worker's metrics: the worker plugin's name. The plugin cannot import it from here,
# because it is sent to workers as source code.
REPORT = "eaf_inference"


@dataclass(frozen=True, slots=True)
class WorkerSums:
    """The workers of one cluster; a value that no worker reports is None.

    Attributes
    ----------
    workers : int
    configured : int or None
        Workers that are connected to Triton.
    inferences_per_second : float or None
    oldest_token : float or None
        Seconds since the oldest of their tokens was issued.
    """

    workers: int
    configured: int | None
    inferences_per_second: float | None
    oldest_token: float | None


def sums_of(workers: Iterable[Mapping[str, Any]]) -> WorkerSums:
    """Sum the reports of a cluster's workers, which are given as its scheduler's identity lists them."""
    metrics = [worker["metrics"].get(REPORT) for worker in workers]
    reports = [report for report in metrics if report]
    rates = [report["inferences_per_second"] for report in reports if report.get("inferences_per_second") is not None]
    ages = [report["token_age"] for report in reports if report.get("token_age") is not None]
    return WorkerSums(
        workers=len(metrics),
        configured=sum(report.get("state") == "connected" for report in reports) if reports or not metrics else None,
        inferences_per_second=sum(rates) if rates else None,
        oldest_token=max(ages, default=None),
    )


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of all of a user's clusters.

    Attributes
    ----------
    count : int
        Workers that are connected to Triton.
    inferences_per_second : float
        Of all of them together.
    """

    count: int
    inferences_per_second: float

    @classmethod
    def of(cls, clusters: Iterable[Mapping[str, Any]]) -> Workers | None:
        """Add up the clusters that report a rate; None if no worker does."""
        rows = [row for row in clusters if row["inferences_per_second"] is not None]
        count = sum(row["configured"] or 0 for row in rows)
        return cls(count, sum(row["inferences_per_second"] for row in rows)) if count else None
