"""Scores of files, and what is written of them, for the tests of writing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import awkward as ak

from eaf_inference.dataset.parts import File, Part
from eaf_inference.dataset.provenance import Provenance
from eaf_inference.dataset.results import Result
from eaf_inference.inference.fingerprint import Fingerprint, Probed
from eaf_inference.inference.probe import Shape

if TYPE_CHECKING:
    from pathlib import Path


def print_of(score: float = 1.0, **changed) -> Fingerprint:
    """The fingerprint of a model that gives this score."""
    probed = Probed(Shape(3), {"prob": ((1,), (score,))}, 0.01)
    return replace(Fingerprint("m", "1", "c0", "r0", probed), **changed)


MADE = Provenance(print_of(), select="cut (12)", server="grpc://a")


def results(file: File, scores, cuts=(), number=0, ids=None) -> list[Result]:
    """The scores of a file, cut into parts at these entries."""
    bounds = [0, *cuts, len(next(iter(scores.values())) if isinstance(scores, dict) else scores)]
    of = lambda a, b: {k: v[a:b] for k, v in scores.items()} if isinstance(scores, dict) else scores[a:b]  # noqa: E731
    return [
        Result(
            Part(number, file, start, stop),
            of(start, stop),
            stop - start,
            {name: values[start:stop] for name, values in (ids or {}).items()},
            stop == bounds[-1],
        )
        for start, stop in pairwise(bounds)
    ]


def tree_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


JAGGED = ak.Array([[0.5, 1.5], [], [2.5]] * 4)
