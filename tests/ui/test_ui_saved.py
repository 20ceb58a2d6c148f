"""A saved notebook of another user: its untrusted outputs are readable, and look outdated."""

from __future__ import annotations

import re

import nbformat
from playwright.sync_api import expect

import eaf_inference
from eaf_inference.notebook.static_views import monitor_html

_OPEN = """async path => {
  const panel = await window.jupyterapp.commands.execute('docmanager:open', { path });
  await panel.context.ready;
}"""
_STYLE_OF = """node => {
  const { borderCollapse } = getComputedStyle(node.closest('table'));
  const { backgroundColor } = getComputedStyle(node.closest('tr'));
  const { paddingLeft, paddingRight, textAlign, verticalAlign } = getComputedStyle(node);
  return { backgroundColor, borderCollapse, paddingLeft, paddingRight, textAlign, verticalAlign };
}"""
AS_BEFORE = {
    "backgroundColor": "rgba(0, 0, 0, 0)",
    "borderCollapse": "collapse",
    "paddingLeft": "0px",
    "paddingRight": "12px",
    "textAlign": "left",
    "verticalAlign": "baseline",
}


def test_untrusted_saved_outputs_keep_their_tables_and_time(lab, server, page):
    with eaf_inference.connect(server.grpc) as triton:
        shown = [each._repr_html_() for each in (triton, triton.models(), triton.model("jet_regression"))]
    shown.append(monitor_html(None, (), None, None, problem="", live=False))
    outputs = [nbformat.v4.new_output("display_data", {"text/html": html}) for html in shown]
    cells = [nbformat.v4.new_code_cell("triton", outputs=[output]) for output in outputs]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.directory / "strangers.ipynb")

    page.tab.evaluate(_OPEN, "strangers.ipynb")
    connection, models, model, monitor = (page.output(page.cells.nth(number)) for number in range(4))
    expect(connection).to_have_text(
        re.compile(r"Triton grpc://\S+ · connected as of \d{4}-\d\d-\d\d \d\d:\d\d \S+ ·")
    )
    expect(connection).not_to_contain_text("●")
    expect(monitor).to_contain_text(re.compile(r"\d{4}-\d\d-\d\d"))
    for table in (models, model):
        first = table.get_by_role("cell").first
        assert first.evaluate(_STYLE_OF) == AS_BEFORE
    state = models.get_by_role("row", name="particlenet").get_by_text("ready")
    trusted, colour = "var(--eaf-good)", state.evaluate("node => getComputedStyle(node).color")
    assert trusted not in (state.get_attribute("style") or "")  # the notebook is untrusted
    assert colour == models.evaluate("node => getComputedStyle(node).color")
