"""The command `eaf-inference study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._commands import INTERRUPTED

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import Console

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    parser.add_argument("--quick", action="store_true", help="measure a small part, in less than eight minutes")
    parser.add_argument(
        "--parts",
        metavar="NAMES",
        help="measure only these, separated by commas: timing, workers, models, capacity (default: all)",
    )
    parser.add_argument(
        "--url", help="measure a facility's Triton, grpc:// or grpcs://, instead of starting one on this machine"
    )
    parser.add_argument("--prometheus", metavar="URL", help="the facility's Prometheus")
    parser.add_argument("--gateway", metavar="URL", help="the facility's Dask Gateway")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("build/study"),
        help="directory for study.html and study.json (default: %(default)s)",
    )


def run(options: argparse.Namespace, console: Console, progress: Callable[[str], None]) -> int:
    """Measure, print and save; return the exit code, 130 after an interrupt."""
    from rich.table import Table

    from eaf_facility.study.conclusions import headline, key_points
    from eaf_facility.study.findings import findings
    from eaf_facility.study.outcome import Site
    from eaf_facility.study.report import save
    from eaf_facility.study.run import PARTS, study
    from eaf_facility.study.tables import summary

    outcome = study(
        quick=options.quick,
        parts=options.parts.split(",") if options.parts else PARTS,
        site=Site(options.url, options.prometheus, options.gateway),
        progress=progress,
    )
    console.print()
    console.print(headline(outcome), style="bold", markup=False)
    for line in key_points(outcome):
        console.print(line, markup=False)
    if outcome.accelerator:
        console.print(outcome.accelerator, style="dim", markup=False)
    for each in summary(outcome):
        table = Table(title=each.title, title_justify="left", box=None, pad_edge=False)
        for number, head in enumerate(each.heads):
            table.add_column(head, justify="right" if number else "left", no_wrap=not number)
        for row in each.rows:
            table.add_row(*row)
        console.print("", table)
    console.print("")
    for line in findings(outcome):
        console.print(f"- {line}", markup=False)
    for remark in outcome.remarks:
        console.print(f"- not measured as planned: {remark}", markup=False)
    if outcome.interrupted:
        console.print("Interrupted: these are the measurements until then.")
    for path in save(outcome, options.output):
        console.print(f"written: {path}", soft_wrap=True, markup=False)
    return INTERRUPTED if outcome.interrupted else 0
