"""Each user's own usage, and all users' usage of her models, read from Prometheus and cached for a few seconds.

Of the others who used her models, a user learns how many they are and how much they asked for, but no names.

However many panels are open, Prometheus gets one query per user and period in that time, and few at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._redact import redact
from eaf_inference.deploy.names import escaped
from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.metrics.http import make_fetch
from eaf_inference.metrics.reading import clip
from eaf_inference.metrics.targets import prometheus_of
from eaf_inference.metrics.usage import seconds_of, usage_of
from eaf_inference.metrics.usage_by_owner import of_owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.config import Facility
    from eaf_inference.metrics.usage import Usage
    from eaf_inference.metrics.usage_by_owner import OwnedUsage

__all__ = ["FRESH", "PERIODS", "Answer", "OwnUsage"]

PERIODS = ("1h", "1d", "1w", "4w")  # few, because an answer is cached for each
FRESH = 15  # seconds for which an answer is cached, failures included

_TIMEOUT = 8.0  # seconds, less than `FRESH`
_CONCURRENT = 4  # queries to Prometheus
_MAX_ANSWERS = 10_000
_MAX_MODELS = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """Prometheus' answer.

    Attributes
    ----------
    at : float
        Time of the answer, in seconds since the epoch.
    rows : tuple of Usage
        One row per model.
    owned : tuple of OwnedUsage
        One row per model that this user deployed, for all users.
    problem : str or None
        Why there is no answer, as a sentence for the user.
    """

    at: float
    rows: tuple[Usage, ...] = ()
    owned: tuple[OwnedUsage, ...] = ()
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the reply to the user, without user names: the models with the most inferences."""
        busiest = sorted(self.rows, key=lambda row: row.rows, reverse=True)[:_MAX_MODELS]
        owned = [
            {
                "model": row.model,
                "users": row.users,
                "requests": row.requests,
                "inferences": row.rows,
                "failures": row.failures,
                "estimated": row.estimated,
            }
            for row in self.owned[:_MAX_MODELS]
        ]
        return {"at": self.at, "models": [_described(row) for row in busiest], "owned": owned}


class OwnUsage:
    """Answers queries about one user's usage.

    Parameters
    ----------
    facility : Facility
        Names the Prometheus and selects the Envoys. With a model store, users have models of their own.
    clock : callable
        Returns seconds from any starting point.

    Raises
    ------
    ConfigurationError
        The facility names no Prometheus, or one that cannot be used.
    """

    def __init__(self, facility: Facility, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._prometheus = prometheus_of(facility, usage=True)
        self._matchers = tuple(facility.prometheus_envoy_matchers)
        self._users_deploy = bool(facility.model_store)
        self._clock = clock
        self._turns = asyncio.Semaphore(_CONCURRENT)
        self._asked: OrderedDict[tuple[str, str], tuple[float, asyncio.Task[Answer]]] = OrderedDict()
        self._silent = False

    async def of(self, user: str, since: str) -> Answer:
        """Return this user's usage in one of `PERIODS`, at most `FRESH` seconds old."""
        key, now = (user, since), self._clock()
        started, task = self._asked.pop(key, (float("-inf"), None))
        if task is None or (task.done() and now - started >= FRESH):
            started, task = now, asyncio.get_running_loop().create_task(self._ask(user, since))
        self._asked[key] = started, task
        if len(self._asked) > _MAX_ANSWERS:
            self._asked.popitem(last=False)
        return await asyncio.shield(task)

    async def _ask(self, user: str, since: str) -> Answer:
        owner = self._owner(user)
        try:
            rows = await asyncio.wait_for(self._rows(user, since, owner), _TIMEOUT)
        except asyncio.TimeoutError:
            return self._silence(f"no answer within {_TIMEOUT:.0f} s")
        except InferenceError as error:
            return self._silence(error.reason or redact(str(error)))
        self._silent = False
        own = tuple(row for row in rows if row.user == clip(user))
        return Answer(time.time(), own, of_owner(rows, owner) if owner else ())

    def _owner(self, user: str) -> str | None:
        """Return the owner in the names of the user's models; None if she can have none."""
        try:
            return escaped(user) if self._users_deploy else None
        except ConfigurationError:
            return None

    async def _rows(self, user: str, since: str, owner: str | None) -> tuple[Usage, ...]:
        async with self._turns:
            return await usage_of(
                user,
                since=seconds_of(since),
                prometheus=self._prometheus,
                fetch=make_fetch(),
                matchers=self._matchers,
                owner=owner,
            )

    def _silence(self, why: str) -> Answer:
        if not self._silent:  # one warning for all users
            log.warning("usage is unavailable: %s: %s", self._prometheus.name, why)
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
