"""How connections, models and tables look in a notebook.

HTML on JupyterLab's own CSS variables, so that it reads in every theme; everything from a server is escaped, and so
are characters that would reorder or hide the text around them. The plain text of the same objects is their
``__str__``.
"""

from __future__ import annotations

import html
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from eaf_inference._text import printable
from eaf_inference.catalogue import MOST_SHOWN
from eaf_inference.metrics.advice import window_of
from eaf_inference.notebook.load import queue_of, rate_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from eaf_inference.catalogue import ModelTable
    from eaf_inference.connection import Connection
    from eaf_inference.dask.clusters import ClusterTable
    from eaf_inference.dask.summary import Summary
    from eaf_inference.discovery import Attempts
    from eaf_inference.inference.model import Model
    from eaf_inference.metrics.snapshot import Gpu, ModelLoad, Snapshot
    from eaf_inference.metrics.verdict import Verdict

__all__ = [
    *("attempts_html", "clusters_html", "connection_html", "load_html", "load_text", "model_html", "models_html"),
    *("monitor_html", "monitor_text", "summary_html"),
]

_MOST_ROWS = 16  # of GPUs, and of models, in a picture
_WIDTH, _HEIGHT = 360, 48  # of its line

# Styles are inline: JupyterLab takes <style> out of a notebook that it does not trust, and out of a style attribute
# whatever names a variable. Size, alignment and weight outlive that; text then has the colours of the page around it.
_PAGE = (
    "font-family: var(--jp-ui-font-family, sans-serif); font-size: var(--jp-ui-font-size1, 13px); "
    "color: var(--jp-ui-font-color1, inherit); line-height: 1.5; max-width: 100%; overflow-x: auto; "
    "--eaf-dim: var(--jp-ui-font-color2, inherit); "
    "--eaf-good: color-mix(in srgb, var(--jp-success-color1, #388e3c) 70%, var(--jp-ui-font-color0, currentcolor)); "
    "--eaf-bad: color-mix(in srgb, var(--jp-error-color1, #d32f2f) 70%, var(--jp-ui-font-color0, currentcolor))"
)
_SPANS = {
    "title": "font-weight: 600",
    "dim": "color: var(--eaf-dim)",
    "good": "color: var(--eaf-good)",
    "bad": "color: var(--eaf-bad); font-weight: 600",
}
_CELL = "padding: 2px 12px 2px 0; border: none; vertical-align: baseline; text-align: "
_HEAD = f"font-weight: 500; color: var(--eaf-dim); {_CELL}"
_CODE = (
    "font-family: var(--jp-code-font-family, monospace); font-size: 0.95em; padding: 0; color: inherit; "
    "background: none"
)
_TABLE = "border-collapse: collapse; margin: 4px 0; font-size: inherit"


def connection_html(connection: Connection) -> str:
    """One line: where, found how, as whom."""
    if connection.closed:
        return _page(_dim("Connection closed."))
    endpoint = connection.endpoint
    restricted = f" · {endpoint.restricted}" if endpoint.restricted else ""
    replicas = f"{len(endpoint.urls)} replicas · " if len(endpoint.urls) > 1 else ""
    return _page(
        f"{_span('title', 'Triton')} {_code(endpoint.url, folds=True)} "
        + _dim(f"· connected as of {_minute()} · {replicas}found by {endpoint.source} · ")
        + _dim(f"{connection.identity}{restricted}")
    )


def models_html(models: ModelTable, most: int = MOST_SHOWN) -> str:
    """The first so many models of a server, and how many there are besides."""
    if not models:
        return _page(_dim(models.remark or "The server has no models."))
    rows = []
    shown, more = models.split(most)
    for row in shown:
        state = _span("good" if row.ready else "bad", row.state)
        queue = _dim(row.queue) if row.queue_ms is None else escape(row.queue)
        queue = f'<span style="white-space: nowrap">{queue}</span>'
        inputs, outputs = (
            _column("<br>".join(_code(each, folds=True) for each in tensors)) for tensors in (row.inputs, row.outputs)
        )
        rows.append((_column(escape(row.name)), escape(row.version), inputs, outputs, _column(state), queue))
    table = _table(models.heads, rows, numbers=(5,))
    return _page(table + "".join(f"<div>{_dim(each)}</div>" for each in (more, models.remark) if each))


