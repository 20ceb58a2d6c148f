"""The command `eaf-inference bench`."""

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
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="measure these only, separated by commas: the workloads a, b, c, d0, d2, d10, and packing, features, "
        "memory, import, connect, sampler (default: all)",
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="turns of each contender (default: 3)")
    parser.add_argument(
        "--share",
        metavar="PART",
        type=float,
        default=1.0,
        help="share of a full run's jets, such as 0.1 to try it out (default: 1)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("build/bench"),
        help="where bench.json and bench.png go (default: %(default)s)",
    )


def run(options: argparse.Namespace, console: Console, progress: Callable[[str], None]) -> int:
    """Measure, print and save; the exit code is 130 after an interrupt."""
    from eaf_inference.bench.figures import FIGURES
    from eaf_inference.bench.report import save, show
    from eaf_inference.bench.run import bench
    from eaf_inference.bench.workloads import WORKLOADS

    wanted = options.only.split(",") if options.only else [*WORKLOADS, *FIGURES]
    outcome = bench(
        workloads=[name for name in wanted if name not in FIGURES],
        alone=[name for name in wanted if name in FIGURES],
        rounds=options.rounds,
        share=options.share,
        progress=progress,
    )
    show(outcome, console)
    for path in save(outcome, options.output):
        console.print(f"written: {path}", soft_wrap=True, markup=False)
    return _INTERRUPTED if outcome.interrupted else 0
