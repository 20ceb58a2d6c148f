"""The command `eaf-inference study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import Console

__all__ = ["add_arguments", "run"]

_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command can be asked."""
    parser.add_argument("--quick", action="store_true", help="a small part of it, in less than eight minutes")
    parser.add_argument(
        "--parts",
        metavar="NAMES",
        help="measure these only, separated by commas: timing, workers, models, capacity (default: all)",
    )
    parser.add_argument("--url", help="a facility's Triton, grpc:// or grpcs://, instead of one on this machine")
    parser.add_argument("--prometheus", metavar="URL", help="that facility's Prometheus")
    parser.add_argument("--gateway", metavar="URL", help="that facility's Dask Gateway")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("build/study"),
        help="where study.html and study.json go (default: %(default)s)",
    )


def run(options: argparse.Namespace, console: Console, progress: Callable[[str], None]) -> int:
    """Measure, print and save; the exit code is 130 after an interrupt."""
    from rich.table import Table

    from eaf_inference.study.findings import sentences, tables
    from eaf_inference.study.outcome import Site
    from eaf_inference.study.report import save
    from eaf_inference.study.run import PARTS, study

    outcome = study(
        quick=options.quick,
        parts=options.parts.split(",") if options.parts else PARTS,
        site=Site(options.url, options.prometheus, options.gateway),
        progress=progress,
    )
    for title, heads, rows in tables(outcome):
        table = Table(*heads, title=title, title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print("", table)
    console.print("")
    for line in sentences(outcome):
        console.print(f"- {line}", markup=False)
    for remark in outcome.remarks:
        console.print(f"- not measured: {remark}", markup=False)
    if outcome.interrupted:
        console.print("Interrupted: this is what was measured until then.")
    for path in save(outcome, options.output):
        console.print(f"written: {path}", soft_wrap=True, markup=False)
    return _INTERRUPTED if outcome.interrupted else 0
