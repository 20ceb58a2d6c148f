"""The metrics while something is measured, read as the panel reads them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from eaf_inference.metrics.sampler import Sampler, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eaf_inference.metrics.sampler import MetricsSource
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["watched"]


@contextmanager
def watched(sources: Sequence[MetricsSource]) -> Iterator[list[Snapshot]]:
    """The snapshots while the block lasts; the list grows once a second."""
    snapshots: list[Snapshot] = []
    stop = run_in_thread(Sampler(sources), snapshots.append)
    try:
        yield snapshots
    finally:
        stop()
