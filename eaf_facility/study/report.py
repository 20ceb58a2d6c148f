"""The study's report: a self-contained HTML file, and all numbers as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined

from eaf_facility.study.conclusions import headline, key_points
from eaf_facility.study.findings import findings
from eaf_facility.study.plots import plots
from eaf_facility.study.tables import Table, details, summary

if TYPE_CHECKING:
    from pathlib import Path

    from eaf_facility.study.outcome import Outcome

__all__ = ["html", "save"]


def html(outcome: Outcome) -> str:
    """Render the page: headline, tables, plots, details."""
    groups = plots(outcome)
    figures = [plot.figure for group in groups.values() for plot in group]
    script, places = components(figures) if figures else ("", ())
    templates = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return templates.get_template("report.html").render(
        outcome=outcome,
        headline=headline(outcome),
        key_points=key_points(outcome),
        summary=summary(outcome),
        groups=groups,
        places=dict(zip(figures, places, strict=True)),
        script=script,
        library=Resources(mode="inline", components=["bokeh"]).render_js() if figures else "",
        findings=findings(outcome),
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
    text = {"headline": headline(outcome), "findings": findings(outcome)}
    numbers.write_text(json.dumps({**asdict(outcome), **text}, indent=1) + "\n", encoding="utf-8")
    return [report, numbers]
