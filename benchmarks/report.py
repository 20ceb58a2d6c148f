"""The benchmark's report: tables on the terminal, a JSON file and a plot."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import METRICS, Spread
from benchmarks.targets import verdicts
from benchmarks.workloads import ACCELERATOR, WORKLOADS
from eaf_facility.study.clients import EAF_INFERENCE

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from benchmarks.rounds import Result
    from benchmarks.run import Outcome

__all__ = ["save", "show"]

_NOT_MEASURED = "–"
_MET = {True: "met", False: "missed", None: "not measured"}


def show(outcome: Outcome, console: Console) -> None:
    """Print the tables."""
    for key in dict.fromkeys(result.workload for result in outcome.results):
        console.print("", _table([each for each in outcome.results if each.workload == key]))
    if outcome.figures:
        console.print("", _figures(outcome))
    console.print("", _targets(outcome))
    for remark in outcome.remarks:
        console.print(f"not measured: {remark}", markup=False)
    if outcome.interrupted:
        console.print("Interrupted: these are the measurements until then.")


def _table(results: list[Result]) -> Table:
    from rich.table import Table

    workload = WORKLOADS[results[0].workload]
    title = f"({workload.key}) {workload.title}"
    if workload.model == ACCELERATOR.name:
        title += f"; simulated, limit {ACCELERATOR.limit:,.0f} jets/s"
    table = Table("client", *METRICS, title=title, title_justify="left", box=None, pad_edge=False)
    for result in results:
        spreads = [result.spread(metric) for metric in METRICS]
        cells = [_NOT_MEASURED if each is None else str(each) for each in spreads]
        table.add_row(result.entry.label, *cells, style="bold" if result.entry == EAF_INFERENCE else None)
    return table


def _figures(outcome: Outcome) -> Table:
    from rich.table import Table

    table = Table("eaf-inference alone", "median (range)", box=None, pad_edge=False)
    for name, values in outcome.figures.items():
        table.add_row(name, str(Spread.of(values)))
    return table


def _targets(outcome: Outcome) -> Table:
    from rich.table import Table

    table = Table("target", "wanted", "measured", "", box=None, pad_edge=False)
    styles = {True: "green", False: "bold red", None: "dim"}
    for verdict in verdicts(outcome.results, outcome.figures):
        measured = _NOT_MEASURED if verdict.spread is None else str(verdict.spread)
        table.add_row(verdict.what, verdict.target, measured, _MET[verdict.met], style=styles[verdict.met])
    return table


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return everything for JSON: the values of each round and the verdicts."""
    return {
        "machine": outcome.machine,
        "software": outcome.software,
        "share": outcome.share,
        "rounds": outcome.rounds,
        "interrupted": outcome.interrupted,
        "remarks": outcome.remarks,
        "simulated accelerator": {**asdict(ACCELERATOR), "inferences_per_second": ACCELERATOR.limit},
        "results": [
            {
                "workload": result.workload,
                "client": result.entry.name,
                "batch": result.entry.batch,
                "in_flight": result.entry.in_flight,
                "failure": result.failure or None,
                **{metric: result.values(metric) for metric in METRICS},
            }
            for result in outcome.results
        ],
        "figures": outcome.figures,
        "targets": [asdict(verdict) for verdict in verdicts(outcome.results, outcome.figures)],
    }


def save(outcome: Outcome, directory: Path) -> list[Path]:
    """Write ``bench.json`` and, if a workload was measured, ``bench.png``."""
    directory.mkdir(parents=True, exist_ok=True)
    written = [directory / "bench.json"]
    written[0].write_text(json.dumps(as_dict(outcome), indent=1) + "\n", encoding="utf-8")
    if any(result.measurements for result in outcome.results):
        written.append(directory / "bench.png")
        _plot(outcome, written[-1])
    return written


def _plot(outcome: Outcome, file: Path) -> None:
    """Plot the jets/s of each client, median and range, with one panel per workload."""
    from matplotlib.figure import Figure

    keys = list(dict.fromkeys(result.workload for result in outcome.results if result.measurements))
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(6.5 * columns, 3.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, key in zip(axes, keys, strict=False):
        results = [each for each in outcome.results if each.workload == key and each.measurements][::-1]
        spreads = [spread for each in results if (spread := each.spread("jets/s"))]
        medians = [each.median for each in spreads]
        errors = [[each.median - each.least for each in spreads], [each.most - each.median for each in spreads]]
        colours = ["#0072b2" if each.entry == EAF_INFERENCE else "#999999" for each in results]
        axis.barh([each.entry.label for each in results], medians, xerr=errors, color=colours, ecolor="#333333")
        workload = WORKLOADS[key]
        if workload.model == ACCELERATOR.name:
            axis.axvline(ACCELERATOR.limit, color="#d55e00", linestyle="--", label="simulated accelerator's limit")
            axis.legend(loc="lower right", fontsize="small")
        axis.set_title(f"({key}) {workload.title}", loc="left", fontsize="medium")
        axis.set_xlabel("jets/s: median and range of the rounds")
        axis.tick_params(axis="y", labelsize="small")
    for axis in list(axes)[len(keys) :]:
        axis.set_visible(False)
    figure.savefig(file, dpi=120)