def clusters_html(clusters: ClusterTable) -> str:
    """The Dask clusters of a connection."""
    if not clusters:
        return _page(_dim("No Dask cluster uses this connection."))

    def number(value: float | None, form: str) -> str:
        return _dim("not reported") if value is None else form.format(value)

    rows = []
    for row in clusters:
        complete = row.configured in (row.workers, None)
        state = _span("good" if row.state == "configured" else "bad", row.state)
        rows.append(
            (
                escape(row.name),
                number(row.workers, "{}"),
                number(row.configured, "{}") if complete else _span("bad", str(row.configured)),
                number(row.inferences_per_s, "{:,.0f}"),
                _dim("none") if row.configured and row.oldest_token is None else number(row.oldest_token, "{:.0f} s"),
                "<br>".join([state, *map(_dim, row.remarks)]),
            )
        )
    heads = ("Dask cluster", "workers", "configured", "jets/s", "oldest token", "state")
    return _page(_table(heads, rows, numbers=(1, 2, 3, 4)))


def attempts_html(attempts: Attempts) -> str:
    """What every source of discovery said."""
    rows = [
        (
            _span("good", "●") if attempt.chosen else "",
            escape(attempt.source),
            _code(attempt.value),
            escape(attempt.outcome),
            attempt.time,
        )
        for attempt in attempts
    ]
    return _page(_table(("", "source", "value", "outcome", "time"), rows, numbers=(4,)))


def model_html(model: Model) -> str:
    """What a model takes and gives."""
    spec = model.spec
    if spec.recipe:
        taken = "records of constituents with " + ", ".join(map(_code, spec.recipe.required))
    else:
        taken = "<br>".join(map(_code, spec.inputs))
    rows = [
        (_dim("takes"), taken),
        (_dim("gives"), "<br>".join(_code(model.describe_output(tensor)) for tensor in spec.outputs)),
    ]
    if spec.left_out:
        rows.append((_dim("leaves out"), "<br>".join(map(_code, spec.left_out))))
    if model.note:
        rows.append((_dim("note"), escape(model.note)))
    version = f"version {spec.version} " if spec.version else ""
    return _page(f"{_span('title', spec.name)} {_dim(f'{version}on')} {_code(model.where)}{_table((), rows)}")


def summary_html(summary: Summary) -> str:
    """What was done over a cluster, and by which worker."""
    rows = [tuple(map(escape, row)) for row in summary.rows()]
    numbers = range(1, len(summary.HEADS))
    return _page(f"{escape(summary.headline)}{_table(summary.HEADS, rows, numbers=numbers)}")


def load_html(verdict: Verdict, session: Mapping[str, Any] | None) -> str:
    """The figures of the server and of this notebook, and what limits the throughput."""
    lines = map(escape, _load_lines(verdict.average, session))
    advice = verdict.advice
    said = f"{_span('title', advice.title)} {escape(advice.text)}" if advice else ""
    return _page("".join(f"<div>{line}</div>" for line in (*lines, said) if line))


def load_text(verdict: Verdict, session: Mapping[str, Any] | None) -> str:
    """The same in plain text."""
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
    """A still picture of the monitor: what it said last, and when that was."""
    opened = f"opened at {_clock(datetime.now(tz=timezone.utc).timestamp())}"
    when = _time_of(average) if average else opened
    parts = [
        f"{_span('title', 'Triton')} {_code(session['endpoint']) if session else ''} "
        + _dim(f"· {when}{'' if live else ', stopped'}")
    ]
    if session:
        parts.append(escape(_own_work(session)))
    if problem:
        parts.append(_span("bad", problem))
    if average:
        parts += [
            escape(_service(average)),
            _line(history) if average.busy else "",
            _table(("GPU", "busy", "memory", "power"), map(_gpu_row, average.gpus[:_MOST_ROWS]), numbers=(1, 2, 3))
            if average.gpus
            else "",
            _table(
                ("model", "version", "jets/s", "batch", "queue ms"),
                map(_load_row, average.models[:_MOST_ROWS]),
                numbers=(2, 3, 4),
            )
            if average.models
            else "",
        ]
    if advice:
        parts.append(f"{_span('title', advice['title'])} {escape(advice['text'])}")
    return _page("".join(f"<div>{part}</div>" for part in parts if part))


def monitor_text(average: Snapshot | None, session: Mapping[str, Any] | None, *, problem: str) -> str:
    """The same in one line."""
    parts = [session["endpoint"], _own_work(session)] if session else []
    if problem:
        parts.append(problem)
    if average:
        parts.append(f"{_time_of(average)}: {_service(average)}")
    return printable("; ".join(parts))


def _time_of(average: Snapshot) -> str:
    """What figures are of: "the last 23 s before …"."""
    clock = _clock(average.time)
    return f"{window_of(average)} before {clock}" if average.window else clock


