"""The user's program: score a data set on a Dask cluster into a directory. Another process starts and kills it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import distributed

import eaf_inference
from benchmarks.data_set.files import MODEL, input_of
from eaf_inference.errors import IncompleteRun


def main() -> None:
    """Run, and write what failed, what was written and the summary as JSON."""
    parser = argparse.ArgumentParser()
    for name in ("server", "scheduler", "fileset", "directory", "report"):
        parser.add_argument(name)
    options = parser.parse_args()
    fileset = json.loads(Path(options.fileset).read_text(encoding="utf-8"))
    with eaf_inference.connect(options.server) as triton, distributed.Client(options.scheduler) as client:
        run = triton.submit(triton.model(MODEL), fileset, client=client, select=input_of, progress=False)
        ended, written = "", None
        try:
            written = asdict(run.write(options.directory))
        except IncompleteRun as error:
            ended = str(error)
        report = {
            "failed": [[each.dataset, each.file, each.entries, each.reason, each.tries] for each in run.failed],
            "table": str(run.failed),
            "summary": str(run.summary),
            "chunks": run.summary.chunks,
            "ended": ended,
            "written": written,
        }
    Path(options.report).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
