"""The study's report: one HTML file that needs nothing beside it, and all numbers as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined

from eaf_inference.study.findings import sentences
from eaf_inference.study.headline import headline, lead
from eaf_inference.study.plots import plots
from eaf_inference.study.tables import Table, details, summary

if TYPE_CHECKING:
    from pathlib import Path

    from eaf_inference.study.outcome import Outcome

__all__ = ["html", "save"]


def html(outcome: Outcome) -> str:
    """Headline, tables, plots, details."""
    groups = plots(outcome)
    figures = [plot.figure for group in groups.values() for plot in group]
    script, places = components(figures) if figures else ("", ())
    templates = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return templates.get_template("report.html").render(
        outcome=outcome,
        headline=headline(outcome),
        lead=lead(outcome),
        summary=summary(outcome),
        groups=groups,
        places=dict(zip(figures, places, strict=True)),
        script=script,
        library=Resources(mode="inline", components=["bokeh"]).render_js() if figures else "",
        findings=sentences(outcome),
        details=[
            *details(outcome),
            Table("Machine", (), list(outcome.machine.items())),
            Table("Versions", (), list(outcome.software.items())),
        ],
    )


def save(outcome: Outcome, directory: Path) -> list[Path]:
    """Write ``study.html`` and ``study.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    report, numbers = directory / "study.html", directory / "study.json"
    report.write_text(html(outcome), encoding="utf-8")
    findings = {"headline": headline(outcome), "findings": sentences(outcome)}
    numbers.write_text(json.dumps({**asdict(outcome), **findings}, indent=1) + "\n", encoding="utf-8")
    return [report, numbers]
