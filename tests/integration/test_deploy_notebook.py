"""The notebook that deploys models of torch, ONNX, scikit-learn and XGBoost, on a local facility."""

from __future__ import annotations

import pytest

from eaf_facility.local.demo import NOTEBOOKS, execute
from eaf_facility.local.single_user import up

pytestmark = pytest.mark.extended

for library in ("torch", "onnxscript", "skl2onnx", "xgboost", "onnxmltools"):
    pytest.importorskip(library)


@pytest.mark.slow
def test_the_notebook_deploys_compares_rolls_back_and_removes(tmp_path):
    with up(gateway=False) as facility:
        summary = execute(NOTEBOOKS / "deploy.ipynb", tmp_path, facility.description).summary
    assert summary["largest difference to torch"] <= 1e-5
    assert summary["equal scores after the rollback"]
    assert summary["models left"] == []
