"""Before an ONNX model is deployed, its scores are compared with those of the network from which it was made."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from eaf_inference.deploy.config_text import parsed  # noqa: E402
from eaf_inference.deploy.configuration import Choices, written  # noqa: E402
from eaf_inference.deploy.exported import Export  # noqa: E402
from eaf_inference.deploy.onnx_file import OnnxFile  # noqa: E402
from eaf_inference.deploy.score_checks import score_findings  # noqa: E402
from eaf_inference.inference.spec import ModelSpec  # noqa: E402

ROWS = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
MISSING = np.where(np.arange(200)[:, None] % 10 == 9, np.float32("nan"), ROWS)


@pytest.fixture
def findings(tmp_path):
    """Return a function that checks the model y = max(x, 0) against what it was made from."""
    path = tmp_path / "model.onnx"
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    def check(of_rows, rows, **choices):
        export = Export(
            {"model.onnx": path}, "onnxruntime", path, reference=lambda arrays: {"y": of_rows(arrays["x"])}
        )
        text = written("relu", OnnxFile.read(path), export, Choices(**choices))
        return score_findings(path, ModelSpec.from_config(parsed(text), ""), rows, reference=export.reference)

    return check


@pytest.mark.parametrize("choices", [{}, {"pad_batches_to": 4}, {"max_batch_size": 0}], ids=["free", "four", "none"])
def test_equal_scores_are_no_finding(findings, choices):
    rows = ROWS[:1] if choices == {"max_batch_size": 0} else MISSING
    assert findings(lambda x: np.maximum(x, 0) * np.float32(1 + 1e-6), rows, **choices) == []


def test_other_scores_are_an_error_and_in_few_rows_a_warning(findings):
    (finding,) = findings(lambda x: np.abs(x), ROWS)
    assert (finding.code, finding.severity) == ("differs-from-source", "error")
    assert "of 64 rows of finite numbers, by up to" in finding.what
    few = ROWS[np.linspace(0, 199, 64).round().astype(int)][7]  # one of the rows that are tried
    (finding,) = findings(lambda x: np.maximum(x, 0) + (x == few), ROWS)
    assert finding.severity == "warning"
    assert "1 of 64 rows of finite numbers, by up to 0.39, first for row 22." in finding.what


def test_other_scores_for_a_few_missing_values_are_an_error(findings):
    (finding,) = findings(lambda x: np.nan_to_num(np.maximum(x, 0)), MISSING)
    assert finding.severity == "error"
    assert "rows of NaN or infinity, in shape, in whole numbers, or with NaN or infinity in one" in finding.what
    assert "replace_inf_value" in finding.do


@pytest.mark.parametrize("of_rows", [lambda x: np.maximum(x, 0).astype(int), lambda x: np.maximum(x, 0)[:, :2]])
def test_other_whole_numbers_and_shapes_are_not_said_to_be_missing_values(findings, of_rows):
    (finding,) = findings(of_rows, ROWS)
    assert "of 64 rows of finite numbers, in shape, in whole numbers, or with NaN" in finding.what


@pytest.mark.parametrize(("rows", "codes"), [(1, ["small-example"]), (7, ["small-example"]), (8, [])])
def test_an_example_of_a_few_rows_is_a_warning(findings, rows, codes):
    found = findings(lambda x: np.maximum(x, 0), ROWS[:rows])
    assert found.codes == codes
    assert not found.errors


def test_rows_for_which_the_users_own_model_fails_are_a_warning(findings):
    def fail(_x: np.ndarray) -> np.ndarray:
        raise ValueError("no such rows")

    (finding,) = findings(fail, ROWS)
    assert (finding.code, finding.severity) == ("source-fails", "warning")
    assert "fails for 64 rows of the example that 'relu' scores: no such rows." in finding.what
