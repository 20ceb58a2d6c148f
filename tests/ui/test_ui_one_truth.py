"""Panel, status bar, widget, %triton_status and progress bar show the same texts and figures for one load."""

from __future__ import annotations

import re
import time

import pytest
from page import prompt
from playwright.sync_api import expect
from stand_in import Gpu, Load, triton
from test_ui_notebook import PREPARE

from eaf_facility.servers.triton import MODELS, TritonServer

RATE = r"([\d,.]+)(k?) ?jets?/s"
LIVE = """() => {
  const text = selector => document.querySelector(selector)?.textContent ?? '';
  const row = [...document.querySelectorAll('.jp-EafInference-models tbody tr')]
    .find(each => each.textContent.includes('particlenet'));
  return {
    panel: [text('.jp-EafInference-advice').trim(), `${row?.querySelector('td')?.textContent} jets/s`],
    status: [
      document.querySelector('.jp-EafInference-status button').title.split('\\n')[0],
      text('.jp-EafInference-status')
    ],
    widget: [text('.eaf-widget .eaf-advice'), text('.eaf-widget .eaf-figures')]
  };
}"""


def rate_in(text):
    """The jets/s in a text, if any."""
    found = re.search(RATE, text)
    return float(found[1].replace(",", "")) * (1000 if found[2] else 1) if found else None


def agree(texts):
    """Whether all texts have the same jets/s, within 5 %."""
    rates = [rate_in(text) for text in texts]
    return None not in rates and max(rates) <= 1.05 * min(rates)


def soon(page, look):
    """Wait for a true result of `look`, and return it."""
    ends = time.monotonic() + 10  # the places are updated every second or two, and a busy machine is slower
    while not (seen := look()):
        assert time.monotonic() < ends, "they differ"
        page.tab.wait_for_timeout(50)
    return seen


def test_a_replayed_load_reads_the_same_in_all_four_places(start_lab, server, site, visit):
    loads = [Load("particlenet", 1300, batch=64, queue_ms=60.0, compute_ms=20.0)]
    began = time.monotonic()
    site.answer = lambda _: (200, triton(time.monotonic() - began, loads, [Gpu(0, "ampere-01", typical=0.9)]))
    page = visit(start_lab(urls=[server.grpc], metrics_urls=[f"{site.url}/metrics"]))
    page.open_panel()
    page.new_triton_notebook()
    page.run("triton.monitor()")
    expect(page.panel.locator(".jp-EafInference-advice")).to_be_visible(timeout=30_000)
    expect(page.widget.locator(".eaf-advice")).to_be_visible(timeout=30_000)

    def same():
        places = page.tab.evaluate(LIVE)
        sentences, rates = zip(*places.values(), strict=True)
        return places if len(set(sentences)) == 1 and agree(rates) else None

    places = soon(page, same)
    sentence, rate = places["panel"]
    assert "requests wait 60 ms" in sentence
    status = page.output(page.run("%triton_status")).inner_text()
    recent = [frame for frame in page.received if frame["type"] == "snapshot"][-4:]
    said = [frame["advice"] for frame in recent if frame["advice"]]  # none in the first five seconds
    assert any(f"{advice['title']} {advice['text']}" in status for advice in said)
    figures = next(line for line in status.splitlines() if line.startswith("In the last "))
    assert agree([rate, figures])
    seconds = int(re.match(r"In the last (\d+) s", figures)[1])
    assert any(abs(frame["average"]["window"] - seconds) <= 1 for frame in recent)


def test_two_notebooks_read_the_same_in_bar_panel_widget_and_status(page):
    page.open_panel()
    for _ in range(2):
        page.new_notebook()
        page.run("%load_ext eaf_inference\n%triton_connect")
        page.run(PREPARE)
    page.run("triton.monitor()")
    first, second = [page.begin("scores = model(jets(300_000))")], []
    page.execute("application:activate-previous-tab")
    second.append(page.begin("scores = model(jets(300_000))"))
    page.execute("application:activate-next-tab")
    name = page.name_of_the_notebook()
    row = page.section("Notebooks").locator(".jp-EafInference-row", has_text=name)
    bar = page.output(first[0])
    expect(row).to_contain_text("jets/s", timeout=30_000)
    expect(bar).to_contain_text("jet/s", timeout=30_000)
    expect(page.panel.locator(".jp-EafInference-advice")).to_be_visible(timeout=30_000)
    own = page.widget.locator(".eaf-charts > div").last

    def same():
        texts = [each.inner_text() for each in (row, bar, own)]
        places = page.tab.evaluate(LIVE)
        sentences = {sentence for sentence, _ in places.values()}
        return texts if agree(texts) and len(sentences) == 1 else None

    soon(page, same)
    assert "clients are the limit" not in page.panel.inner_text()  # because the CPU is saturated
    row.get_by_role("button", name="Stop").click()
    page.wait_until_ended(first[0])
    status = page.output(page.run("%triton_status")).inner_text()
    mine = next(line for line in status.splitlines() if line.startswith("this notebook"))
    soon(page, lambda: agree([own.inner_text(), mine]))


@pytest.mark.slow
def test_bar_widget_and_panel_show_an_outage_until_it_ends(start_lab, visit):
    with TritonServer.start([MODELS]) as server:
        page = visit(start_lab(urls=[server.grpc], metrics_urls=[server.metrics]))
        page.open_panel()
        page.new_triton_notebook()
        page.run(PREPARE)
        page.run("triton.monitor()")
        cell = page.begin("scores = model(jets(60_000))")
        expect(page.output(cell)).to_contain_text("jet/s", timeout=60_000)
        server.kill()
        gone = re.compile(r"server\sgone,\sretrying,\s\d+\ss\sleft")
        for place in (page.output(cell), page.widget, page.panel, page.status):
            expect(place).to_contain_text(gone, timeout=30_000)
        expect(page.panel).to_contain_text("Triton does not answer", timeout=30_000)
        expect(page.panel).not_to_contain_text("No Triton service was found")
        server.restart()
        expect(page.panel).not_to_contain_text("server gone", timeout=60_000)
        expect(page.output(cell)).not_to_contain_text("server gone", timeout=30_000)
        expect(prompt(cell)).to_have_text("[*]:")
        page.section("Notebooks").get_by_role("button", name="Stop").click()
        page.wait_until_ended(cell)
        server.kill()  # faster than stopping it
