"""The notebook over a Dask cluster, on the facility that the user's first command starts."""

from __future__ import annotations

import json

from eaf_inference.facility.demo import NOTEBOOKS, execute
from eaf_inference.facility.machine import up


def test_the_notebook_over_a_cluster_gives_the_scores_that_the_notebook_alone_gives(tmp_path):
    with up() as facility:
        executed = execute(NOTEBOOKS / "dask_gateway.ipynb", tmp_path, facility.description)
        password = facility.gateway.password_file.read_text()
    summary = executed.summary
    assert summary["largest difference to the notebook's own scores"] <= 1e-6
    assert summary["jets"] == 6498
    assert summary["chunks"] == 7
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


def test_the_stored_notebook_is_one_that_ran():
    cells = json.loads((NOTEBOOKS / "dask_gateway.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
