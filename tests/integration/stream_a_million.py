"""Stream jets from a generator and print the memory used; run by test_memory.py."""

from __future__ import annotations

import resource
import sys

import awkward as ak
import numpy as np

import eaf_inference

URL, JETS, CHUNK = sys.argv[1], int(sys.argv[2]), 5_000


def resident() -> float:
    """Return the peak memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def chunks():
    """Generate jets of 40 to 80 constituents, two values each: 480 bytes per jet."""
    rng = np.random.default_rng(1)
    for _ in range(JETS // CHUNK):
        counts = rng.integers(40, 81, CHUNK)
        yield ak.zip({name: ak.unflatten(rng.random(counts.sum(), np.float32), counts) for name in ("a", "b")})


with eaf_inference.connect(URL) as triton:
    model = triton.model("sums", cell_budget=64 * 1024)
    model(next(chunks()))
    start, jets = resident(), 0
    for scores in model.map(chunks(), progress=False):
        jets += len(scores)
    print(jets, start, resident())
