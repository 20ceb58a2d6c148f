"""Plots of ``results.json``: ``python -m benchmarks.gpu.plots RESULTS PNG``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["draw"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by colour-blind readers


def draw(results: dict[str, Any], file: Path) -> None:
    """Draw service times, the sweep and saturation, as far as they were measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.5), constrained_layout=True)
    _service_times(left, results.get("service times", {}))
    _sweep(middle, results.get("sweep", []))
    _saturation(right, results.get("saturation", []))
    figure.suptitle(f"{results['machine']['GPU'] or 'no GPU'}, {results['machine']['date']}")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _service_times(axes: Any, measured: dict[str, Any]) -> None:
    for colour, (model, found) in zip(_COLOURS, measured.items(), strict=False):
        points = found["points"]
        cells = np.array([each["rows"] * each["length"] for each in points])
        compute = [sum(each[f"compute_{part} ms"] for part in ("input", "infer", "output")) for each in points]
        axes.loglog(cells, compute, "o", color=colour, label=model)
        fit = found["fits"]["compute"]
        line = np.geomspace(cells.min(), cells.max(), 50)
        label = f"{fit['a ms']:.1f} ms + {fit['b ns/cell']:.0f} ns a cell"
        axes.loglog(line, fit["a ms"] + fit["b ns/cell"] * line * 1e-6, color=colour, label=label)
    axes.set(xlabel="cells of a request", ylabel="compute time, ms", title="Single requests")
    axes.legend(fontsize=8)


def _sweep(axes: Any, rows: list[dict[str, Any]]) -> None:
    by_hand = [row for row in rows if row["cell_budget"] and row["model"] == "particlenet_wide"]
    for colour, window in zip(_COLOURS, sorted({row["window"] for row in by_hand}), strict=False):
        mine = [row for row in by_hand if row["window"] == window]
        budgets, rates = [row["cell_budget"] for row in mine], [row["jets/s"] for row in mine]
        axes.semilogx(budgets, rates, "o-", base=2, color=colour, label=f"window {window:,}")
    default = [row["jets/s"] for row in rows if row["model"] == "particlenet" and not row["cell_budget"]]
    for rate in default:
        axes.axhline(rate, color="gray", linestyle=":", label="default")
    axes.set(xlabel="cell budget", ylabel="jets/s", ylim=(0, None), title="Our ParticleNet, jagged jets, one client")
    axes.legend(fontsize=8)


def _saturation(axes: Any, rows: list[dict[str, Any]]) -> None:
    for colour, case in zip(_COLOURS, dict.fromkeys(row["case"] for row in rows), strict=False):
        mine = [row for row in rows if row["case"] == case]
        rates = [row.get("Triton's jets/s") or row["jets/s"] for row in mine]
        axes.loglog([row["clients"] for row in mine], rates, "o-", base=2, color=colour, label=case)
    axes.set(xlabel="client processes", ylabel="jets/s", title="Saturation")
    axes.legend(fontsize=8)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
