"""`eaf-inference check`: check the models of a Triton repository before they go to a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._commands import FAILED, add_command
from eaf_inference._text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from eaf_inference._commands import Commands
    from eaf_inference.deploy.repository_checks import Checked

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add the command to the program."""
    parser = add_command(
        commands,
        "check",
        _check,
        extra="deploy",  # it brings onnx and onnxruntime
        summary="check the models of a Triton repository, and say what to change in the export",
        description="Check every model of a Triton repository: its files, its config.pbtxt, and for ONNX models the "
        "scores of generated rows, which must not depend on other rows of a request or on padding. Needs no server. "
        "The exit code is 1 if a model has an error; a warning alone does not fail.",
        examples=["check models", "check models --model tagger", "check models --json > findings.json"],
    )
    parser.add_argument(
        "repository", metavar="REPOSITORY", type=Path, help="directory with one directory for each model"
    )
    parser.add_argument("--model", metavar="NAME", help="check only this model")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for another program")
    parser.add_argument(
        "--allow-python",
        action="store_true",
        help="accept models that run Python code on the server",
    )
    parser.add_argument(
        "--opset",
        metavar="N",
        type=int,
        help="newest ONNX opset that the server reads, such as 21 for Triton 24.10 (default: that of the onnxruntime "
        "installed here)",
    )


def _check(options: argparse.Namespace) -> int:
    """Check the models, and print what was found."""
    from eaf_inference.deploy.repository_checks import Rules, check_repository

    for library in ("onnx", "onnxruntime"):  # a missing one is no fault of the models
        import_module(library)
    rules = Rules(allow_python=options.allow_python, opset_limit=options.opset)
    checked = check_repository(options.repository.expanduser(), rules, model=options.model)
    print(_as_json(checked) if options.json else _as_text(checked))
    return FAILED if any(each.findings.errors for each in checked) else 0


def _as_json(checked: Sequence[Checked]) -> str:
    models = [
        {"model": each.name, "scores": each.scores, "findings": [asdict(finding) for finding in each.findings]}
        for each in checked
    ]
    return json.dumps(models, indent=2, ensure_ascii=False)


def _as_text(checked: Sequence[Checked]) -> str:
    lines = []
    for each in checked:
        state = "error" if each.findings.errors else "warning" if each.findings else "ok"
        lines.append(f"{state:<8} {printable(each.name)}{each.scores and f' ({each.scores})'}")
        for finding in each.findings:
            lines.append(f"  {finding.severity} {finding.code}: {printable(finding.what)}")
            lines.append(f"    expected: {printable(finding.expected)}")
            lines.append(f"    to do: {printable(finding.do)}")
    failed = sum(bool(each.findings.errors) for each in checked)
    lines.append(f"{len(checked)} model{'s' * (len(checked) != 1)} checked, {failed} with errors.")
    return "\n".join(lines)
