"""Each broken model gets exactly the finding that is expected, whose text names the fix; good models get none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import broken_models

from eaf_inference.deploy.repository_checks import Rules, check_model

if TYPE_CHECKING:
    from pathlib import Path

    from broken_models import Case

    from eaf_inference.deploy.repository_checks import Checked


def checked(case: Case, root: Path) -> Checked:
    directory = root / case.directory
    case.make(directory)
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


def test_there_are_fifty_broken_models():
    assert len(broken_models.BROKEN) >= 50
