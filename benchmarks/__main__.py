"""Run the benchmark from the repository root: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._commands import FAILED, INTERRUPTED
from eaf_inference._text import printable_lines
from eaf_inference.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = "python -m benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark with these arguments, by default the process's own, and return its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        return _run(options)
    except (InferenceError, OSError) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("eaf_", "benchmarks")):
            raise
        message = f"the package {error.name} is not installed: pip install -e '.[bench]'"
    except KeyboardInterrupt:
        sys.stderr.write(f"{_PROGRAM}: interrupted\n")
        return INTERRUPTED
    sys.stderr.write(printable_lines(f"{_PROGRAM}: {message}") + "\n")
    return FAILED


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Measure this client, coffea's triton_wrapper, tritonclient, perf_analyzer and local ONNX "
        "Runtime on the same server and jets, in turns, and print the ratios. A wrong score ends the benchmark. "
        "Ctrl-C keeps the results until then; the exit code is then 130.",
    )
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="measure only these, separated by commas: the workloads a, b, c, d0, d2, d10, and packing, features, "
        "memory, import, connect, sampler (default: all)",
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="rounds of each client (default: 3)")
    parser.add_argument(
        "--share",
        metavar="FRACTION",
        type=float,
        default=1.0,
        help="fraction of a full run's jets, such as 0.1 for a quick look (default: 1)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("build/bench"),
        help="directory for bench.json and bench.png (default: %(default)s)",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    from eaf_facility._terminal import make_console, progress_line, signals_as_interrupts

    console = make_console()
    with signals_as_interrupts(), progress_line(console) as progress:
        from benchmarks.measurements import FIGURES
        from benchmarks.report import save, show
        from benchmarks.run import bench
        from benchmarks.workloads import WORKLOADS

        names = options.only.split(",") if options.only else [*WORKLOADS, *FIGURES]
        outcome = bench(
            workloads=[name for name in names if name not in FIGURES],
            figures=[name for name in names if name in FIGURES],
            rounds=options.rounds,
            share=options.share,
            progress=progress,
        )
        show(outcome, console)
        for path in save(outcome, options.output):
            console.print(f"written: {path}", soft_wrap=True, markup=False)
    return INTERRUPTED if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
