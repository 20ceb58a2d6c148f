"""The table of models in a narrow and in a wide browser window."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eaf_inference.inference.deployment_facts import DeploymentFacts
from eaf_inference.inference.repository import ModelRow, ModelTable

LONG = "particle_transformer_" + "with_a_rather_long_name_" * 6
TENSORS = tuple(f"{LONG}{number}: FP32 [{number}, -1]" for number in range(2))

# Of each cell: its width, and whether all of what it says lies inside.
_CELLS = """() => [...document.querySelectorAll('td')].map(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const inner = range.getBoundingClientRect();
  const outer = cell.getBoundingClientRect();
  return { width: outer.width, inside: inner.right <= outer.right + 1 && inner.bottom <= outer.bottom + 1 };
})"""


@pytest.mark.parametrize("deployed", [False, True])
@pytest.mark.parametrize("width", [250, 1400])
def test_long_names_wrap_and_leave_every_column_readable(browser, width, deployed):
    rows = [
        ModelRow(f"{LONG}{place}", "1", TENSORS, TENSORS, ready=True, state="ready", queue_ms=0.0) for place in "ab"
    ]
    waits = ModelRow("jets", "1", ("x: FP32 [2]",), (), ready=False, state="no " + "backend" * 30, queue_ms=None)
    columns = (0, 2, 3)  # model, inputs and outputs
    if deployed:
        facts = DeploymentFacts(size=12_345_678)
        rows[0] = replace(rows[0], deployed=facts, owner="o" * 120, last_used=0.0)
        columns = (0, 5, 6)
    tab = browser.new_page(viewport={"width": width, "height": 900})
    try:
        tab.set_content(ModelTable([*rows, waits]).html())
        cells = tab.evaluate(_CELLS)
        assert all(cell["inside"] for cell in cells)
        narrowest = min(cells[column]["width"] for column in columns)
        assert narrowest >= 100  # a word or two
        assert max(cell["width"] for cell in cells) <= 320
        page, table = tab.evaluate(
            "() => [document.documentElement.scrollWidth, document.querySelector('table').offsetWidth]"
        )
        assert page <= width  # a wide table scrolls inside its output, not the page
        assert width < 1400 or deployed or table <= width
    finally:
        tab.close()
