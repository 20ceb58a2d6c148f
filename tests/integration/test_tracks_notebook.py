"""The notebook that finds tracks with a graph network, on a local facility."""

from __future__ import annotations

import json
import sys

import awkward as ak
import numpy as np
import onnxruntime
import pytest

import eaf_inference
from eaf_facility.local.demo import NOTEBOOKS, execute
from eaf_facility.local.single_user import up
from eaf_facility.servers.triton import MODELS, TritonServer


@pytest.mark.slow
def test_the_notebook_finds_the_tracks(tmp_path):
    with up(gateway=False) as facility:
        executed = execute(NOTEBOOKS / "tracks.ipynb", tmp_path, facility.description)
    summary = executed.summary
    assert summary["events"] == 500
    assert summary["track efficiency"] > 0.9
    assert summary["track purity"] > 0.9
    assert summary["largest difference to each event alone"] <= 1e-6
    outputs = [
        shown for cell in json.loads(executed.notebook.read_text())["cells"] for shown in cell.get("outputs", [])
    ]
    assert all(shown["output_type"] != "error" for shown in outputs)
    assert any("image/png" in shown.get("data", {}) for shown in outputs)


def test_the_trained_network_scores_each_event_as_alone(monkeypatch):
    """In one request, beside events without hits."""
    monkeypatch.syspath_prepend(str(NOTEBOOKS))
    from tracks import graphs_of, toy_events

    graphs = graphs_of(toy_events(40, seed=3))
    empty = {"x": graphs["x"][:2, :0], "edge_index": graphs["edge_index"][:2, :, :0]}
    empty["edge_attr"] = graphs["edge_attr"][:2, :0]
    graphs = {name: ak.concatenate([each[:3], empty[name], each[3:]]) for name, each in graphs.items()}
    with TritonServer.start([MODELS]) as server, eaf_inference.connect(server.grpc) as triton:
        model = triton.model("track_finder", cell_budget=100_000)
        scores = model(graphs)
        assert model.note == ""
    session = onnxruntime.InferenceSession(MODELS / "track_finder" / "1" / "model.onnx")
    for event, own in enumerate(scores):
        [alone] = session.run(None, {name: ak.to_numpy(each[event]) for name, each in graphs.items()})
        np.testing.assert_allclose(ak.to_numpy(own), alone, atol=1e-6)
    sys.modules.pop("tracks")


def test_the_stored_notebook_has_been_executed():
    cells = json.loads((NOTEBOOKS / "tracks.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
