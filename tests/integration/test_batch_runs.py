"""A notebook run as a batch job, as by nbconvert or papermill, waits for no user."""

from __future__ import annotations

import logging

import nbformat
from nbclient import NotebookClient

CELLS = (
    "%load_ext eaf_inference\n%triton_connect",
    """
import numpy as np
from eaf_inference.inference import progress
progress._SHOWN_AFTER = 0.0
model = triton.model("sums")
sums = model({"x": np.ones((20_000, 2, 8), np.float32)})
""",
    "triton.monitor()",
)


def test_a_batch_run_opens_no_comm_and_writes_bars_as_text(zoo, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("EAF_TRITON_URL", zoo.grpc)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    with caplog.at_level(logging.WARNING):
        NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "No handler found for comm target" not in caplog.text
    shown = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert [output for output in shown if output["output_type"] in ("stream", "error")] == []
    assert [output for output in shown if "application/vnd.jupyter.widget-view+json" in output["data"]] == []
    (bar,) = book.cells[1].outputs
    assert bar["data"]["text/plain"].startswith("sums: 100%|")
    assert "20.0k/20.0k [" in bar["data"]["text/plain"]
    assert "Triton" in book.cells[2].outputs[0]["data"]["text/html"]
