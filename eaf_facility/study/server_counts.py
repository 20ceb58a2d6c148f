"""Triton's counters of requests, rows and queue time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eaf_inference.inference import protocol
from eaf_inference.inference.direct import ask_triton
from eaf_inference.inference.pipeline import Question

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ServerCounts", "read_counts"]


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """Counters of some models: requests by model and server, and rows and queue seconds in total."""

    requests_by_server: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: float = 0.0
    queue: float = 0.0

    @property
    def requests(self) -> int:
        return self.requests_by_server.total()

    @property
    def mean_queue(self) -> float:
        """Mean seconds in the queue; 0 without requests."""
        return self.queue / max(self.requests, 1)

    @property
    def servers(self) -> int:
        """Number of servers that received any request."""
        return len({server for _, server in self.requests_by_server})

    @property
    def locality(self) -> float:
        """Fraction of requests served by the server that served most requests for their model."""
        most: Counter[str] = Counter()
        for (model, _), requests in self.requests_by_server.items():
            most[model] = max(most[model], requests)
        return most.total() / max(self.requests, 1)

    def since(self, before: ServerCounts) -> ServerCounts:
        """Return the counts since an earlier reading."""
        return ServerCounts(
            self.requests_by_server - before.requests_by_server, self.rows - before.rows, self.queue - before.queue
        )


def read_counts(addresses: Sequence[str], models: Sequence[str]) -> ServerCounts:
    """Read what these Tritons have counted for the models since they started."""
    question = Question("ModelStatistics", protocol.ModelStatisticsRequest())
    requests: Counter[tuple[str, str]] = Counter()
    rows = queue = 0.0
    for address in addresses:
        [statistics] = ask_triton(f"grpc://{address}", question)
        for each in statistics.model_stats:
            if each.name in models:
                requests[each.name, address] += each.inference_stats.success.count
                rows += each.inference_count
                queue += each.inference_stats.queue.ns / 1e9
    return ServerCounts(requests, rows, queue)
