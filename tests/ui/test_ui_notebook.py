"""Panel, widget and notebook while cells run: watch, stop, drag a model, start a notebook."""

from __future__ import annotations

import re

from page import prompt
from playwright.sync_api import expect

PREPARE = """
import awkward as ak, numpy as np
model = triton.model("particlenet")
def jets(number):
    fields = ("part_deta", "part_dphi", "part_pt_log", "part_e_log", "part_logptrel", "part_logerel", "part_deltaR")
    ones = ak.from_regular(np.ones((number, 32), np.float32))
    return ak.zip({field: ones for field in fields})
"""
OVERFLOWS = """
rows = np.full((3, 16, 4), 500, np.float32)  # the exponential of so large an eta is infinite
masses = triton.model("jet_regression")({"constituents": rows, "multiplicity": np.ones(3, int)})
"""
CONNECTING = re.compile(r"%load_ext eaf_inference\s*%triton_connect")
SUBMIT = """\
from concurrent.futures import ThreadPoolExecutor
import awkward as ak, numpy as np, threading
threads, free = ThreadPoolExecutor(1), threading.Event()
def once_free(events):
    if events.number[0] == 2:
        free.wait(60)
    return {"x": events.x}
for number in range(3):
    ak.to_parquet(ak.Array({"x": np.ones((5, 2), "f"), "number": 5 * [number]}), f"{number}.parquet")
open("1.parquet", "wb").write(b"PAR1")
try:
    for scores in triton.submit(triton.model("affine_1"), "*.parquet", client=threads, select=once_free):
        pass
finally:
    free.set()"""
# Wait until this number of different pictures has been drawn on a canvas.
DRAWN = """([canvas, pictures]) => new Promise(resolve => {
  const seen = new Set();
  const look = () => {
    seen.add(canvas.toDataURL());
    seen.size < pictures ? requestAnimationFrame(look) : resolve(true);
  };
  look();
})"""


def draws(page, chart, pictures=3):
    """Whether the chart keeps changing."""
    return page.tab.evaluate(DRAWN, [chart.locator("canvas").element_handle(), pictures])


def two_values(locator, pattern):
    """Return a number in a text, and the one that replaces it."""
    expect(locator).to_have_text(re.compile(pattern), timeout=30_000)
    first = locator.inner_text()
    expect(locator).not_to_have_text(first, timeout=30_000)
    return tuple(int(re.search(pattern, text)[1].replace(",", "")) for text in (first, locator.inner_text()))


