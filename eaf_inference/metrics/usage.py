"""Each user's usage of each model, from Envoy's counters in Prometheus.

The numbers are exact if no counter was reset in the period: the last value minus the first, or minus 0 if Prometheus
has scraped this Envoy since its start. (`increase` would extrapolate before the first scrape and after the last.) If
an Envoy was restarted, a second query finds the last values of its counters before that. Such a row is `estimated`,
because requests between the last scrape and the Envoy's end are not counted.
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
from eaf_inference.metrics.http import make_fetch
from eaf_inference.metrics.names import ENVOY, ENVOY_UPTIME, FIELD_LABEL
from eaf_inference.metrics.prometheus import once, selector, series_of
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

_YOUNG = 60  # seconds; an Envoy that is younger at its first scrape has been scraped since its start
_LOOK_BACK = 300  # seconds for which Prometheus treats a value as current
_GONE = 900  # seconds that an Envoy may take to restart; after a longer time, only one restart is seen
_STEPS = 5760  # most steps in the search for restarts: one every 15 s of a day
_BEFORE, _RESET = "_before", "_reset"
_TIMEOUT = 30.0  # seconds; a month of counters takes Prometheus a while
_FIELDS = tuple(ENVOY.values())
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = 366 * _UNITS["d"]

Key = tuple[str, str]  # user, model
Growth = dict[tuple[Key, str], float]  # by key and field


@dataclass(frozen=True, slots=True)
class Usage:
    """One user's usage of one model.

    Attributes
    ----------
    user : str
        Empty for calls without a user, which Envoy refused.
    model : str
        Empty for failed calls to a model that is not counted by name.
    requests : int
        Answered inference requests.
    rows : int
        Inferences in these requests, by the shapes in the requests.
    failures : int
        Inference requests that were refused or failed, for any reason.
    bytes_in, bytes_out : int
        Of all these requests, without headers.
    estimated : bool
        Whether an Envoy was restarted in the period.
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
    user: str | None,
    *,
    since: float,
    prometheus: Prometheus,
    fetch: Fetch,
    matchers: Sequence[str] = (),
    owner: str | None = None,
) -> tuple[Usage, ...]:
    """Return the usage of one user, or of all, in the last `since` seconds.

    Parameters
    ----------
    user : str or None
        None for all users.
    since : float
        Seconds.
    prometheus : Prometheus
        The server to query.
    fetch : Fetch
        From `eaf_inference.metrics.http.make_fetch`.
    matchers : sequence of str
        Select the facility's Envoys (`Facility.prometheus_envoy_matchers`).
    owner : str or None
        Also return all users' usage of the models of this owner, as their names give it.

    Raises
    ------
    InferenceError
        Prometheus cannot be queried or does not answer.
    """

    async def ask(promql: str, at: float | None = None) -> Growth:
        return await asyncio.to_thread(growth_in, await prometheus.query(fetch, promql, timeout=_TIMEOUT, at=at))

    first = await ask(usage_expression(user, since=since, matchers=matchers, owner=owner))
    reset = {key for key, field in first if field.endswith(_RESET)}
    earlier: Growth = {}
    if reset:
        # a subquery evaluates whole multiples of its step only, so query at the next one
        at = math.ceil(time.time() / _step(since)) * _step(since)
        earlier = await ask(earlier_lives(user, since=since, matchers=matchers, owner=owner), at)
    return rows_of(first, earlier, reset)


def ask_usage(facility: Facility, user: str | None, *, since: float) -> tuple[Usage, ...]:
    """Return the usage from the configured Prometheus, for a program without an event loop.

    Raises
    ------
    InferenceError
        No Prometheus is configured, or it cannot be queried.
    """
    prometheus, matchers = prometheus_of(facility, usage=True), facility.prometheus_envoy_matchers

    return asyncio.run(usage_of(user, since=since, prometheus=prometheus, fetch=make_fetch(), matchers=matchers))


def usage_expression(
    user: str | None, *, since: float, matchers: Sequence[str] = (), owner: str | None = None
) -> str:
    """Return the PromQL expression of how much the counters of `usage_of` grew in `since` seconds.

    Raises
    ------
    ConfigurationError
        A matcher, the duration or the user name is invalid.
    """
    counters = _counters(user, since, matchers, owner)
    seconds, uptime = round(since), f"{ENVOY_UPTIME}{selector(matchers)}"
    return " or ".join(
        _summed(value, field + mark)
        for field, counter in counters
        for mark, value in _questions(counter, uptime, seconds).items()
    )


