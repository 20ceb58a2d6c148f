"""The tables "run, rendered, read" in the operators' guide are true: each test exists, and each file has a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADER = "| what | how | by |"
TESTS = {path.name: path for path in (ROOT / "tests").rglob("*.py")}
PAGES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs" / "operators").glob("*.md"))
    if HEADER in path.read_text(encoding="utf-8")
}


def rows(page):
    """Return the cells of the table's rows."""
    _, _, below = PAGES[page].partition(HEADER)
    lines = below.splitlines()[2:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


@pytest.mark.parametrize("page", PAGES)
def test_each_row_says_how_and_names_tests_that_exist(page):
    assert len(rows(page)) > 1
    for row in rows(page):
        what, how, by = row
        assert what
        assert re.match(r"(run|rendered|read)\b", how), row
        files = re.findall(r"`(\w+\.py)`", by)
        assert files or by == "by hand", row
        assert how.startswith("read") or files, row
        text = "".join(TESTS[each].read_text(encoding="utf-8") for each in files)
        for name in re.findall(r"`(\w+)`", by):
            assert f"def {name}(" in text, f"{name} is not in {files}"


def test_each_file_for_kubernetes_has_a_row():
    directory = ROOT / "docs" / "kubernetes"
    listed = {name for what, _, _ in rows("kubernetes") for name in re.findall(r"`([\w./-]+)`", what)}
    ignored = {"supersonic-envoy/envoy.yaml"}  # the guide's command makes it
    present = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix not in {".whl", ".pyc"}
    } - ignored
    assert {each for each in listed if "." in each} == present
