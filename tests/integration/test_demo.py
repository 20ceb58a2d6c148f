"""`eaf-inference demo`, end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from eaf_facility.local.demo import NOTEBOOKS, execute
from eaf_facility.local.doctor import leftovers
from eaf_inference.discovery.local_facility import LocalFacility, Replica
from eaf_inference.errors import InferenceError


@pytest.mark.slow
def test_the_demo_classifies_the_sample_and_leaves_nothing_running(tmp_path):
    earlier = leftovers()  # of a session that was killed on this machine
    done = subprocess.run(
        [sys.executable, "-m", "eaf_inference.cli", "demo", "--output", tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "quickstart.ipynb").read_text()
    assert "widget-view" not in text  # widget state is not saved
    notebook = json.loads(text)
    [cell] = [cell for cell in notebook["cells"] if "summary" in cell["metadata"].get("tags", [])]
    [output] = cell["outputs"]
    summary = output["metadata"]["summary"]
    assert "| jets/s " in "".join(output["data"]["text/plain"])  # aligned where Markdown is not rendered
    assert summary["jets"] >= 6000
    assert summary["AUC"] >= 0.85
    assert summary["largest difference to local ONNX Runtime"] <= 1e-5
    for value in (f"{summary['AUC']}", f"{summary['jets/s']:,}", "quickstart.html"):
        assert value in done.stdout
    assert "Classify" in done.stdout  # progress
    page = (tmp_path / "quickstart.html").read_text()
    assert re.search(r"<td[^>]*>background rejection at 30%</td>", page)
    assert "IPython.core.display" not in page
    assert set(leftovers()) <= set(earlier)
    with pytest.raises(ConnectionRefusedError):
        _connect(summary["server"])


def _connect(url):
    import socket

    host, _, port = url.removeprefix("grpc://").rpartition(":")
    socket.create_connection((host, int(port))).close()


def test_a_failing_cell_is_reported_and_the_notebook_kept(tmp_path):
    dead = LocalFacility(pid=0, started=0, replicas=(Replica("grpc://127.0.0.1:1", "", "", 0, ""),), models=())
    with pytest.raises(InferenceError, match="(?s)A cell of quickstart.ipynb failed: NoServerFound: .*refused"):
        execute(NOTEBOOKS / "quickstart.ipynb", tmp_path, dead)
    assert '"output_type": "error"' in (tmp_path / "quickstart.ipynb").read_text()