def _service(average: Snapshot) -> str:
    """How busy the service was."""
    busy = average.busy
    parts = []
    if busy:
        parts.append(f"{busy.of} {busy.value:.0%} busy{' (estimated)' if busy.estimated else ''}")
    if not average.gpus:
        parts.append("no GPU reported by this server")
        parts += [
            f"CPUs of {host.name} {host.cpu_utilization:.0%} busy"
            for host in average.hosts
            if host.cpu_utilization is not None
        ]
    rate, queue = rate_of(average), queue_of(average)
    parts.append("jets/s not reported" if rate is None else f"{rate:,.0f} jets/s")
    if queue is not None:
        parts.append(f"queue {queue:,.1f} ms")
    return " · ".join(parts)


def _own_work(session: Mapping[str, Any]) -> str:
    """What this kernel has done."""
    rate, done, total = (session[name] for name in ("inferences_per_second", "done", "total"))
    parts = [f"this notebook: {session['inferences']:,} jets"]
    if rate:
        parts.append(f"{rate:,.0f} jets/s")
    elif session["busy"]:
        parts.append("at work")
    if session["retrying"]:
        parts.append("{reason}, retrying, {left} s left".format_map(session["retrying"]))
    if session["label"]:
        of = f" {done:,} of {total:,}" if total else f" {done:,}" if done else ""
        parts.append(f"{session['label']}{of}")
    return " · ".join(parts)


def _gpu_row(gpu: Gpu) -> tuple[str, ...]:
    name = " ".join(part for part in (gpu.name or gpu.id, gpu.profile, f"({gpu.host})" if gpu.host else "") if part)
    gib = 1024.0**3
    memory = (
        None
        if gpu.memory_used is None or gpu.memory_total is None
        else (gpu.memory_used / gib, gpu.memory_total / gib)
    )
    return (
        escape(name),
        _given(gpu.utilization, "{:.0%}"),
        _dim("not reported") if memory is None else f"{memory[0]:.1f} of {memory[1]:.1f} GiB",
        _given(gpu.power, "{:.0f} W"),
    )


def _load_row(model: ModelLoad) -> tuple[str, ...]:
    return (
        escape(model.name),
        escape(model.version),
        _given(model.inferences_per_second, "{:,.0f}"),
        _given(model.batch, "{:,.1f}", "no request"),
        _given(model.queue_ms, "{:,.1f}", "no request"),
    )


def _given(value: float | None, form: str, otherwise: str = "not reported") -> str:
    return _dim(otherwise) if value is None else form.format(value)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _line(points: Sequence[Mapping[str, float | None]]) -> str:
    """How busy the service was as a line from 0 to 1, a minute long, which ends with the last figure.

    It is broken where nothing was measured.
    """
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
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" style="max-width: 100%; border-bottom: 1px solid">{lines}</svg> '
        + _dim(caption)
    )


def escape(text: str) -> str:
    """The text as HTML on one line."""
    return html.escape(printable(text))


def _minute() -> str:
    """Now: an output that is saved and opened later must not be taken for the state of then."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""

    def line(cells: Sequence[str], tag: str, style: str) -> str:
        return "".join(
            f'<{tag} style="{style}{"right" if column in numbers else "left"}">{cell}</{tag}>'
            for column, cell in enumerate(cells)
        )

    row_start = '<tr style="background: none">'
    head = f"<thead>{row_start}{line(heads, 'th', _HEAD)}</tr></thead>" if heads else ""
    body = "".join(f"{row_start}{line(row, 'td', _CELL)}</tr>" for row in rows)
    return f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>'


def _span(kind: str, text: str) -> str:
    return f'<span style="{_SPANS[kind]}">{escape(text)}</span>'


def _dim(text: str) -> str:
    return _span("dim", text)


def _code(text: object, *, folds: bool = False) -> str:
    """A name or a type, on one line unless it folds."""
    if not str(text):
        return ""
    space = "normal; overflow-wrap: anywhere" if folds else "nowrap"
    return f'<code style="{_CODE}; white-space: {space}">{escape(str(text))}</code>'


def _column(cell: str) -> str:
    """A cell as wide as what it holds, up to a width beyond which even a long name without spaces is folded."""
    return (
        '<div style="width: max-content; max-width: min(22em, 45vw); white-space: normal; overflow-wrap: anywhere">'
        f"{cell}</div>"
    )


def _page(body: str) -> str:
    return f'<div class="eaf-inference" style="{_PAGE}">{body}</div>'
