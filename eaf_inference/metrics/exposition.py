"""The /metrics text of one Triton: parsing, and rates from two scrapes.

Nothing here does I/O or reads a clock. Counters restart at 0 with their server or model, series come and go, and
values may be NaN. Values that give no valid rate are left out, and become None in a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from eaf_inference.errors import BadReply, ConfigurationError
from eaf_inference.metrics.names import TRITON, Of
from eaf_inference.metrics.reading import MOST_GPUS, MOST_MODELS, Reading, Replica, clip, is_plausible
from eaf_inference.metrics.snapshot import Gpu, Host

__all__ = ["Scrape", "parse", "rates", "reading"]

K = TypeVar("K")

_SHORTEST_WINDOW = 1e-3  # seconds: below, a rate is noise
_LONGEST_LINE = 16 * 1024  # characters; the parser's time grows with the square of the labels
_MOST_LINES = 50_000  # with known names; the parser takes two seconds for them


@dataclass(slots=True)
class Scrape:
    """The numbers of one scrape.

    Attributes
    ----------
    counters, gauges : dict
        (model, version) → field → value.
    gpus : dict
        UUID → field → value.
    host : dict
        Field → value.
    left_out : int
        Number of models and GPUs beyond the limits.
    """

    counters: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    gauges: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    gpus: dict[str, dict[str, float]] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    left_out: int = 0


def parse(text: str) -> Scrape:
    """Parse Triton's text, ignoring unknown names and impossible values.

    Series that differ only in other labels (reason, gpu_uuid of a model's counter) are added up.

    Raises
    ------
    BadReply
        The text is not in Prometheus' format, or is too long.
    ConfigurationError
        The package that reads it is missing.
    """
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"metrics cannot be read without {error.name}: pip install 'eaf-inference[notebook]'"
        ) from error

    scrape = Scrape()
    left_out: set[object] = set()
    # Only known names: the parser is slow, and with the comments it would rename counters.
    wanted = [line for line in text.split("\n") if _name_of(line) in TRITON]
    longest = max(map(len, wanted), default=0)
    if longest > _LONGEST_LINE:
        raise _too_much(f"a line of {longest:,} characters; at most {_LONGEST_LINE:,} are read")
    if len(wanted) > _MOST_LINES:
        raise _too_much(f"{len(wanted):,} lines of models and GPUs; at most {_MOST_LINES:,} are read")
    try:
        families = list(text_string_to_metric_families("\n".join(wanted) + "\n"))
    except (ValueError, IndexError, KeyError) as error:
        raise _unreadable() from error
    if not families and text.strip() and "# TYPE" not in text:
        raise _unreadable()
    for family in families:
        of, name = TRITON[family.name]
        for sample in family.samples:
            if not is_plausible(sample.value):
                continue
            values = _place(scrape, of, sample.labels, left_out)
            if values is not None:
                values[name] = values.get(name, 0.0) + sample.value
    _forget_unmeasured(scrape)
    scrape.left_out = len(left_out)
    return scrape


def _name_of(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]


def _unreadable() -> BadReply:
    error = BadReply("The metrics are not in Prometheus' text format. Expected the URL of a Triton's /metrics.")
    error.reason = "its answer is not in Prometheus' text format"
    return error


def _too_much(what: str) -> BadReply:
    error = BadReply(f"The metrics have {what}. Expected the URL of a Triton's /metrics.")
    error.reason = f"its metrics have {what}"
    return error


def _place(scrape: Scrape, of: Of, labels: dict[str, str], left_out: set[object]) -> dict[str, float] | None:
    """Return the row of a sample; None if there are too many rows, or if the sample lacks a label."""
    if of is Of.HOST:
        return scrape.host
    if of is Of.GPU:
        return _row(scrape.gpus, clip(labels["gpu_uuid"]), MOST_GPUS, left_out) if labels.get("gpu_uuid") else None
    if not labels.get("model"):
        return None
    rows = scrape.counters if of is Of.COUNTER else scrape.gauges
    return _row(rows, (clip(labels["model"]), clip(labels.get("version", ""))), MOST_MODELS, left_out)


def _row(rows: dict[K, dict[str, float]], key: K, most: int, left_out: set[object]) -> dict[str, float] | None:
    if key not in rows and len(rows) >= most:
        left_out.add(key)
        return None
    return rows.setdefault(key, {})


def _forget_unmeasured(scrape: Scrape) -> None:
    """Remove machines and GPUs without a measurement: Triton reports only 0 for them in its first seconds."""
    for values in (scrape.host, *scrape.gpus.values()):
        if values.get("memory_total") == 0:
            values.clear()
    scrape.gpus = {uuid: values for uuid, values in scrape.gpus.items() if values}


def rates(earlier: Scrape, later: Scrape, seconds: float) -> dict[tuple[str, str], dict[str, float]]:
    """Return the increase per second of each model's counters.

    If any counter of a model fell, the model was reloaded and all its counters began at 0; the rate is then a lower
    bound, as in Prometheus. A model or counter that is missing in the earlier scrape has no rate yet.

    Parameters
    ----------
    seconds : float
        Time between the scrapes, by this process's monotonic clock, because the server's clock may jump.
    """
    if not seconds >= _SHORTEST_WINDOW:
        return {}
    found = {}
    for key, now in later.counters.items():
        before = earlier.counters.get(key, {})
        both = [name for name in now if name in before]
        reloaded = any(now[name] < before[name] for name in both)
        found[key] = {name: (now[name] - (0.0 if reloaded else before[name])) / seconds for name in both}
    return found


def reading(later: Scrape, earlier: Scrape | None, seconds: float, *, id: str, host: str, url: str) -> Reading:  # noqa: A002
    """Return the reading of one server from its latest scrape and, if there is one, the scrape `seconds` before."""
    measured = rates(earlier, later, seconds) if earlier else {}
    keys = sorted({*later.counters, *later.gauges})
    gpus: dict[str, dict[str, Any]] = {**later.gpus}
    replica = Replica(
        id=id,
        host=host,
        url=url,
        up=True,
        models={key: {**measured.get(key, {}), **later.gauges.get(key, {})} for key in keys},
        gpus=tuple(Gpu(id=uuid, host=host, **values) for uuid, values in gpus.items()),
        machine=Host(host, **later.host) if later.host else None,
    )
    return Reading((replica,), window=seconds if measured else None, left_out=later.left_out)
