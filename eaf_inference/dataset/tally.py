"""Count what the parts of a data set gave."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from eaf_inference.dataset.summary import Summary, WorkerShare

if TYPE_CHECKING:
    from eaf_inference.dataset.results import Scored
    from eaf_inference.inference.truncation import Truncation

__all__ = ["Tally"]


class Tally:
    """Counts over the parts that were returned."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shares: dict[str, WorkerShare] = {}
        self._retries = self._not_finite = 0
        self._truncations: Counter[Truncation] = Counter()
        self._seconds = 0.0
        self.parts = self.jets = 0

    def add(self, scored: Scored) -> None:
        self.parts += 1
        self.jets += scored.jets
        self._retries += scored.retries
        self._truncations.update(scored.truncations)
        self._not_finite += scored.not_finite
        self._seconds = time.monotonic() - self._started
        share = self._shares.get(scored.worker, WorkerShare(scored.worker))
        self._shares[scored.worker] = replace(
            share,
            chunks=share.chunks + 1,
            jets=share.jets + scored.jets,
            seconds=share.seconds + scored.seconds,
        )

    @property
    def seconds_a_part(self) -> float | None:
        """The time that a thread spends on a part; None before the first."""
        return sum(share.seconds for share in self._shares.values()) / self.parts if self.parts else None

    @property
    def jets_per_second(self) -> float:
        return self.jets / self._seconds if self._seconds else 0.0

    def summary(self, *, restarts: int, failed: int) -> Summary:
        return Summary(
            chunks=self.parts,
            jets=self.jets,
            seconds=self._seconds,
            restarts=restarts,
            retries=self._retries,
            truncations=dict(self._truncations),
            not_finite=self._not_finite,
            failed=failed,
            workers=tuple(self._shares[name] for name in sorted(self._shares)),
        )
