"""Toy tracks in a layered detector, and graphs of their hits: what `tracks.ipynb` and `train_tracks.py` share."""

from __future__ import annotations

import awkward as ak
import numpy as np
from scipy.spatial import cKDTree

RADII = np.array([0.03, 0.06, 0.1, 0.16, 0.25, 0.36, 0.5])  # metres
NEIGHBOURS = 6
NOISE = 0.15  # hits that belong to no track, as a fraction of the others
_SMEAR = 5e-4  # radians, and metres along the beam
_FIELD = 2.0  # tesla
_LONGEST = 0.5  # of an edge, in the space where neighbours are sought


def toy_events(events: int, seed: int) -> ak.Array:
    """Make events of 5 to 20 helices from the origin, each with at most one hit in every layer, and noise.

    Returns
    -------
    awkward.Array
        events × hits of records: radius r (m), phi, z (m), layer, and the number of the track, -1 for noise.
    """
    random = np.random.default_rng(seed)
    tracks = random.integers(5, 21, events)
    number = tracks.sum()
    pt = 0.5 + random.exponential(1.0, number)  # GeV
    charge = random.choice([-1, 1], number)
    phi, cot = random.uniform(-np.pi, np.pi, number), np.sinh(random.uniform(-1, 1, number))
    origin = random.normal(0, 0.02, number)
    curvature = 0.3 * _FIELD / pt  # 1 / m
    bend = np.arcsin(np.clip(RADII * curvature[:, None] / 2, -1, 1))
    arc = 2 * bend / curvature[:, None]
    seen = random.random((number, len(RADII))) < 0.97
    track, layer = np.nonzero(seen)
    hit_phi = (phi[:, None] + charge[:, None] * bend)[seen] + random.normal(0, _SMEAR, len(track))
    hit_z = (origin[:, None] + cot[:, None] * arc)[seen] + random.normal(0, _SMEAR, len(track))
    event = np.repeat(np.arange(events), tracks)[track]
    first = (np.cumsum(tracks) - tracks)[event]

    noise = random.binomial(np.bincount(event, minlength=events), NOISE)
    extra = noise.sum()
    noise_layer = random.integers(0, len(RADII), extra)
    spread = 0.03 + 1.2 * RADII[noise_layer]
    all_events = np.concatenate([event, np.repeat(np.arange(events), noise)])
    layers = np.concatenate([layer, noise_layer])
    order = np.lexsort((random.random(len(all_events)), all_events))
    fields = {
        "r": RADII[layers],
        "phi": np.concatenate([hit_phi, random.uniform(-np.pi, np.pi, extra)]),
        "z": np.concatenate([hit_z, random.uniform(-1, 1, extra) * spread]),
        "layer": layers,
        "track": np.concatenate([track * 0 + (track - first), np.full(extra, -1)]),
    }
    fields["phi"] = (fields["phi"] + np.pi) % (2 * np.pi) - np.pi
    counts = np.bincount(all_events, minlength=events)
    return ak.zip({name: ak.unflatten(values[order], counts) for name, values in fields.items()})


def graphs_of(events: ak.Array) -> dict[str, ak.Array]:
    """Join each hit with its nearest neighbours in layers further out.

    Returns
    -------
    dict
        x: events × hits × 4, (cos phi, sin phi, z, r); edge_index: events × 2 × edges, from the inner hit to the
        outer; edge_attr: events × edges × 3, the differences in phi, in z / r and in r.
    """
    nodes, ends, attributes = [], [], []
    for hits in events:
        r, phi, z = (ak.to_numpy(hits[name]) for name in ("r", "phi", "z"))
        slope = z / r
        space = np.stack([2 * np.cos(phi), 2 * np.sin(phi), slope], axis=1)  # neighbours look from the origin alike
        layer = ak.to_numpy(hits.layer)
        distance, other = cKDTree(space).query(space, k=min(4 * NEIGHBOURS, len(space)))
        itself = np.broadcast_to(np.arange(len(space))[:, None], other.shape)
        outward = (layer[other] > layer[itself]) & (layer[other] <= layer[itself] + 2) & (distance < _LONGEST)
        near = outward & (np.cumsum(outward, axis=1) <= NEIGHBOURS)
        source, target = itself[near], other[near]
        turn = (phi[target] - phi[source] + np.pi) % (2 * np.pi) - np.pi
        step = r[target] - r[source]
        ends.append(np.stack([source, target]))
        attributes.append(np.stack([20 * turn, 20 * (slope[target] - slope[source]), 5 * step], axis=1))
        nodes.append(np.stack([np.cos(phi), np.sin(phi), 2 * z, 2 * r], axis=1))
    hits, edges = [len(each) for each in nodes], [each.shape[1] for each in ends]
    index = np.concatenate(ends, axis=1)
    source, target = (ak.unflatten(end, edges) for end in index)
    return {
        "x": ak.unflatten(ak.from_numpy(np.concatenate(nodes).astype(np.float32)), hits),
        "edge_index": ak.concatenate([source[:, None], target[:, None]], axis=1),
        "edge_attr": ak.unflatten(ak.from_numpy(np.concatenate(attributes).astype(np.float32)), edges),
    }


def truth_of(events: ak.Array, edge_index: ak.Array) -> ak.Array:
    """Return which edges join two hits of one track, events × edges."""
    source, target = events.track[edge_index[:, 0]], events.track[edge_index[:, 1]]
    return (source == target) & (source >= 0)
