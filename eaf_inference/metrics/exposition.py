"""Triton's own /metrics text, of one server: the table of its names, and two scrapes made into rates.

Nothing here asks a server or looks at a clock. Counters restart at 0 with their server or model, series come and go,
and values may be NaN: what cannot be a rate is left out, so it is None further on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, TypeVar

from eaf_inference.errors import BadReply
from eaf_inference.metrics.reading import MOST_GPUS, MOST_MODELS, Reading, Replica, clip, is_plausible
from eaf_inference.metrics.snapshot import Gpu, Host

__all__ = ["TABLE", "Of", "Scrape", "parse", "rates", "reading"]

K = TypeVar("K")

_SHORTEST_WINDOW = 1e-3  # seconds: below, a rate is noise
_LONGEST_LINE = 16 * 1024  # characters; the parser's time grows with the square of a line's labels
_MOST_LINES = 50_000  # of those in the table: two seconds of the parser's time


class Of(enum.Enum):
    """What a metric describes, and how its value is meant."""

    COUNTER = "of a model, since the server's start"
    GAUGE = "of a model, now"
    GPU = "of a GPU, now"
    HOST = "of the machine, now"


# Triton's name → what it is of, and our field.
TABLE = {
    "nv_inference_count": (Of.COUNTER, "inferences"),
    "nv_inference_exec_count": (Of.COUNTER, "executions"),
    "nv_inference_request_success": (Of.COUNTER, "requests"),
    "nv_inference_request_failure": (Of.COUNTER, "failures"),
    "nv_inference_queue_duration_us": (Of.COUNTER, "queue_us"),
    "nv_inference_compute_input_duration_us": (Of.COUNTER, "compute_input_us"),
    "nv_inference_compute_infer_duration_us": (Of.COUNTER, "compute_infer_us"),
    "nv_inference_compute_output_duration_us": (Of.COUNTER, "compute_output_us"),
    "nv_inference_pending_request_count": (Of.GAUGE, "pending"),
    "nv_gpu_utilization": (Of.GPU, "utilization"),
    "nv_gpu_memory_used_bytes": (Of.GPU, "memory_used"),
    "nv_gpu_memory_total_bytes": (Of.GPU, "memory_total"),
    "nv_gpu_power_usage": (Of.GPU, "power"),
    "nv_cpu_utilization": (Of.HOST, "cpu_utilization"),
    "nv_cpu_memory_used_bytes": (Of.HOST, "memory_used"),
    "nv_cpu_memory_total_bytes": (Of.HOST, "memory_total"),
}


@dataclass(slots=True)
class Scrape:
    """One text's numbers.

    Attributes
    ----------
    counters, gauges : dict
        (model, version) → field → value.
    gpus : dict
        UUID → field → value.
    host : dict
        Field → value.
    left_out : int
        Models and GPUs beyond the most that are kept.
    """

    counters: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    gauges: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    gpus: dict[str, dict[str, float]] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    left_out: int = 0


def parse(text: str) -> Scrape:
    """Read Triton's text; names outside the table, and values that no server can mean, are passed over.

    Series that differ in further labels only (reason, gpu_uuid of a model's counter) are added up.

    Raises
    ------
    BadReply
        It is not Prometheus' text format, or longer than is read.
    """
    from prometheus_client.parser import text_string_to_metric_families

    scrape = Scrape()
    left_out: set[object] = set()
    # only what the table knows: the parser is slow, and comments would make it rename counters
    wanted = [line for line in text.split("\n") if _name_of(line) in TABLE]
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
        of, name = TABLE[family.name]
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
    """The row that a sample belongs to; None where there are too many, or the sample says not whose it is."""
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
    """Triton writes 0 for everything of a machine or GPU until it has first looked, seconds after its start."""
    for values in (scrape.host, *scrape.gpus.values()):
        if values.get("memory_total") == 0:
            values.clear()
    scrape.gpus = {uuid: values for uuid, values in scrape.gpus.items() if values}


def rates(earlier: Scrape, later: Scrape, seconds: float) -> dict[tuple[str, str], dict[str, float]]:
    """Increase per second of each model's counters.

    Where any of a model's counters fell, it was loaded anew, and all of them count from 0: a lower bound, as
    Prometheus takes it. A model, or a counter, that the earlier scrape lacks has no rate yet.

    Parameters
    ----------
    seconds : float
        Between the two, by the receiver's monotonic clock: the server's may jump.
    """
    if not seconds >= _SHORTEST_WINDOW:
        return {}
    found = {}
    for key, now in later.counters.items():
        before = earlier.counters.get(key, {})
        both = [name for name in now if name in before]
        anew = any(now[name] < before[name] for name in both)
        found[key] = {name: (now[name] - (0.0 if anew else before[name])) / seconds for name in both}
    return found


def reading(later: Scrape, earlier: Scrape | None, seconds: float, *, id: str, host: str, url: str) -> Reading:  # noqa: A002
    """What one server told, from its latest scrape and the one before, `seconds` earlier, if there is one."""
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
