"""Text is read and written as UTF-8 in any locale, since names may have any letters."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("eaf_inference", "eaf_facility", "benchmarks")
FILES = [path for each in PACKAGES for path in (ROOT / each).rglob("*.py") if "node_modules" not in path.parts]


def text_without_encoding(source: str) -> list[int]:
    """Return the lines of calls that read or write text in the locale's encoding."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {keyword.arg for keyword in call.keywords}
        modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        flags = {keyword.arg for keyword in call.keywords if getattr(keyword.value, "value", None) is True}
        as_text = (
            name in ("read_text", "write_text")
            or bool(flags & {"text", "universal_newlines"})
            or (name in ("open", "fdopen") and any(mode in ("r", "w", "a", "x", "r+", "w+") for mode in modes))
        )
        if as_text and "encoding" not in given:
            found.append(call.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_is_read_or_written_in_the_locales_encoding(path):
    assert text_without_encoding(path.read_text(encoding="utf-8")) == []


def test_every_call_without_an_encoding_is_found():
    lines = (
        "p.read_text()",
        "p.open('w')",
        "open(p, 'a')",
        "os.fdopen(d, 'w')",
        "run(c, text=True)",
        "p.write_text(t)",
    )
    assert text_without_encoding("\n".join(lines)) == [1, 2, 3, 4, 5, 6]
    assert text_without_encoding("p.open('rb')\nrun(c, capture_output=True)\np.read_text(encoding='utf-8')") == []
