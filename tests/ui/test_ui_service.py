"""The panel follows the service: its start, a crash and restart, and a reload of the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from eaf_facility.servers.triton import TritonServer

# What the panel looked like, whenever that changed: the dot's meaning, whether the chart is grey, banner and footer.
WATCH = """() => {
  const panel = document.querySelector('#eaf-inference-panel');
  const text = selector => panel.querySelector(selector)?.textContent ?? '';
  window.seen = [];
  const look = () => {
    const chart = panel.querySelector('.jp-EafInference-chart');
    window.seen.push({
      health: panel.querySelector('.jp-EafInference-health').getAttribute('aria-label'),
      filter: chart && getComputedStyle(chart).filter,
      banner: text('.jp-EafInference-banner'),
      footer: text('.jp-EafInference-footer')
    });
  };
  const everything = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(panel, everything);
}"""


@contextmanager
def eaf_inference_up(lab, *arguments):
    """Run the command as the user of this Lab would in a terminal."""
    command = [sys.executable, "-m", "eaf_inference.cli", "up", "--json", *map(str, arguments)]
    with (
        lab.log.with_name("up.log").open("wb") as log,
        subprocess.Popen(command, env=lab.environment, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            yield json.loads(process.stdout.readline())  # when everything is ready
        finally:
            process.terminate()


@pytest.fixture
def mortal_server(tiny_models):
    with TritonServer.start([tiny_models]) as running:
        yield running


def test_a_started_facility_appears_after_the_panels_button(start_lab, visit, tiny_models):
    lab = start_lab()
    page = visit(lab)
    page.open_panel()
    expect(page.panel.get_by_role("heading", name="No Triton service was found")).to_be_visible()
    expect(page.panel).to_contain_text("eaf-inference up")
    expect(page.health("not connected")).to_be_visible()
    page.new_notebook()
    with eaf_inference_up(lab, "--models", tiny_models) as facility:
        page.panel.get_by_role("button", name="Connect this notebook").click()
        expect(page.cells.first.locator(".cm-content")).to_have_text(
            re.compile(r"%load_ext eaf_inference\s*%triton_connect")
        )
        expect(page.output(page.cells.first)).to_contain_text("found by local facility", timeout=60_000)
        expect(page.output(page.cells.first)).to_contain_text(facility["replicas"][0]["grpc"])
        expect(page.health("connected")).to_be_visible(timeout=30_000)
        expect(page.section("Server")).to_contain_text(re.compile(r"CPU\s*\d+%"), timeout=20_000)
        expect(page.section("Models")).to_contain_text("affine")
        expect(page.section("Notebooks")).to_contain_text("Untitled.ipynb")
        expect(page.section("Notebooks").get_by_role("button", name="Connect")).to_have_count(0)


def test_a_killed_server_is_stale_then_missing_then_back(start_lab, visit, mortal_server):
    page = visit(start_lab(urls=[mortal_server.grpc], metrics_urls=[mortal_server.metrics]))
    page.open_panel()
    expect(page.section("Server")).to_contain_text(re.compile(r"CPU\s*\d+%"), timeout=20_000)
    expect(page.panel.get_by_text("up to date")).to_be_visible()
    page.tab.evaluate(WATCH)
    mortal_server.kill()
    expect(page.panel.get_by_role("heading", name="Triton does not answer")).to_be_visible(timeout=30_000)
    expect(page.panel).to_contain_text(mortal_server.grpc)
    expect(page.panel).to_contain_text("Retrying automatically.")
    expect(page.panel.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.status).not_to_contain_text("%")
    stale = [each for each in page.tab.evaluate("window.seen") if each["health"] == "numbers are outdated"]
    assert stale
    assert stale[-1]["filter"] == "grayscale(1)"
    assert re.match(r"No numbers for .+refused", stale[-1]["banner"]), stale[-1]
    assert re.match(r"last updated .+ ago", stale[-1]["footer"]), stale[-1]
    mortal_server.restart()
    expect(page.health("connected")).to_be_visible(timeout=90_000)
    expect(page.panel.get_by_text("up to date")).to_be_visible(timeout=30_000)
    expect(page.status).to_contain_text(re.compile(r"CPU \d+%"))
    assert page.tab.evaluate("window.seen.length > 0")  # the page was not reloaded


def test_a_reload_restores_panel_and_notebooks_even_while_a_cell_runs(page):
    page.open_panel()
    page.new_triton_notebook()
    name = page.name_of_the_notebook()
    row = page.section("Notebooks").get_by_role("button", name=name, exact=True)
    expect(row).to_be_visible()
    page.run("import numpy as np, threading; model = triton.model('affine_1'); go = threading.Event()")
    page.begin("while not go.is_set():\n    model({'x': np.ones((200_000, 2), np.float32)})")
    stop = page.section("Notebooks").get_by_role("button", name=f"Stop {name}")
    expect(stop).to_be_visible()
    page.save_and_reload()
    expect(page.panel).to_be_visible()
    expect(page.notebook).to_be_visible()
    expect(row).to_be_visible(timeout=20_000)
    expect(stop).to_be_visible(timeout=20_000)
    expect(page.section("Notebooks")).to_contain_text(re.compile(r"[\d,.]+ jets/s"))
    stop.click()
    expect(stop).to_have_count(0, timeout=20_000)
    expect(row).to_be_visible()
    expect(page.section("Notebooks")).to_contain_text("jets so far")
    page.save_and_reload()
    expect(row).to_be_visible(timeout=20_000)
    cell = page.run("model({'x': np.ones((3, 2), np.float32)})['y'].tolist()")
    expect(page.output(cell)).to_contain_text("[[3.0, 3.0], [3.0, 3.0], [3.0, 3.0]]")
