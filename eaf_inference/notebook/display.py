"""How connections, models and tables look in a notebook.

HTML on JupyterLab's own CSS variables, so that it reads in every theme; everything from a server is escaped. The
plain text of the same objects is their ``__str__``.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eaf_inference.catalogue import ModelTable
    from eaf_inference.connection import Connection
    from eaf_inference.dask.clusters import ClusterTable
    from eaf_inference.dask.summary import Summary
    from eaf_inference.discovery import Attempts
    from eaf_inference.inference.model import Model

__all__ = ["attempts_html", "clusters_html", "connection_html", "model_html", "models_html", "summary_html"]

_STYLE = """<style>
.eaf-inference { font-family: var(--jp-ui-font-family, sans-serif); font-size: var(--jp-ui-font-size1, 13px);
  color: var(--jp-ui-font-color1, inherit); line-height: 1.5; max-width: 100%; overflow-x: auto; }
.eaf-inference .eaf-title { font-weight: 600; }
.eaf-inference .eaf-dim { color: var(--jp-ui-font-color2, inherit); }
.eaf-inference .eaf-good { color: var(--jp-success-color1, #388e3c); }
.eaf-inference .eaf-bad { color: var(--jp-error-color1, #d32f2f); }
.eaf-inference table { border-collapse: collapse; margin: 4px 0; font-size: inherit; }
.eaf-inference th, .eaf-inference td { vertical-align: top; padding: 2px 12px 2px 0; border: none;
  background: none !important; color: inherit; }
.eaf-inference th { font-weight: 500; color: var(--jp-ui-font-color2, inherit); }
.eaf-inference code { font-family: var(--jp-code-font-family, monospace); font-size: 0.95em; padding: 0;
  color: inherit; background: none !important; white-space: nowrap; }
</style>"""


def connection_html(connection: Connection) -> str:
    """One line: where, found how, as whom."""
    if connection.closed:
        return _page(_dim("Connection closed."))
    endpoint = connection.endpoint
    replicas = f"{len(endpoint.urls)} replicas · " if len(endpoint.urls) > 1 else ""
    return _page(
        f'<span class="eaf-good">●</span> <span class="eaf-title">Triton</span> {_code(endpoint.url)} '
        + _dim(f"· {replicas}found by {endpoint.source} · {connection.identity}")
    )


def models_html(models: ModelTable) -> str:
    """The models of a server."""
    if not models:
        return _page(_dim("The server has no models."))
    rows = []
    for row in models:
        state = _span("good" if row.ready else "bad", row.state)
        queue = _dim("not reported") if row.queue_ms is None else f"{row.queue_ms:.1f}"
        inputs, outputs = ("<br>".join(map(_code, each)) for each in (row.inputs, row.outputs))
        rows.append((escape(row.name), escape(row.version), inputs, outputs, state, queue))
    return _page(_table(("model", "version", "inputs", "outputs", "state", "queue ms"), rows, numbers=(5,)))


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
    if model.note:
        rows.append((_dim("note"), escape(model.note)))
    version = f"version {spec.version} " if spec.version else ""
    return _page(f"{_span('title', spec.name)} {_dim(f'{version}on')} {_code(model.where)}{_table((), rows)}")


def summary_html(summary: Summary) -> str:
    """What was done over a cluster, and by which worker."""
    rows = [tuple(map(escape, row)) for row in summary.rows()]
    numbers = range(1, len(summary.HEADS))
    return _page(f"{escape(summary.headline)}{_table(summary.HEADS, rows, numbers=numbers)}")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; aligned inline, which outlives the styles of an untrusted notebook."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} style="text-align: {"right" if column in numbers else "left"}">{cell}</{tag}>'
            for column, cell in enumerate(cells)
        )

    head = f"<thead><tr>{line(heads, 'th')}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _span(kind: str, text: str) -> str:
    return f'<span class="eaf-{kind}">{escape(text)}</span>'


def _dim(text: str) -> str:
    return _span("dim", text)


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>" if str(text) else ""


def _page(body: str) -> str:
    return f'{_STYLE}<div class="eaf-inference">{body}</div>'
