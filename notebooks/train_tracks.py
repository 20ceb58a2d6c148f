"""Train the graph network of `tracks.ipynb`, and write it into the Triton repository ``eaf_facility/servers/models``.

    pip install "eaf-inference[train]"
    python notebooks/train_tracks.py

A small interaction network (arXiv:1612.00222) on graphs of hits: an edge sees its ends, a node adds up its edges.
It takes about a minute on two cores. The sums are ScatterElements with reduction in the exported file.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import awkward as ak
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from tracks import graphs_of, toy_events, truth_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIRECTORY = Path(__file__).parents[1] / "eaf_facility" / "servers" / "models" / "track_finder"
GRAPH = {"x": "x", "edge_index": "edge_index", "edge_attr": "edge_attr", "outputs": {"score": "edge"}}
CONFIG = """# Written by notebooks/train_tracks.py.
name: "track_finder"
backend: "onnxruntime"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [-1, 4] }
input { name: "edge_index" data_type: TYPE_INT64 dims: [2, -1] }
input { name: "edge_attr" data_type: TYPE_FP32 dims: [-1, 3] }
output { name: "score" data_type: TYPE_FP32 dims: [-1] }
"""
SEED = 20261128
WIDTH = 24


def layers(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class TrackFinder(nn.Module):
    """Edges and nodes tell each other, three times, what they are; then each edge gets its score."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes, self.edges = layers(4, WIDTH, WIDTH), layers(3, WIDTH, WIDTH)
        self.of_edges = nn.ModuleList(layers(3 * WIDTH, WIDTH, WIDTH) for _ in range(3))
        self.of_nodes = nn.ModuleList(layers(3 * WIDTH, WIDTH, WIDTH) for _ in range(3))
        self.head = layers(3 * WIDTH, WIDTH, 1)

    def logits(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Scores before the sigmoid, one per edge."""
        source, target = edge_index[0], edge_index[1]
        nodes, edges = self.nodes(x), self.edges(edge_attr)
        for of_edges, of_nodes in zip(self.of_edges, self.of_nodes, strict=True):
            edges = edges + of_edges(torch.cat([nodes[source], nodes[target], edges], dim=1))
            inward, outward = (
                torch.zeros_like(nodes).scatter_add(0, end[:, None].expand_as(edges), edges)
                for end in (target, source)
            )
            nodes = nodes + of_nodes(torch.cat([nodes, inward, outward], dim=1))
        return self.head(torch.cat([nodes[source], nodes[target], edges], dim=1))[:, 0]

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """The probability that an edge joins two hits of one track."""
        return self.logits(x, edge_index, edge_attr).sigmoid()


def one_of(graphs: dict[str, ak.Array], event: int) -> dict[str, NDArray[np.generic]]:
    """One event's inputs."""
    return {name: ak.to_numpy(values[event]) for name, values in graphs.items()}


def train(events: int, epochs: int) -> TrackFinder:
    """Train on toy events, one step per 16 of them."""
    torch.manual_seed(SEED)
    sample = toy_events(events, SEED)
    graphs = graphs_of(sample)
    truth = truth_of(sample, graphs["edge_index"])
    print(f"training: {events} events, {ak.count(truth)} edges, {ak.mean(truth):.0%} of them true")
    single = [[torch.from_numpy(values) for values in one_of(graphs, event).values()] for event in range(events)]
    wanted = [torch.from_numpy(ak.to_numpy(each).astype(np.float32)) for each in truth]
    network = TrackFinder()
    print(f"{sum(each.numel() for each in network.parameters())} parameters")
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    steps = epochs * -(-events // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    random = np.random.default_rng(SEED)
    for epoch in range(epochs):
        losses = []
        for some in np.array_split(random.permutation(events), -(-events // 16)):
            sizes = np.array([len(single[event][0]) for event in some])
            before = np.cumsum(sizes) - sizes
            x = torch.cat([single[event][0] for event in some])
            index = torch.cat([single[event][1] + int(at) for event, at in zip(some, before, strict=True)], dim=1)
            logits = network.logits(x, index, torch.cat([single[event][2] for event in some]))
            loss = nn.functional.binary_cross_entropy_with_logits(
                logits, torch.cat([wanted[event] for event in some])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}", flush=True)
    return network.eval()


def export(network: TrackFinder) -> None:
    """Write the model's directory."""
    path = DIRECTORY / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    example = one_of(graphs_of(toy_events(1, 1)), 0)
    torch.onnx.export(
        network,
        tuple(map(torch.from_numpy, example.values())),
        str(path),
        input_names=list(example),
        output_names=["score"],
        dynamic_axes={"x": {0: "hits"}, "edge_index": {1: "edges"}, "edge_attr": {0: "edges"}, "score": {0: "edges"}},
        opset_version=17,  # ONNX Runtime 1.17 and later load it
        dynamo=False,
    )
    value = json.dumps(json.dumps(GRAPH))
    text = f'{CONFIG}parameters {{ key: "graph" value {{ string_value: {value} }} }}\n'
    (DIRECTORY / "config.pbtxt").write_text(text, encoding="utf-8")


def rate(network: TrackFinder, events: int) -> None:
    """Compare the exported file with the network, and print how well it finds edges."""
    session = onnxruntime.InferenceSession(DIRECTORY / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    sample = toy_events(events, SEED + 1)
    graphs = graphs_of(sample)
    scores, differences = [], []
    for event in range(events):
        inputs = one_of(graphs, event)
        scores.append(session.run(None, inputs)[0])
        with torch.no_grad():
            expected = network(*map(torch.from_numpy, inputs.values())).numpy()
        differences.append(np.abs(expected - scores[-1]).max(initial=0))
    found = np.concatenate(scores) > 0.5
    true = ak.to_numpy(ak.flatten(truth_of(sample, graphs["edge_index"])))
    print(
        f"held out: {events} events, edge efficiency {found[true].mean():.4f}, purity {true[found].mean():.4f}; "
        f"torch and ONNX Runtime differ by at most {max(differences):.1e}"
    )
    if max(differences) > 1e-5:
        raise RuntimeError("the exported model is not the trained one")


def main() -> None:
    """Train, write and rate the network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    network = train(options.events, options.epochs)
    export(network)
    rate(network, 200)


if __name__ == "__main__":
    main()
