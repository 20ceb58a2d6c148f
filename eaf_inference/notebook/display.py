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
    from eaf_inference.discovery import Attempts
    from eaf_inference.inference.model import Model

__all__ = ["attempts_html", "connection_html", "model_html", "models_html", "status_html"]

_STYLE = """<style>
.eaf-inference { font-family: var(--jp-ui-font-family, sans-serif); font-size: var(--jp-ui-font-size1, 13px);
  color: var(--jp-ui-font-color1, inherit); line-height: 1.5; max-width: 100%; overflow-x: auto; }
.eaf-inference .eaf-title { font-weight: 600; }
.eaf-inference .eaf-dim { color: var(--jp-ui-font-color2, inherit); }
.eaf-inference .eaf-good { color: var(--jp-success-color1, #388e3c); }
.eaf-inference .eaf-bad { color: var(--jp-error-color1, #d32f2f); }
.eaf-inference table { border-collapse: collapse; margin: 4px 0; font-size: inherit; }
.eaf-inference th, .eaf-inference td { text-align: left !important; vertical-align: top;
  padding: 2px 12px 2px 0; border: none; background: none !important; color: inherit; }
.eaf-inference th { font-weight: 500; color: var(--jp-ui-font-color2, inherit); }
.eaf-inference td.eaf-number, .eaf-inference th.eaf-number { text-align: right !important; }
.eaf-inference code { font-family: var(--jp-code-font-family, monospace); font-size: 0.95em;
  color: inherit; background: none; overflow-wrap: anywhere; }
</style>"""


def connection_html(connection: Connection) -> str:
    """One line: where, found how, as whom."""
    if connection.closed:
        return _page('<span class="eaf-dim">Connection closed.</span>')
    endpoint = connection.endpoint
    replicas = f", {len(endpoint.urls)} replicas" if len(endpoint.urls) > 1 else ""
    return _page(
        f'<span class="eaf-good">●</span> <span class="eaf-title">Triton</span> {_code(endpoint.url)}'
        f'<span class="eaf-dim">{replicas} · found by {escape(endpoint.source)} · '
        f"{escape(connection.identity)}</span>"
    )


def models_html(models: ModelTable) -> str:
    """The models of a server."""
    return _page(_models(models))


def status_html(connection: Connection, models: ModelTable) -> str:
    """Connection and models together."""
    return connection_html(connection) + _page(_models(models))


def attempts_html(attempts: Attempts) -> str:
    """What every source of discovery said."""
    rows = []
    for attempt in attempts:
        mark = '<span class="eaf-good">●</span>' if attempt.chosen else ""
        rows.append(
            (mark, escape(attempt.source), _code(attempt.value), escape(attempt.outcome), escape(attempt.time))
        )
    return _page(_table(("", "source", "value", "outcome", "time"), rows, numbers=(4,)))


def model_html(model: Model) -> str:
    """What a model takes and gives."""
    spec = model.spec
    recipe = spec.recipe
    taken = (
        "records of constituents with " + ", ".join(map(_code, recipe.required))
        if recipe
        else "<br>".join(_code(tensor) for tensor in spec.inputs)
    )
    given = "<br>".join(_code(model.describe_output(tensor)) for tensor in spec.outputs)
    rows = [("takes", taken), ("gives", given)]
    if model.note:
        rows.append(("note", escape(model.note)))
    version = f" version {escape(spec.version)}" if spec.version else ""
    title = f'<span class="eaf-title">{escape(spec.name)}</span><span class="eaf-dim">{version} on</span> '
    body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return _page(f"{title}{_code(model.where)}<table>{body}</table>")


def _models(models: ModelTable) -> str:
    if not models:
        return '<span class="eaf-dim">The server has no models.</span>'
    rows = []
    for row in models:
        state = (
            '<span class="eaf-good">ready</span>'
            if row.ready
            else f'<span class="eaf-bad">{escape(row.state)}</span>'
        )
        queue = '<span class="eaf-dim">not reported</span>' if row.queue_ms is None else escape(f"{row.queue_ms:.1f}")
        inputs, outputs = ("<br>".join(map(_code, each)) for each in (row.inputs, row.outputs))
        rows.append((escape(row.name), escape(row.version), inputs, outputs, state, queue))
    return _table(("model", "version", "inputs", "outputs", "state", "queue ms"), rows, numbers=(5,))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=eaf-number' if column in numbers else ''}>{cell}</{tag}>"
            for column, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(heads, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>" if str(text) else ""


def _page(body: str) -> str:
    return f'{_STYLE}<div class="eaf-inference">{body}</div>'
