"""A model's load on the servers during a measurement: Triton's own counters, or a facility's Prometheus."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_facility.study.server_counts import read_counts
from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.metrics.average import averaged
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.metrics.totals import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eaf_facility.study.outcome import Site
    from eaf_inference.metrics.sampler import MetricsSource
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["ServerLoad", "recorded_snapshots", "server_load"]


@dataclass(slots=True)
class ServerLoad:
    """A model's load: requests/s, mean seconds in the queue, and the number of Tritons."""

    requests_per_second: float = 0.0
    queue: float = 0.0
    replicas: int = 0


@contextmanager
def server_load(site: Site, urls: Sequence[str], model: str) -> Iterator[ServerLoad]:
    """Yield a `ServerLoad` that is filled in when the `with` block ends.

    Parameters
    ----------
    site : Site
        A facility is measured through its Prometheus, because several Tritons may be behind one address.
    urls : sequence of str
        The Tritons, if they are on this machine.
    """
    load = ServerLoad()
    if site.url is None:
        addresses = [each.partition("://")[2] for each in urls]
        before, began = read_counts(addresses, [model]), time.monotonic()
        yield load
        seconds, served = time.monotonic() - began, read_counts(addresses, [model]).since(before)
        load.requests_per_second = served.requests / seconds
        load.queue = served.mean_queue
        load.replicas = len(addresses)
        return
    if site.prometheus is None:
        raise ConfigurationError("Queue times need Prometheus: pass --prometheus.")
    with recorded_snapshots([Prometheus(site.prometheus)]) as snapshots:
        yield load
    average = averaged(snapshots)
    ours = [each for each in average.models if each.name == model and each.requests_per_second is not None]
    if not ours:
        why = next((source.error for source in average.sources if source.error), "no rates of that time")
        raise ServerUnavailable(f"{site.prometheus} has no metrics of {model!r}: {why}.")
    queue_ms = weighted_mean((each.queue_ms, each.requests_per_second) for each in ours)
    if queue_ms is None:
        raise ServerUnavailable(f"{site.prometheus} has no queue times of {model!r}.")
    load.requests_per_second = sum(each.requests_per_second or 0.0 for each in ours)
    load.queue = queue_ms / 1e3
    load.replicas = max(1, sum(each.up for each in average.instances))


@contextmanager
def recorded_snapshots(sources: Sequence[MetricsSource]) -> Iterator[list[Snapshot]]:
    """Record metrics for the length of a `with` block: yield a list that gets a snapshot each second."""
    snapshots: list[Snapshot] = []
    stop = run_in_thread(Sampler(sources), snapshots.append)
    try:
        yield snapshots
    finally:
        stop()
