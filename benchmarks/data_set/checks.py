"""Whether a directory of scores is complete, in order and right, by everything that is known about its inputs."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from benchmarks.data_set.files import IDS, columns, input_of, sums
from eaf_inference.errors import BadReply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchmarks.data_set.files import Made
    from eaf_inference.inference.model import Model

__all__ = ["check_failed", "check_outputs", "check_same_bytes"]


def check_outputs(directory: Path, made: Made, model: Model) -> str:
    """Compare each output with its input, with numpy and with a plain loop over the files."""
    seen = dict(_outputs(directory))
    _must(set(seen) == set(made.good), f"outputs of {len(seen)} inputs, not of the {len(made.good)} that are good")
    events = []
    for path, rows in made.good.items():
        given, found = columns(path), ak.from_parquet(seen[path])
        _must(len(found) == len(given) == rows, f"{path}: {len(found)} of {rows} rows")
        _must(found.entry.to_list() == list(range(rows)), f"{path}: entry numbers")
        for name in IDS:
            _must(found[name].to_list() == given[name].to_list(), f"{path}: {name}")
        scores = ak.to_numpy(ak.to_regular(found.scores)).reshape(rows, 2)
        plain = ak.to_numpy(model(input_of(given), progress=False)).reshape(rows, 2)
        _must(np.array_equal(scores, plain), f"{path}: scores differ from the plain loop")
        _must(np.array_equal(scores, sums(given)), f"{path}: scores differ from numpy")
        events.append(ak.to_numpy(found.event))
    every = np.concatenate(events)
    _must(len(np.unique(every)) == len(every) == sum(made.good.values()), "an event is missing or there twice")
    return f"{len(seen)} outputs, {len(every):,} events: each once, in its place, equal to a plain loop and to numpy"


def check_failed(report: Mapping[str, Any], made: Made) -> str:
    """Compare what failed with what was damaged."""
    failed = {file.removesuffix(":Events"): reason for _, file, _, reason, _ in report["failed"]}
    _must(len(report["failed"]) == len(failed) and failed == made.bad, f"failed: {failed}, damaged: {made.bad}")
    return f"`failed` lists the {len(failed)} damaged files with their reasons"


def check_same_bytes(one: Path, other: Path) -> str:
    """Compare all files of two directories."""
    digests = [
        {
            str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in directory.rglob("*")
            if path.is_file()
        }
        for directory in (one, other)
    ]
    different = [name for name in {**digests[0], **digests[1]} if digests[0].get(name) != digests[1].get(name)]
    _must(not different, f"{one} and {other} differ in {different[:5]}")
    return f"{len(digests[0])} files, with the manifest, equal byte for byte"


def _outputs(directory: Path) -> Iterator[tuple[str, Path]]:
    """Return each output with the input that it names."""
    from pyarrow.parquet import read_metadata

    seen = set()
    for path in directory.glob("*/*.parquet"):
        given = json.loads(read_metadata(path).metadata[b"eaf_inference"])["input"]["path"]
        _must(given not in seen, f"{given} has two outputs")
        seen.add(given)
        yield given, path


def _must(true: object, otherwise: str) -> None:
    if not true:
        raise BadReply(otherwise)
