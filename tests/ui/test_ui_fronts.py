"""Panel and widget in Notebook 7 and marimo."""

from __future__ import annotations

import json
import re

import pytest
from marimo_server import MarimoPage, cell
from page import LabPage, prompt
from playwright.sync_api import expect
from test_ui_notebook import PREPARE, draws

EMPTY = {
    "cells": [],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


class NotebookPage(LabPage):
    """A page with one notebook in Notebook 7."""

    SAYS = {  # noqa: RUF012
        **LabPage.SAYS,
        r"warning: Plugin @jupyter-notebook/\S+ .*to activate\. \(": "one of its own took seconds, on a busy machine",
        r"warning: Menu entry for command '\S+' is duplicated\.": "of its own commands",
        r"warning: \[yjs#509\] Not same Y\.Doc": "whatever it opens",
        r"exception: [^\n]*\n +at \S+/static/notebook/notebook_core": "it reads settings of a missing plugin",
    }

    def enter(self, lab, workspace):
        path = lab.directory / f"{workspace}.ipynb"
        path.write_text(json.dumps(EMPTY))
        self.tab.goto(f"{lab.url}notebooks/{path.name}?token={lab.token}")

    def choose(self, menu, *items):
        self.tab.locator(".lm-MenuBar-item", has_text=menu).click()
        for item in items:
            self.tab.locator(".lm-Menu-item", has_text=item).click()


@pytest.mark.slow
def test_notebook_7_has_panel_widget_and_toolbar_button(start_lab, server, visit):
    notebook = start_lab(application="notebook", urls=[server.grpc], metrics_urls=[server.metrics])
    page = visit(notebook, kind=NotebookPage)
    page.choose("View", "Right Sidebar", "Show Triton")
    expect(page.panel).to_be_visible(timeout=20_000)
    middle = page.tab.viewport_size["width"] / 2
    assert page.panel.bounding_box()["x"] > middle
    page.notebook.get_by_role("button", name="Connect this notebook to Triton").click()
    expect(page.output(page.cells.first)).to_contain_text("found by", timeout=60_000)
    page.run(PREPARE)
    page.run("triton.monitor()")
    busy = page.begin("scores = model(jets(300_000))")
    expect(page.widget).to_contain_text(re.compile(r"[1-9][\d,]* of 300,000 jets"), timeout=60_000)
    expect(page.section("Notebooks")).to_contain_text(re.compile(r"particlenet · \d+%"), timeout=60_000)
    expect(page.panel.locator(".jp-EafInference-advice")).to_be_visible(timeout=60_000)
    expect(prompt(busy)).to_have_text("[*]:")
    page.section("Notebooks").get_by_role("button", name="Stop").click()
    page.wait_until_ended(busy)


INFERS_UNTIL = """
import pathlib
while not pathlib.Path({seen!r}).exists():
    scores = model(jets(400))
print(len(scores), "scores")
"""


def test_marimo_shows_connection_models_scores_and_a_live_widget(start_marimo, server, visit, tmp_path):
    seen = tmp_path / "seen"
    cells = (
        cell("import eaf_inference\ntriton = eaf_inference.connect()\ntriton", gives="triton"),
        cell("triton.models()", takes="triton"),
        cell("monitor = triton.monitor()\nmonitor", takes="triton", gives="monitor"),
        cell(PREPARE + INFERS_UNTIL.format(seen=str(seen)), takes="monitor, triton"),
    )
    page = visit(start_marimo(*cells, urls=[server.grpc], metrics_urls=[server.metrics]), kind=MarimoPage)
    expect(page.widget).to_be_visible(timeout=60_000)
    mine = page.widget.get_by_role("img", name=re.compile(r"^This notebook.*now [1-9][\d,]* jets.s"))
    expect(mine).to_be_visible(timeout=60_000)
    assert draws(page, mine)
    seen.touch()
    expect(page.output(0)).to_contain_text(server.grpc)
    expect(page.output(1).get_by_role("row", name="particlenet")).to_contain_text("softmax: FP32 [2]")
    expect(page.tab.get_by_text("400 scores")).to_be_visible(timeout=60_000)
    expect(page.widget).to_contain_text(re.compile(r"idle.*[1-9][\d,]* jets so far"))
