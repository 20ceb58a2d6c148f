"""A file whose needed columns take more memory than a worker has."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import awkward as ak
import distributed
import numpy as np

import eaf_inference
from benchmarks.data_set.files import MODEL, input_of, sums, write_model
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import BadReply

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["larger_than_memory"]

_LIMIT = 600  # MB of memory for each worker
_ROWS = 20_000  # of a basket
_BASKETS = 75
_COUNTS = (64, 193)  # constituents of a jet, least and most + 1
_TREE = "Events"
_SAMPLES, _SAMPLE = 20, 500  # ranges that are read again, and their rows


def larger_than_memory(directory: Path, say: Callable[[str], object]) -> None:
    """Write the file, score it by ranges into a directory, and compare."""
    path, needed = _write(directory / "large.root")
    say(f"\n{path.name}: {_ROWS * _BASKETS:,} jets, {path.stat().st_size / 1e6:,.0f} MB on disk")
    say(f"its two columns: {needed / 1e6:,.0f} MB in memory; each of 2 workers may use {_LIMIT} MB")
    write_model(directory / "models")
    with (
        TritonServer.start([directory / "models"]) as server,
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            memory_limit=f"{_LIMIT} MB",
            host="127.0.0.1",
            dashboard_address=":0",
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        eaf_inference.connect(server.grpc) as triton,
    ):
        before = client.run(_peak)
        run = triton.submit(triton.model(MODEL), f"{path}:{_TREE}", client=client, select=input_of, progress=False)
        run.write(directory / "scores")
        after = client.run(_peak)
        summary = run.summary
    if {pid for pid, _ in before.values()} != {pid for pid, _ in after.values()}:
        raise BadReply(f"A worker was replaced, so it had used too much memory: {before}, then {after}.")
    say(f"{summary}")
    for address, (pid, peak) in after.items():
        say(f"worker {pid}: peak RSS {peak:,.0f} MB, of which {before[address][1]:,.0f} MB before the run")
    [output] = (directory / "scores").glob("*.parquet")
    say(f"{summary.chunks} ranges; {_compare(path, output)}")


def _write(path: Path) -> tuple[Path, int]:
    """Write baskets of jets whose constituents are all alike, which compresses well; values are multiples of 1/64."""
    import uproot

    random = np.random.default_rng(17)
    needed = 0
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        kinds = {"event": "uint64", "pf_pt": "var * float32", "pf_eta": "var * float32"}
        file.mktree(_TREE, kinds)
        for basket in range(_BASKETS):
            counts = random.integers(*_COUNTS, _ROWS)
            columns: dict[str, Any] = {"event": np.arange(basket * _ROWS, (basket + 1) * _ROWS, dtype=np.uint64)}
            for name in ("pf_pt", "pf_eta"):
                values = (random.integers(0, 1024, _ROWS) / 64).astype(np.float32)
                columns[name] = ak.unflatten(np.repeat(values, counts), counts)
                needed += 4 * int(counts.sum())
            file[_TREE].extend(columns)
    return path, needed


def _peak() -> tuple[int, float]:
    """Return this process and its largest resident memory so far, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise BadReply("/proc/self/status has no VmHWM.")
    return os.getpid(), int(found[1]) * 1024 / 1e6


def _compare(path: Path, output: Path) -> str:
    """Compare entry numbers of all rows, and scores of some, with what is read directly."""
    import uproot

    found = ak.from_parquet(output)
    rows = _ROWS * _BASKETS
    every = np.arange(rows)
    if not all(np.array_equal(ak.to_numpy(found[name]), every) for name in ("entry", "event")):
        raise BadReply("A row is missing, there twice, or not in its place.")
    starts = np.random.default_rng(2).integers(0, rows - _SAMPLE, _SAMPLES)
    with uproot.open({path: _TREE}) as tree:
        for start in starts:
            events = tree.arrays(["pf_pt", "pf_eta"], entry_start=int(start), entry_stop=int(start) + _SAMPLE)
            scores = ak.to_numpy(ak.to_regular(found.scores[start : start + _SAMPLE]))
            if not np.array_equal(scores, sums(events)):
                raise BadReply(f"Scores of the entries from {start} on differ from what is read directly.")
    return f"{rows:,} rows in their places; {_SAMPLES * _SAMPLE:,} of them, read again, have equal sums"