def earlier_lives(user: str | None, *, since: float, matchers: Sequence[str] = (), owner: str | None = None) -> str:
    """Return the PromQL expression of the counters' values before they were reset; it is slower to evaluate."""
    counters = _counters(user, since, matchers, owner)
    seconds, step = round(since), _step(since)
    parts = []
    for field, counter in counters:
        fell = f"last_over_time({counter}[{_GONE}s] offset {step}s) > {counter}"
        longer = (
            f"max_over_time({counter}[{seconds}s]) > last_over_time({counter}[{seconds}s])"  # was away for longer
        )
        parts.append(_summed(f"sum_over_time(({fell})[{seconds}s:{step}s]) or ({longer})", field))
    return " or ".join(parts)


def _step(since: float) -> int:
    return max(1, math.ceil(since / _STEPS))


def growth_in(body: bytes) -> Growth:
    """Parse Prometheus' answer by user, model and field.

    Raises
    ------
    BadReply
        It is not an answer of Prometheus.
    """
    found: Growth = {}
    for labels, value in series_of(body):
        key = (clip(labels.get("user", "")), clip(labels.get("model", ""))), labels.get(FIELD_LABEL, "")
        found[key] = found.get(key, 0.0) + value
    return found


def rows_of(growth: Growth, earlier: Growth, reset: Container[Key]) -> tuple[Usage, ...]:
    """Return one row per user and model with any usage, in alphabetical order."""
    rows = {
        key: {
            field: round(
                max(
                    0.0,  # if not all restarts are known
                    growth.get((key, field), 0.0)
                    - growth.get((key, field + _BEFORE), 0.0)
                    + earlier.get((key, field), 0.0),
                )
            )
            for field in _FIELDS
        }
        for key in sorted({key for key, _ in (*growth, *earlier)})
    }
    return tuple(
        Usage(*key, **row, estimated=key in reset)  # type: ignore[arg-type] # fields by name
        for key, row in rows.items()
        if any(row.values())
    )


def seconds_of(text: str) -> float:
    """Parse a duration such as 90s, 30m, 12h, 1d or 2w.

    Raises
    ------
    ConfigurationError
        It is not a duration.
    """
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if not match:
        raise ConfigurationError(f"{text!r} is not a duration. Expected one such as 30m, 12h, 1d or 2w.")
    return float(match[1]) * _UNITS[match[2]]


def _counters(user: str | None, since: float, matchers: Sequence[str], owner: str | None) -> list[tuple[str, str]]:
    """Return fields with the selectors of their counters: of the user and, if given, of the owner's models."""
    if not _UNITS["m"] <= since <= _LONGEST:
        raise ConfigurationError(f"Usage over {since:g} s is not available. Expected a minute to a year.")
    chosen = [[] if user is None else [f"user={_quoted(user)}"]]
    if owner is not None:
        chosen.append([f"model=~{_quoted(re.escape(owner) + '[.].+')}"])
    selectors = [selector([*matchers, *each]) for each in chosen]
    return [(field, f"{name}{selected}") for selected in selectors for name, field in ENVOY.items()]


def _questions(counter: str, uptime: str, since: int) -> dict[str, str]:
    """Return the queries by mark: the counter now, the counter before, and whether it was reset."""
    now = f"last_over_time({counter}[{since}s])"
    watched = f"(min_over_time({uptime}[{since}s]) < {_YOUNG} or {uptime} offset {since}s)"
    from_nothing = f"(0 * {now} and on(instance) {watched})"
    return {
        "": now,
        _BEFORE: f"{counter} offset {since}s or {from_nothing} or min_over_time({counter}[{since}s])",
        _RESET: f"resets({counter}[{since + _LOOK_BACK}s]) > 0",
    }


def _summed(value: str, field: str) -> str:
    total = f"sum by (user, model) ({once(value)})"
    return f'label_replace({total}, "{FIELD_LABEL}", "{field}", "", "")'


def _quoted(text: str) -> str:
    """Return a PromQL string. Its syntax is that of JSON strings, except for surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{text!r} is not a user name: it is not Unicode text. Expected a name as the Hub has it."
        ) from error
    return json.dumps(text, ensure_ascii=False)
