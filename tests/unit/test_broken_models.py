"""Each broken model gets exactly the finding that is expected, whose text names the fix; good models get none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import broken_models
from model_cases import INT64, constant, graph_of, node, save, tensor
from onnx import TensorProto, helper

from eaf_inference.deploy.repository_checks import Rules, check_model, check_repository

BOOL = TensorProto.BOOL

if TYPE_CHECKING:
    from pathlib import Path

    from broken_models import Case

    from eaf_inference.deploy.repository_checks import Checked


def checked(case: Case, root: Path) -> Checked:
    directory = root / case.directory
    case.make(directory)
    if case.code == "unreadable":  # by the operating system: a check of the repository says so
        return check_repository(root, Rules(**case.rules), model=case.directory)[0]
    return check_model(directory, Rules(**case.rules), example=case.example, names=[case.directory])


@pytest.mark.parametrize("name", broken_models.BROKEN)
def test_a_broken_model_gets_one_message_that_names_the_fix(name: str, tmp_path: Path):
    case = broken_models.BROKEN[name]
    findings = checked(case, tmp_path).findings
    assert findings.codes == [case.code], findings
    (finding,) = findings
    for words in case.fix:
        assert words in str(finding)
    assert finding.do.endswith(".")
    assert finding.what.endswith((".", "?", "…")), finding.what
    assert finding.expected
    assert not finding.expected.endswith(".")
    assert "\n" not in str(finding)
    assert "Traceback" not in str(finding)


@pytest.mark.parametrize("name", broken_models.GOOD)
def test_a_good_model_gets_no_message(name: str, tmp_path: Path):
    assert checked(broken_models.GOOD[name], tmp_path).findings == []


@pytest.mark.parametrize("rounds", [1, 1 << 62])
def test_a_loop_that_does_not_end_is_stopped_and_named(rounds: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("eaf_inference.deploy.local_model._MOST_SECONDS", 0.5 if rounds > 1 else 300)
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Relu", "v", "w")],
        "body",
        [tensor("i", kind=INT64), tensor("go", kind=BOOL), tensor("v", "r", 2)],
        [tensor("on", kind=BOOL), tensor("w", "r", 2)],
    )
    loop = helper.make_node("Loop", ["rounds", "go", "x"], ["y"], body=body)
    constants = [constant("rounds", rounds, INT64), constant("go", 1, BOOL)]
    save(tmp_path / "tagger", graph_of([loop], [tensor("x", "r", 2)], [tensor("y", "r", 2)], constants))
    findings = check_model(tmp_path / "tagger", Rules()).findings
    if rounds == 1:
        assert findings == []
        return
    assert findings.codes == ["endless"]
    assert "has not scored one request within 0.5 s." in str(findings)
    assert "Bound the loops in forward" in str(findings)


def test_there_are_fifty_broken_models():
    assert len(broken_models.BROKEN) >= 50
