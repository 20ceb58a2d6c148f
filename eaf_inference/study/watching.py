"""What the servers did while something was measured: their own counters here, Prometheus on a facility."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eaf_inference.errors import ConfigurationError, ServerUnavailable
from eaf_inference.metrics.average import averaged
from eaf_inference.metrics.prometheus import Prometheus
from eaf_inference.metrics.sampler import Sampler, run_in_thread
from eaf_inference.study.servers import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eaf_inference.metrics.sampler import MetricsSource
    from eaf_inference.metrics.snapshot import Snapshot
    from eaf_inference.study.outcome import Site

__all__ = ["Observed", "observing", "watched"]


@dataclass(slots=True)
class Observed:
    """Of one model, by the servers: requests/s, mean seconds in the queue, and how many servers there were."""

    requests_per_second: float = 0.0
    queue: float = 0.0
    instances: int = 0


@contextmanager
def observing(site: Site, urls: Sequence[str], model: str) -> Iterator[Observed]:
    """Fills what it gives when the block ends.

    Parameters
    ----------
    site : Site
        A facility's numbers come from its Prometheus: several Tritons may stand behind one address.
    urls : sequence of str
        The Tritons, where they are this machine's.
    """
    observed = Observed()
    if site.url is None:
        addresses = [each.partition("://")[2] for each in urls]
        before, began = counted(addresses, [model]), time.monotonic()
        yield observed
        seconds, served = time.monotonic() - began, counted(addresses, [model]).since(before)
        observed.requests_per_second = served.requests / seconds
        observed.queue = served.queue / max(served.requests, 1)
        observed.instances = len(addresses)
        return
    if site.prometheus is None:
        raise ConfigurationError("Queue times need Prometheus: pass --prometheus.")
    with watched([Prometheus(site.prometheus)]) as snapshots:
        yield observed
    minute = averaged(snapshots)
    ours = [each for each in minute.models if each.name == model and each.requests_per_second is not None]
    if not ours:
        why = next((source.error for source in minute.sources if source.error), "no rates of that time")
        raise ServerUnavailable(f"{site.prometheus} has no metrics of {model!r}: {why}.")
    waits = [each.queue_ms for each in ours if each.queue_ms is not None]
    if not waits:
        raise ServerUnavailable(f"{site.prometheus} has no queue times of {model!r}.")
    observed.requests_per_second = sum(each.requests_per_second or 0.0 for each in ours)
    observed.queue = max(waits) / 1e3
    observed.instances = max(1, len(minute.instances))


@contextmanager
def watched(sources: Sequence[MetricsSource]) -> Iterator[list[Snapshot]]:
    """The snapshots while the block lasts, as the panel has them; the list grows once a second."""
    snapshots: list[Snapshot] = []
    stop = run_in_thread(Sampler(sources), snapshots.append)
    try:
        yield snapshots
    finally:
        stop()
