"""axe-core finds no serious violation in panel, status bar item, widget and cell outputs."""

from __future__ import annotations

import pytest
from page import DARK, HIGH_CONTRAST, LIGHT
from playwright.sync_api import expect
from recorded.replay import documented
from samples import usage_of, used, used_by
from server.pretender import refusing

from eaf_facility.process.ports import free_ports

THEMES = (LIGHT, DARK, HIGH_CONTRAST)
PANEL, STATUS = "#eaf-inference-panel", ".jp-EafInference-status"
_DRAWN = """(node, pseudo) => {
  const probe = document.body.appendChild(document.createElement('div'));
  probe.style.cssText = 'background: Canvas; forced-color-adjust: none';
  const canvas = getComputedStyle(probe).backgroundColor;
  probe.remove();
  const { backgroundColor } = getComputedStyle(node, pseudo);
  return backgroundColor !== canvas && backgroundColor !== 'rgba(0, 0, 0, 0)';
}"""
OUTPUTS = ".jp-NotebookPanel .jp-OutputArea-output"


def found_in_any_theme(page, *selectors):
    """The serious violations that axe-core finds, in each theme."""
    found = []
    for theme in THEMES:
        page.choose_theme(theme)
        found += [f"{theme}: {each}" for each in page.violations(*selectors)]
    return found


def drawn(page, mark, *, pseudo=None):
    """Whether a mark drawn by a background is visible with forced colours."""
    page.tab.emulate_media(forced_colors="active", contrast="more")
    try:
        return mark.evaluate(_DRAWN, pseudo)
    finally:
        page.tab.emulate_media(forced_colors="none", contrast="no-preference")


@pytest.mark.slow
def test_without_a_service(start_lab, visit):
    lab = start_lab()
    page = visit(lab)
    page.open_panel()
    again = page.panel.get_by_role("button", name="Try again")

    def found_under(title):
        expect(page.panel.get_by_role("heading", name=title)).to_be_visible(timeout=20_000)
        page.panel.locator("summary").click()
        found = found_in_any_theme(page, PANEL, STATUS)
        page.panel.locator("summary").click()
        return found

    assert found_under("No Triton service was found") == []
    lab.configure(urls=[f"grpc://127.0.0.1:{free_ports(1)[0]}"])
    again.click()
    assert found_under("Triton does not answer") == []
    with refusing() as url:
        lab.configure(urls=[url])
        again.click()
        assert found_under("Not authorised") == []
    lab.configure(urls=["http://of.another/kind"])
    again.click()
    assert found_under("The configuration is invalid") == []


def test_a_cpu_service_the_widget_and_cell_outputs(page):
    page.open_panel()
    page.new_triton_notebook()
    page.run("monitor = triton.monitor(); monitor")
    assert drawn(page, page.widget.locator(".eaf-title"), pseudo="::before")
    expect(page.widget).to_contain_text("No GPU reported", timeout=20_000)  # it has figures to save
    page.run("triton")
    page.run("triton.models()")
    page.run("triton.model('particlenet')")
    page.run("%triton_connect --explain")
    page.run("%triton_status")
    page.run("triton.close()")
    picture = page.run("from IPython.display import HTML; HTML(monitor._repr_mimebundle_()[0]['text/html'])")
    expect(page.output(picture)).to_contain_text("no GPU reported by this server")
    expect(page.section("Server")).to_contain_text("No GPU reported by this server", timeout=20_000)
    found = found_in_any_theme(page, PANEL, STATUS, OUTPUTS)
    assert found == [], "\n".join(found)


@pytest.mark.slow
def test_gpus_and_then_outdated_numbers(start_lab, visit, server, site):
    site.pages["/metrics"] = documented("triton_gpu")
    page = visit(start_lab(urls=[server.grpc], metrics_urls=[f"{site.url}/metrics"]))
    page.open_panel()
    expect(page.section("GPUs")).to_contain_text("63%", timeout=20_000)
    page.set_panel_width(250)
    for mark in (page.section("GPUs").locator(".jp-EafInference-bar > div").first, page.health("connected")):
        assert drawn(page, mark)
    assert found_in_any_theme(page, PANEL, STATUS) == []
    site.pages["/metrics"] = (503, "")
    expect(page.health("numbers are outdated")).to_be_visible(timeout=20_000)
    expect(page.panel.get_by_role("status")).to_contain_text("No numbers for")
    assert found_in_any_theme(page, PANEL, STATUS) == []


def test_a_users_own_usage(start_hub_lab, visit, token_giver):
    token_giver.usage = usage_of(
        used("particlenet", 1200, 1_240_000, 12, estimated=True),
        used("jet_regression", 20, 5000),
        owned=(used_by("alice.my_tagger", 3, 70, 1_240_000),),
    )
    page = visit(start_hub_lab())
    page.open_panel()
    expect(page.section("My usage").get_by_role("row")).to_have_count(3, timeout=30_000)
    expect(page.section("Use of my models").get_by_role("row")).to_have_count(2)
    expect(page.section("Models").get_by_role("row").nth(1)).to_contain_text("yours")
    assert found_in_any_theme(page, PANEL) == []