def test_panel_and_widget_are_live_while_a_cell_runs_until_stop(page):
    page.open_panel()
    page.new_triton_notebook()
    page.run(PREPARE)
    page.run("triton.monitor()")
    expect(page.widget).to_be_visible()
    cell = page.begin("scores = model(jets(300_000))")
    expect(prompt(cell)).to_have_text("[*]:")
    notebooks = page.section("Notebooks")
    expect(notebooks).to_contain_text(re.compile(r"particlenet · \d+% · [\d,]+ jets/s"), timeout=30_000)
    before, after = two_values(page.widget.get_by_text("of 300,000 jets"), r"([\d,]+) of 300,000 jets")
    assert after > before
    rate = page.section("Models").get_by_role("row", name="particlenet").get_by_role("cell").first
    assert all(two_values(rate, r"([\d,]+)"))
    for chart in (page.section("Server").get_by_role("img"), *page.widget.get_by_role("img").all()):
        assert draws(page, chart)
    expect(page.widget.get_by_role("img", name=re.compile(r"^This notebook.*now [\d,]+ jets.s"))).to_be_visible()
    expect(page.widget.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"[1-9]\d*"))
    expect(notebooks.get_by_role("meter")).to_have_attribute("aria-valuenow", re.compile(r"[1-9]\d*"))
    expect(page.status).to_contain_text(re.compile(r"CPU \d+% · queue [\d,.<]+ ms"))
    expect(prompt(cell)).to_have_text("[*]:")

    notebooks.get_by_role("button", name="Stop").click()
    page.wait_until_ended(cell)
    stopped = re.compile(r"^Stopped after [\d,]+ of 300,000 jets; no scores are returned\.$")
    expect(page.output(cell)).to_have_text(stopped)  # without a traceback
    expect(notebooks.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.widget).to_contain_text("idle")
    again = page.run("len(model(jets(5)))")
    expect(page.output(again)).to_have_text("5")
    page.run(OVERFLOWS)
    expect(notebooks).to_contain_text("3 jets have NaN or infinite scores")
    expect(page.widget).to_contain_text("3 with NaN or infinite scores")

    cell = page.begin(SUBMIT)
    expect(notebooks).to_contain_text(re.compile(r"affine_1 · 67% · [\d,]+ jets/s"))
    expect(notebooks).to_contain_text(re.compile(r"2 of 3 files · \d+ (s|min) left"))
    expect(notebooks).to_contain_text("1 file failed")
    expect(page.widget).to_contain_text(re.compile(r"2 of 3 files · 1 failed, 3 jets with NaN .* · \d+ (s|min) left"))
    expect(page.output(cell)).to_contain_text(re.compile(r"2/3\s.*1\sfailed,\s5\sjets"))
    notebooks.get_by_role("button", name="Stop").click()
    page.wait_until_ended(cell)
    stopped = "Stopped after 2 of 3 files (5 jets returned, 1 failed); the other files are cancelled."
    expect(page.output(cell)).to_contain_text(stopped)


def test_a_model_dragged_into_a_notebook_is_a_cell_that_runs(page):
    page.open_panel()
    page.new_triton_notebook()
    expect(page.cells).to_have_count(1)
    source = page.section("Models").get_by_text("jet_regression").bounding_box()
    target = page.cells.first.bounding_box()
    x, y = source["x"] + 10, source["y"] + 5
    page.tab.mouse.move(x, y)
    page.tab.mouse.down()
    page.tab.mouse.move(x - 60, y + 5, steps=5)
    page.tab.mouse.move(target["x"] + 200, target["y"] + target["height"] - 5, steps=10)
    page.tab.mouse.up()
    expect(page.cells).to_have_count(2)
    dropped = page.cells.filter(has_text="jet_regression").filter(has_text="constituents").filter(has_text="example")
    expect(dropped.locator(".cm-content")).to_contain_text("'multiplicity': np.zeros((4, 1), 'int32')")
    dropped.locator(".cm-content").click()
    page.tab.keyboard.press("Shift+Enter")
    page.wait_until_ended(dropped)
    expect(page.output(dropped)).to_contain_text(re.compile(r"'pt': array\("))
    expect(page.output(dropped)).to_contain_text("'mass': array(")


def test_launcher_toolbar_and_palette_connect_a_notebook(page):
    page.tab.locator(".jp-LauncherCard", has_text="New Triton notebook").first.click()
    expect(page.cells.first.locator(".cm-content")).to_have_text(CONNECTING)
    expect(page.output(page.cells.first)).to_contain_text("found by", timeout=60_000)

    page.new_notebook()
    page.notebook.get_by_role("button", name="Connect this notebook to Triton").click()
    expect(page.cells.first.locator(".cm-content")).to_have_text(CONNECTING)
    expect(page.output(page.cells.first)).to_contain_text("found by", timeout=60_000)

    page.new_notebook()
    page.execute("apputils:activate-command-palette")
    page.tab.locator(".lm-CommandPalette-input:visible").fill("connect notebook triton")
    expect(page.tab.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text(
        "Connect this notebook to Triton"
    )
    page.tab.keyboard.press("Enter")
    expect(page.cells.first.locator(".cm-content")).to_have_text(CONNECTING)
    expect(page.output(page.cells.first)).to_contain_text("found by", timeout=60_000)
    page.open_panel()
    expect(page.section("Notebooks").get_by_text("connected", exact=True)).to_have_count(3)
