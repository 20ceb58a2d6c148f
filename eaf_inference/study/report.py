"""The study's report: one HTML file that needs nothing beside it, and all numbers as JSON."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING

from eaf_inference.study.findings import sentences, tables
from eaf_inference.study.plots import pictures

if TYPE_CHECKING:
    from pathlib import Path

    from eaf_inference.study.outcome import Outcome

__all__ = ["html", "save"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { padding: 0.15rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child, td:nth-child(2), th:nth-child(2) { text-align: left; }
.note { background: #fff6e0; padding: 0.5rem 1rem; border-left: 4px solid #e69f00; }
"""


def html(outcome: Outcome) -> str:
    """The report."""
    quick = " (quick: a small part of the jets, workers and time)" if outcome.quick else ""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Scaling study</title>",
        f"<style>{_STYLE}</style><body>",
        f"<h1>Scaling study of {escape(outcome.where)}</h1>",
        f"<p>After <a href='https://arxiv.org/abs/2312.06838'>arXiv:2312.06838</a>{quick}.</p>",
    ]
    if outcome.interrupted:
        parts.append("<p class='note'>Interrupted: this is what was measured until then.</p>")
    if outcome.accelerator:
        parts.append(f"<p class='note'>What is called simulated: {escape(outcome.accelerator)}</p>")
    parts.append(_list("What was found", sentences(outcome)))
    if outcome.remarks:
        parts.append(_list("What was not measured", outcome.remarks))
    for title, figure in pictures(outcome).items():
        memory = io.BytesIO()
        figure.savefig(memory, format="png", dpi=110)
        encoded = base64.b64encode(memory.getvalue()).decode()
        parts.append(f"<h2>{escape(title)}</h2><img alt='{escape(title)}' src='data:image/png;base64,{encoded}'>")
    for title, heads, rows in tables(outcome):
        parts.append(f"<h2>{escape(title)}</h2>{_table(heads, rows)}")
    for title, values in (("Machine", outcome.machine), ("Versions", outcome.software)):
        parts.append(f"<h2>{title}</h2>{_table(('', ''), list(values.items()))}")
    return "\n".join([*parts, "</body></html>\n"])


def save(outcome: Outcome, directory: Path) -> list[Path]:
    """Write ``study.html`` and ``study.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    report, numbers = directory / "study.html", directory / "study.json"
    report.write_text(html(outcome), encoding="utf-8")
    numbers.write_text(
        json.dumps({**asdict(outcome), "findings": sentences(outcome)}, indent=1) + "\n", encoding="utf-8"
    )
    return [report, numbers]


def _list(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
