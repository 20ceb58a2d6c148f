"""The Dask notebook on a local facility, as `eaf-inference up` starts it."""

from __future__ import annotations

import json
import shutil

import awkward as ak
import pytest

from eaf_facility.local.demo import NOTEBOOKS, execute
from eaf_facility.local.single_user import up


@pytest.mark.slow
def test_the_notebook_gives_the_scores_of_the_model_called_directly(tmp_path, events):
    """Run it on the first 720 events, in two files; the stored notebook ran on all of them."""
    shutil.copy(NOTEBOOKS / "dask_gateway.ipynb", tmp_path)
    ak.to_parquet(events[:720], tmp_path / "jets.parquet")
    with up() as facility:
        executed = execute(tmp_path / "dask_gateway.ipynb", tmp_path / "executed", facility.description)
        password = facility.gateway.password_file.read_text()
    summary = executed.summary
    assert summary["largest difference to the notebook's own scores"] <= 1e-6
    assert summary["jets"] == ak.count(events[:720].jets.pt)
    assert summary["chunks"] == 2
    assert summary["jets in all"] == 9 * summary["jets"]  # once, twice by one worker, twice by two, four times
    assert summary["AUC"] >= 0.85
    assert 2 <= summary["most workers"] <= 4
    assert list(summary["jets/s by workers"]) == ["1", "2", "2 to 4, adaptive"]
    assert all(rate > 0 for rate in summary["jets/s by workers"].values())
    assert {"chunks begun again", "requests sent again"} <= set(summary)

    text = executed.notebook.read_text()
    assert password not in text
    cells = json.loads(text)["cells"]
    outputs = [shown for cell in cells for shown in cell.get("outputs", [])]
    assert all(shown["output_type"] != "error" for shown in outputs)
    assert any("cluster" in "".join(shown.get("data", {}).get("text/plain", "")) for shown in outputs)
    assert any("image/png" in shown.get("data", {}) for shown in outputs)


def test_the_stored_notebook_has_been_executed():
    cells = json.loads((NOTEBOOKS / "dask_gateway.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
