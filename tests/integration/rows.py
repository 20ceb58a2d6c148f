"""Parts of the rows of `jagged`, and their scores by the model `sums`, computed here."""

from __future__ import annotations

import itertools

import awkward as ak
import numpy as np
from plain_client import call


def chunks(jagged, number=30):
    """Split the rows into parts."""
    edges = np.linspace(0, len(jagged), number + 1).astype(int)
    return [jagged[start:stop] for start, stop in itertools.pairwise(edges)]


def sums(jagged):
    return np.stack([ak.to_numpy(ak.sum(jagged[name], axis=1)) for name in jagged.fields], axis=1)


def assert_undisturbed(scores, jagged):
    np.testing.assert_allclose(ak.to_numpy(scores), sums(jagged), atol=1e-4)


def inferences(server):
    """Return the number of rows that the server has scored with `sums`."""
    return call(server.grpc, "ModelStatistics", name="sums").model_stats[0].inference_count
