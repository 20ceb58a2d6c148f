"""`eaf-inference check`: exit codes, text and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from broken_models import BROKEN, GOOD

from eaf_inference.cli import main
from eaf_inference.deploy.findings import ERROR, WARNING, Finding, Findings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    GOOD["generated_rows_of_numbers"].make(tmp_path / "good")
    BROKEN["batch_of_one"].make(tmp_path / "fixed")
    BROKEN["weights_of_zero"].make(tmp_path / "zeros")
    return tmp_path


def test_every_model_is_listed_with_what_to_do(repository: Path, capsys):
    assert main(["check", str(repository)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["error", "fixed"]
    assert lines[1].startswith("  error fixed-batch-axis: The first axis of 'fixed'")
    assert lines[2].startswith("    expected: ")
    assert lines[3].startswith("    to do: Export it with a free first axis: torch.onnx.export(")
    assert lines[4] == "ok       good (its scores were checked with generated rows, which are random numbers)"
    assert lines[5].split()[:2] == ["warning", "zeros"]
    assert lines[-1] == "3 models checked, 1 with errors."


@pytest.mark.parametrize(("model", "code"), [("good", 0), ("zeros", 0), ("fixed", 1)])
def test_the_exit_code_tells_whether_a_model_has_an_error(repository: Path, capsys, model: str, code: int):
    assert main(["check", str(repository), "--model", model, "--json"]) == code
    (found,) = json.loads(capsys.readouterr().out)
    assert found["model"] == model
    for finding in found["findings"]:
        assert set(finding) == {"code", "severity", "what", "expected", "do"}


def test_a_model_that_is_not_there_is_an_error_in_words(repository: Path, capsys):
    assert main(["check", str(repository), "--model", "god"]) == 1
    assert "has no model 'god'. Did you mean 'good'? It has fixed, good, zeros." in capsys.readouterr().err
    assert main(["check", str(repository / "absent")]) == 1
    assert "is no directory. Expected a Triton model repository" in capsys.readouterr().err


def test_a_model_is_not_taken_for_a_repository(repository: Path, capsys):
    assert main(["check", str(repository / "good")]) == 1
    assert "Pass the directory above it." in capsys.readouterr().err


def test_a_model_that_cannot_be_read_leaves_the_others_checked(repository: Path, capsys):
    (repository / "good" / "config.pbtxt").unlink()
    (repository / "good" / "config.pbtxt").mkdir()
    assert main(["check", str(repository)]) == 1
    shown = capsys.readouterr().out
    assert "config.pbtxt cannot be read: it is no regular file." in shown
    assert "3 models checked, 2 with errors." in shown


def test_a_model_that_is_a_link_out_of_the_repository_is_an_error(repository: Path, tmp_path_factory, capsys):
    (repository / "linked").symlink_to((repository / "good").rename(tmp_path_factory.mktemp("elsewhere") / "good"))
    assert main(["check", str(repository), "--model", "linked"]) == 1
    assert "error link-outside: linked is a link out of the repository." in capsys.readouterr().out


def test_the_opset_of_the_server_is_an_option(repository: Path, capsys):
    assert main(["check", str(repository), "--model", "good", "--opset", "15"]) == 1
    assert "opset_version=15" in capsys.readouterr().out


def test_findings_print_as_a_list_and_show_as_a_table():
    found = Findings(
        [
            Finding("opset", ERROR, "'a' has <opset> 30.", "21", "Export it again."),
            Finding("constant-scores", WARNING, "'a\x1b' is\nthe same.", "scores", "Check it."),
        ]
    )
    assert str(found.errors) == "error opset: 'a' has <opset> 30. Expected 21. Export it again."
    assert repr(found).splitlines()[1].startswith("warning constant-scores: 'a\\x1b' is the same. Expected")
    shown = found._repr_html_()
    assert "&lt;opset&gt;" in shown
    assert "<opset>" not in shown
    assert "\x1b" not in shown
    assert str(Findings()) == Findings().errors._repr_html_()[-len("No problem was found.</div>") : -len("</div>")]
