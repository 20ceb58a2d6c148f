"""What a user had of the facility, for herself: asked of its Prometheus, and kept for some seconds.

However many panels look, Prometheus is asked once a user and length of time in these seconds, and little at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._redact import redact
from eaf_inference.errors import InferenceError
from eaf_inference.metrics.http import fetching
from eaf_inference.metrics.targets import prometheus_of
from eaf_inference.metrics.usage import seconds_of, usage_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.config import Facility
    from eaf_inference.metrics.usage import Usage

__all__ = ["FRESH", "LENGTHS", "Answer", "OwnUsage"]

LENGTHS = ("1h", "1d", "1w", "4w")  # of time, over which is told: each is an answer that is kept
FRESH = 15  # seconds for which an answer is kept, also that there is none

_WITHIN = 8.0  # seconds, less than that
_AT_ONCE = 4  # questions to Prometheus
_MOST_ANSWERS = 10_000
_MOST_MODELS = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus said.

    Attributes
    ----------
    at : float
        When, in seconds since the epoch.
    rows : tuple of Usage
        One a model.
    problem : str or None
        Why there is no answer, in a sentence for the user.
    """

    at: float
    rows: tuple[Usage, ...] = ()
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the user: the models with the most inferences; names of users have no place in it."""
        busiest = sorted(self.rows, key=lambda row: row.rows, reverse=True)[:_MOST_MODELS]
        return {"at": self.at, "models": [_described(row) for row in busiest]}


class OwnUsage:
    """Asks, one user at a time.

    Parameters
    ----------
    facility : Facility
        Names the Prometheus, and which Envoys are meant.
    clock : callable
        Seconds, from whenever.

    Raises
    ------
    ConfigurationError
        The facility names none, or it cannot be used.
    """

    def __init__(self, facility: Facility, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._prometheus = prometheus_of(facility, usage=True)
        self._matchers = tuple(facility.prometheus_door_matchers)
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._asked: OrderedDict[tuple[str, str], tuple[float, asyncio.Task[Answer]]] = OrderedDict()
        self._silent = False

    async def of(self, user: str, since: str) -> Answer:
        """What this user had in the last of `LENGTHS`, as it was some seconds ago at most."""
        key, now = (user, since), self._clock()
        begun, task = self._asked.pop(key, (float("-inf"), None))
        if task is None or (task.done() and now - begun >= FRESH):
            begun, task = now, asyncio.get_running_loop().create_task(self._ask(user, since))
        self._asked[key] = begun, task
        if len(self._asked) > _MOST_ANSWERS:
            self._asked.popitem(last=False)
        return await asyncio.shield(task)

    async def _ask(self, user: str, since: str) -> Answer:
        try:
            rows = await asyncio.wait_for(self._rows(user, since), _WITHIN)
        except asyncio.TimeoutError:
            return self._silence(f"no answer within {_WITHIN:.0f} s")
        except InferenceError as error:
            return self._silence(error.reason or redact(str(error)))
        self._silent = False
        return Answer(time.time(), rows)

    async def _rows(self, user: str, since: str) -> tuple[Usage, ...]:
        async with self._turns, fetching() as fetch:
            return await usage_of(
                user, since=seconds_of(since), prometheus=self._prometheus, fetch=fetch, matchers=self._matchers
            )

    def _silence(self, why: str) -> Answer:
        if not self._silent:  # once, and not for each user
            log.warning("usage cannot be told: %s: %s", self._prometheus.name, why)
        self._silent = True
        return Answer(time.time(), problem=f"The facility's Prometheus cannot be read: {why.rstrip('.')}.")


def _described(row: Usage) -> dict[str, Any]:
    return {
        "model": row.model,
        "requests": row.requests,
        "inferences": row.rows,
        "failures": row.failures,
        "bytes_in": row.bytes_in,
        "bytes_out": row.bytes_out,
        "estimated": row.estimated,
    }
