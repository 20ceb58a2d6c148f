"""What each user asked of each model: Prometheus' record of the counters that the door (`envoy`) keeps.

The numbers are exact as long as no counter began anew in the time asked for: the last value less the one at its
beginning, or less nothing where the door has been watched since it started. (`increase` would guess what was before
the first look and after the last.) Where an Envoy was restarted meanwhile, a second question finds what its counters
had come to; such a row says that it is `estimated`, because what happened between Prometheus' last look at an Envoy
and that Envoy's end is counted nowhere.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError
from eaf_inference.metrics.http import fetching
from eaf_inference.metrics.prometheus import selector, series_of
from eaf_inference.metrics.reading import clip
from eaf_inference.metrics.targets import prometheus_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from eaf_inference.config import Facility
    from eaf_inference.metrics.http import Fetch
    from eaf_inference.metrics.prometheus import Prometheus

__all__ = [
    "Usage",
    "ask_usage",
    "earlier_lives",
    "growth_in",
    "rows_of",
    "seconds_of",
    "usage_expression",
    "usage_of",
]

# Envoy's counter → our field. What it counts and when is said in `eaf_inference.envoy.accounting`.
COUNTERS = {
    "envoy_eaf_requests": "requests",
    "envoy_eaf_rows": "rows",
    "envoy_eaf_bytes_in": "bytes_in",
    "envoy_eaf_bytes_out": "bytes_out",
    "envoy_eaf_failures": "failures",
}
_UPTIME = "envoy_server_uptime"
_YOUNG = 60  # seconds: an Envoy first seen at this age has been watched since it started
_LOOK_BACK = 300  # seconds for which Prometheus takes a value as the present one
_GONE = 900  # seconds for which an Envoy may be away between two lives
_STEPS = 5760  # at most, in which restarts are looked for: every 15 s of a day
_FIELD = "eaf_field"
_BEFORE, _ANEW = "_before", "_anew"
_TIMEOUT = 30.0  # seconds: a month of counters takes a while to read
_FIELDS = tuple(COUNTERS.values())
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = 366 * _UNITS["d"]

Key = tuple[str, str]  # user, model
Growth = dict[tuple[Key, str], float]  # by that, and field


@dataclass(frozen=True, slots=True)
class Usage:
    """What one user had of one model.

    Attributes
    ----------
    user : str
        Empty: calls of nobody, refused at the door.
    model : str
        Empty: calls that failed and named none that is counted by name.
    requests : int
        Inference requests that were answered.
    rows : int
        Inferences in them, as the requests themselves say.
    failures : int
        Inference requests that were refused or failed, whoever's fault it was.
    bytes_in, bytes_out : int
        Of both, without headers.
    estimated : bool
        An Envoy began to count anew meanwhile.
    """

    user: str
    model: str
    requests: int = 0
    rows: int = 0
    failures: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    estimated: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def usage_of(
    user: str | None, *, since: float, prometheus: Prometheus, fetch: Fetch, matchers: Sequence[str] = ()
) -> tuple[Usage, ...]:
    """What a user had in the last `since` seconds, or everybody.

    Parameters
    ----------
    user : str or None
        Exactly this user; None: all.
    since : float
        Seconds.
    prometheus : Prometheus
        Whom to ask.
    fetch : Fetch
        How (`eaf_inference.metrics.http.fetching`).
    matchers : sequence of str
        Which Envoys are meant (`Facility.prometheus_door_matchers`).

    Raises
    ------
    InferenceError
        It cannot be asked, or does not answer.
    """

    async def ask(promql: str, at: float | None = None) -> Growth:
        return await asyncio.to_thread(growth_in, await prometheus.query(fetch, promql, timeout=_TIMEOUT, at=at))

    first = await ask(usage_expression(user, since=since, matchers=matchers))
    anew = {key for key, field in first if field.endswith(_ANEW)}
    earlier: Growth = {}
    if anew:
        # a subquery looks at whole multiples of its step only: up to the next one
        at = math.ceil(time.time() / _step(since)) * _step(since)
        earlier = await ask(earlier_lives(user, since=since, matchers=matchers), at)
    return rows_of(first, earlier, anew)


def ask_usage(facility: Facility, user: str | None, *, since: float) -> tuple[Usage, ...]:
    """The same for a program without an event loop, from the Prometheus of the operator's configuration.

    Raises
    ------
    InferenceError
        None is configured, or it cannot be asked.
    """
    prometheus, matchers = prometheus_of(facility, usage=True), facility.prometheus_door_matchers

    async def ask() -> tuple[Usage, ...]:
        async with fetching() as fetch:
            return await usage_of(user, since=since, prometheus=prometheus, fetch=fetch, matchers=matchers)

    return asyncio.run(ask())


def usage_expression(user: str | None, *, since: float, matchers: Sequence[str] = ()) -> str:
    """The PromQL expression of how much a user's counters grew in so many seconds, or everybody's.

    Raises
    ------
    ConfigurationError
        A matcher is none, the time is no time, or the name cannot be one.
    """
    counters = _counters(user, since, matchers)
    seconds, uptime = round(since), f"{_UPTIME}{selector(matchers)}"
    return " or ".join(
        _summed(value, field + mark)
        for field, counter in counters.items()
        for mark, value in _questions(counter, uptime, seconds).items()
    )


def earlier_lives(user: str | None, *, since: float, matchers: Sequence[str] = ()) -> str:
    """The PromQL expression of what counters had come to when they began anew: it takes longer to answer."""
    counters = _counters(user, since, matchers)
    seconds, step = round(since), _step(since)
    parts = []
    for field, counter in counters.items():
        fell = f"last_over_time({counter}[{_GONE}s] offset {step}s) > {counter}"
        parts.append(_summed(f"sum_over_time(({fell})[{seconds}s:{step}s])", field))
    return " or ".join(parts)


def _step(since: float) -> int:
    return max(1, math.ceil(since / _STEPS))


def growth_in(body: bytes) -> Growth:
    """What Prometheus' answer says, by user and model, and field.

    Raises
    ------
    BadReply
        It is no such answer.
    """
    found: Growth = {}
    for labels, value in series_of(body):
        key = (clip(labels.get("user", "")), clip(labels.get("model", ""))), labels.get(_FIELD, "")
        found[key] = found.get(key, 0.0) + value
    return found


def rows_of(growth: Growth, earlier: Growth, anew: Container[Key]) -> tuple[Usage, ...]:
    """One row a user and model that had anything, in alphabetical order."""
    rows = {
        key: {
            field: round(
                growth.get((key, field), 0.0)
                - growth.get((key, field + _BEFORE), 0.0)
                + earlier.get((key, field), 0.0)
            )
            for field in _FIELDS
        }
        for key in sorted({key for key, _ in (*growth, *earlier)})
    }
    return tuple(
        Usage(*key, **row, estimated=key in anew)  # type: ignore[arg-type] # fields by name
        for key, row in rows.items()
        if any(row.values())
    )


def seconds_of(text: str) -> float:
    """A length of time as one types it: 90s, 30m, 12h, 1d, 2w.

    Raises
    ------
    ConfigurationError
        It is none.
    """
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if not match:
        raise ConfigurationError(f"{text!r} is no length of time. Expected such as 30m, 12h, 1d or 2w.")
    return float(match[1]) * _UNITS[match[2]]


def _counters(user: str | None, since: float, matchers: Sequence[str]) -> dict[str, str]:
    """By field: the selector of its counter."""
    if not _UNITS["m"] <= since <= _LONGEST:
        raise ConfigurationError(f"Usage over {since:g} s cannot be told. Expected from a minute to a year.")
    selected = selector([*matchers, *([] if user is None else [f"user={_quoted(user)}"])])
    return {field: f"{name}{selected}" for name, field in COUNTERS.items()}


def _questions(counter: str, uptime: str, since: int) -> dict[str, str]:
    """By mark: what the counter has come to, what it was before, and whether it began anew."""
    now = f"last_over_time({counter}[{since}s])"
    watched = f"(min_over_time({uptime}[{since}s]) < {_YOUNG} or {uptime} offset {since}s)"
    from_nothing = f"(0 * {now} and on(job, instance) {watched})"
    return {
        "": now,
        _BEFORE: f"{counter} offset {since}s or {from_nothing} or min_over_time({counter}[{since}s])",
        _ANEW: f"resets({counter}[{since + _LOOK_BACK}s]) > 0",
    }


def _summed(value: str, field: str) -> str:
    total = f"sum by (user, model) (max without(prometheus_replica) ({value}))"
    return f'label_replace({total}, "{_FIELD}", "{field}", "", "")'


def _quoted(text: str) -> str:
    """A string of PromQL, which follows Go as JSON does but for surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{text!r} is no user's name: it is not Unicode text.") from error
    return json.dumps(text, ensure_ascii=False)
