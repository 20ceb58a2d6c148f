"""Score 200 files, five of them damaged, while a worker, Triton and the driver are killed, and check every row.

``python -m benchmarks.data_set`` makes the files, starts a Triton and a Dask cluster, and runs a driver twice:
undisturbed, and with faults; then `eaf-inference run` as two jobs. Each fault comes when some number of outputs is
there. A check that fails ends the program with an error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import distributed

import eaf_inference
from benchmarks.data_set.checks import check_failed, check_outputs, check_same_bytes
from benchmarks.data_set.disturbed import Driver, as_jobs, disturbed
from benchmarks.data_set.files import MODEL, make, write_model
from benchmarks.data_set.large import larger_than_memory
from eaf_facility.servers.triton import TritonServer
from eaf_facility.study.machine import machine


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run, and print what was done and seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_set", description=__doc__.splitlines()[0])
    parser.add_argument("--files", metavar="N", type=int, default=200, help="at least 20 (default: 200)")
    parser.add_argument("--large", action="store_true", help="score a file larger than a worker's memory instead")
    options = parser.parse_args()
    started = time.monotonic()
    for name, value in machine().items():
        say(f"{name}: {value}")
    with tempfile.TemporaryDirectory(prefix="eaf-inference-data-set-") as temporary:
        if options.large:
            larger_than_memory(Path(temporary), say)
        else:
            survive(Path(temporary), options.files)
    say(f"all checks passed in {time.monotonic() - started:.0f} s")


def survive(directory: Path, files: int) -> None:
    """Run undisturbed and disturbed, and check both."""
    made = make(directory / "inputs", files, say)
    fileset = directory / "fileset.json"
    fileset.write_text(json.dumps(made.fileset), encoding="utf-8")
    write_model(directory / "models")
    with (
        TritonServer.start([directory / "models"]) as server,
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        say("\nundisturbed")
        calm = Driver(server, cluster.scheduler_address, fileset, directory / "calm").report()
        say(calm["summary"])
        say("\ndisturbed")
        report = disturbed(server, client, cluster.scheduler_address, fileset, directory / "disturbed", files, say)
        say(f"\nof the second start: {report['summary']}")
        say(report["table"].replace(f"{directory}/", ""))
        say("\ntwo processes of eaf-inference run, --jobs 1/2 and 2/2")
        say(as_jobs(server, fileset, directory / "jobs").replace(f"{directory}/", ""))
        say("checks")
        with eaf_inference.connect(server.grpc) as triton:
            model = triton.model(MODEL)
            for name, each in (("calm", calm), ("disturbed", report)):
                say(f"{name}: {check_outputs(directory / name, made, model)}")
                say(f"{name}: {check_failed(each, made)}")
        for name in ("disturbed", "jobs"):
            say(f"calm and {name}: {check_same_bytes(directory / 'calm', directory / name)}")


if __name__ == "__main__":
    main()
