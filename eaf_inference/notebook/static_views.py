"""HTML and plain text of the server's load and of this notebook's work.

`%triton_status` shows them, and they take the widget's place where no live view is possible.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from eaf_inference._html import code, dim, escape, page, span
from eaf_inference._table import Cell, Table, reported
from eaf_inference._text import printable
from eaf_inference.metrics.average import window_of
from eaf_inference.metrics.totals import inference_rate, mean_queue_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eaf_inference.metrics.snapshot import Gpu, ModelLoad, Snapshot
    from eaf_inference.metrics.verdict import Verdict

__all__ = ["load_html", "load_text", "monitor_html", "monitor_text"]

_MOST_ROWS = 16  # of each table
_WIDTH, _HEIGHT = 360, 48  # of the chart, in pixels
_GIB = 1024.0**3


def load_html(verdict: Verdict, session: Mapping[str, Any] | None) -> str:
    """Return the figures of the server and of this notebook, and the advice."""
    lines = map(escape, _load_lines(verdict.average, session))
    advice = verdict.advice
    last = f"{span('title', advice.title)} {escape(advice.text)}" if advice else ""
    return page("".join(f"<div>{line}</div>" for line in (*lines, last) if line))


def load_text(verdict: Verdict, session: Mapping[str, Any] | None) -> str:
    """Return the same as plain text."""
    lines = (*_load_lines(verdict.average, session), str(verdict.advice or ""))
    return "\n".join(printable(line) for line in lines if line)


def _load_lines(average: Snapshot, session: Mapping[str, Any] | None) -> list[str]:
    own = [_own_work(session)] if session else []
    return [f"In {window_of(average)}: {_service(average)}", *own] if average.window else own


def monitor_html(
    average: Snapshot | None,
    history: Sequence[Mapping[str, float | None]],
    advice: Mapping[str, str] | None,
    session: Mapping[str, Any] | None,
    *,
    problem: str,
    live: bool,
) -> str:
    """Return the monitor's last state, and its time."""
    opened = f"opened at {_clock(datetime.now(tz=timezone.utc).timestamp())}"
    when = _time_of(average) if average else opened
    parts = [
        f"{span('title', 'Triton')} {code(session['endpoint']) if session else ''} "
        + dim(f"· {when}{'' if live else ', stopped'}")
    ]
    if session:
        parts.append(escape(_own_work(session)))
    if problem:
        parts.append(span("bad", problem))
    if average:
        parts += [
            escape(_service(average)),
            _line(history) if average.busy else "",
            _gpus(average.gpus[:_MOST_ROWS]).html() if average.gpus else "",
            _models(average.within_window().models[:_MOST_ROWS]).html() if average.models else "",
        ]
    if advice:
        parts.append(f"{span('title', advice['title'])} {escape(advice['text'])}")
    return page("".join(f"<div>{part}</div>" for part in parts if part))


def monitor_text(average: Snapshot | None, session: Mapping[str, Any] | None, *, problem: str) -> str:
    """Return the same as one line of text."""
    parts = [session["endpoint"], _own_work(session)] if session else []
    if problem:
        parts.append(problem)
    if average:
        parts.append(f"{_time_of(average)}: {_service(average)}")
    return printable("; ".join(parts))


def _time_of(average: Snapshot) -> str:
    """Return the time that the figures cover: "the last 23 s before …"."""
    clock = _clock(average.time)
    return f"{window_of(average)} before {clock}" if average.window else clock


def _service(average: Snapshot) -> str:
    """Return how busy the service was, in words."""
    busy = average.busy
    parts = []
    if busy:
        parts.append(f"{busy.of} {busy.value:.0%} busy{' (estimated)' if busy.estimated else ''}")
    if not average.gpus:
        if all(source.age is not None and source.error is None for source in average.sources):
            parts.append("no GPU reported by this server")
        parts += [
            f"CPUs of {host.name} {host.cpu_utilization:.0%} busy"
            for host in average.hosts
            if host.cpu_utilization is not None
        ]
    rate, queue = inference_rate(average), mean_queue_ms(average)
    parts.append("jets/s not reported" if rate is None else f"{rate:,.0f} jets/s")
    if queue is not None:
        parts.append(f"queue {queue:,.1f} ms")
    return " · ".join(parts)


def _own_work(session: Mapping[str, Any]) -> str:
    """Return the work of this kernel, in words."""
    rate, done, total = (session[name] for name in ("inferences_per_second", "done", "total"))
    own = session["inferences"]
    parts = [f"this notebook: {own:,} jet{'' if own == 1 else 's'}"]
    if rate:
        parts.append(f"{rate:,.0f} jets/s")
    elif session["busy"]:
        parts.append("at work")
    if session["retrying"]:
        parts.append("{reason}, retrying, {left} s left".format_map(session["retrying"]))
    if session["label"]:
        of = f" {done:,} of {total:,}" if total else f" {done:,}" if done else ""
        parts.append(f"{session['label']}{of}" + (f" {session['unit']}s" if of else ""))
        if session["failed"]:
            parts.append(f"{session['failed']:,} failed")
    return " · ".join(parts)


def _gpus(gpus: Sequence[Gpu]) -> Table:
    return Table(("GPU", "busy", "memory", "power"), [_gpu_cells(gpu) for gpu in gpus], numbers=(1, 2, 3))


def _gpu_cells(gpu: Gpu) -> tuple[Cell | str, ...]:
    name = " ".join(part for part in (gpu.name or gpu.id, gpu.profile, f"({gpu.host})" if gpu.host else "") if part)
    used, of = gpu.memory_used, gpu.memory_total
    memory = reported(None) if used is None or of is None else f"{used / _GIB:.1f} of {of / _GIB:.1f} GiB"
    return name, reported(gpu.utilization, "{:.0%}"), memory, reported(gpu.power, "{:.0f} W")


def _models(models: Sequence[ModelLoad]) -> Table:
    heads = ("model", "version", "jets/s", "batch", "queue ms")
    return Table(heads, [_model_cells(model) for model in models], numbers=(2, 3, 4))


def _model_cells(model: ModelLoad) -> tuple[Cell | str, ...]:
    return (
        model.name,
        model.version,
        reported(model.inferences_per_second, "{:,.0f}"),
        reported(model.batch, "{:,.1f}", "no request"),
        reported(model.queue_ms, "{:,.1f}", "no request"),
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _line(points: Sequence[Mapping[str, float | None]]) -> str:
    """Return a chart of how busy the service was in the last minute; the line has gaps without measurements."""
    measured = [(point["time"] or 0.0, point["busy"]) for point in points]
    ends = max((when for when, value in measured if value is not None), default=0.0)
    runs: list[list[str]] = [[]]
    for when, value in measured:
        if value is None:
            runs.append([])
        elif when > ends - 60:
            x, y = _WIDTH * (1 - (ends - when) / 60), (_HEIGHT - 2) * (1 - min(1.0, value)) + 1
            runs[-1].append(f"{x:.0f},{y:.0f}")
    lines = "".join(
        f'<polyline fill="none" stroke="currentColor" stroke-width="1.5" points="{" ".join(run)}"/>'
        for run in runs
        if len(run) > 1
    )
    if not lines:
        return ""
    caption = f"busy, the minute until {_clock(ends)}, from 0 to 100%"
    return (
        f'<svg role="img" aria-label="{caption}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" style="display: block; max-width: 100%; border-bottom: 1px solid">'
        f"{lines}</svg>" + dim(caption)
    )
