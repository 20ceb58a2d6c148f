"""The dashboard's tabs: opening, pointer, keyboard, and restoring after a reload."""

from __future__ import annotations

import re

import pytest
from lab import running_lab
from page import DARK, LIGHT
from playwright.sync_api import expect
from recorded.replay import documented, serve
from test_ui_accessibility import found_in_any_theme
from waiting import until

TIP = ".jp-EafInference-tip:visible"
VALUE = re.compile(r"^\d\d:\d\d:\d\d.*63%", re.DOTALL)
SEVERAL_INTERVALS = 3000  # milliseconds, of one second each
RANGES = ("1 min", "5 min", "10 min", "30 min", "1 h")


@pytest.fixture(scope="module")
def site():
    """Metrics of a server with GPUs, one of which has a utilization of 63 %."""
    with serve() as site:
        site.pages["/metrics"] = documented("triton_gpu")
        yield site


@pytest.fixture(scope="module")
def lab(browser, server, site, tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    with running_lab(home, urls=[server.grpc], metrics_urls=[f"{site.url}/metrics"]) as running:
        yield running


def choose_range(page, name, view="all"):
    page.dashboard(view).locator("label", has_text=re.compile(f"^{name}$")).click()


def hover_the_newest(chart):
    """Point at the right edge, where the newest values are."""
    box = chart.bounding_box()
    chart.hover(position={"x": box["width"] - 16, "y": box["height"] / 3})


def asked_for(page, seconds):
    return [url for url in page.asked if re.search(rf"timeline\?seconds={seconds}\b", url)]


def saved(page):
    """The tabs in JupyterLab's saved layout, with their range."""
    name = page.tab.url.partition("workspaces/")[2].partition("?")[0]
    token = {"Authorization": f"token {page.lab.token}"}
    answer = page.context.request.get(f"{page.lab.url}lab/api/workspaces/{name}", headers=token)
    data = answer.json()["data"] if answer.ok else {}
    prefix = "eaf-inference-dashboard:"
    return {key.removeprefix(prefix): data[key]["data"]["range"] for key in data if key.startswith(prefix)}


def test_it_opens_from_the_panel_the_launcher_and_by_keyboard(page):
    page.tab.locator(".jp-LauncherCard:visible", has_text="Open the Triton dashboard").click()
    # Chromium warns if a websocket is closed while it is still connecting.
    expect(page.dashboard().get_by_text("up to date")).to_be_visible()
    page.execute("application:close")
    expect(page.dashboard()).to_have_count(0)
    page.tab.keyboard.press("Alt+Shift+P")
    expect(page.panel).to_be_visible()
    page.panel.get_by_role("button", name="Open the dashboard").click()
    expect(page.dashboard()).to_be_visible()
    page.execute("application:close")
    page.tab.keyboard.press("Alt+Shift+D")
    expect(page.dashboard()).to_be_visible()
    for name in ("GPUs", "Queue", "Throughput", "My clusters"):
        expect(page.dashboard().get_by_role("region", name=name, exact=True)).to_be_visible(timeout=20_000)
    page.tab.keyboard.press("Alt+Shift+D")  # activates the open tab
    assert page.dashboard().count() == 1


def test_pointer_and_arrow_keys_show_values(page):
    page.open_dashboard(range=60)
    chart = page.chart("GPU utilization")
    tip = chart.locator(TIP)
    expect(page.dashboard().locator(".jp-EafInference-legend").first).to_contain_text("63%", timeout=20_000)
    hover_the_newest(chart)
    expect(tip).to_have_text(VALUE)
    cursors = page.dashboard().locator(".u-cursor-x:not(.u-off)")
    expect(cursors).to_have_count(5)  # all charts share the pointer, but only one shows values
    expect(page.dashboard().locator(TIP)).to_have_count(1)
    page.dashboard().locator("h1").hover()
    expect(tip).to_have_count(0)
    chart.focus()
    page.tab.keyboard.press("ArrowLeft")
    expect(tip).to_have_text(VALUE)
    expect(page.dashboard().get_by_role("status").first).to_have_text(VALUE)
    page.tab.keyboard.press("Escape")
    expect(tip).to_have_count(0)
    page.open_panel()
    strip = page.section("GPUs").get_by_role("img").first
    hover_the_newest(strip)
    expect(strip.locator(TIP)).to_have_text(VALUE)


def test_a_longer_range_fetches_earlier_values(page):
    page.open_dashboard()
    expect(page.dashboard().get_by_text("up to date")).to_be_visible(timeout=20_000)
    assert asked_for(page, 300)
    for name in RANGES:
        choose_range(page, name)
        expect(page.dashboard().get_by_role("radio", name=name, exact=True)).to_be_checked()
    until(lambda: page.tab.evaluate("true") and asked_for(page, 3600))
    assert not asked_for(page, 60)  # which is covered already
    asked = len(page.asked)
    page.dashboard().get_by_role("radio", name="1 h", exact=True).press("ArrowLeft")
    expect(page.dashboard().get_by_role("radio", name="30 min", exact=True)).to_be_checked()
    expect(page.chart("GPU utilization")).to_have_attribute("aria-label", re.compile("in the last 30 min: .* 63%"))
    assert [url for url in page.asked[asked:] if "timeline" in url] == []


@pytest.mark.slow
def test_several_tabs_are_side_by_side_and_restored_by_a_reload(page):
    page.open_dashboard()
    choose_range(page, "10 min")
    page.dashboard().get_by_role("button", name='Open "GPUs" in its own tab').click()
    expect(page.dashboard("gpus").get_by_role("table")).to_contain_text("63%", timeout=20_000)
    expect(page.dashboard()).to_be_visible()  # beside it
    choose_range(page, "1 h", "gpus")
    page.dashboard().get_by_role("button", name='Open "Queue" in its own tab').click()
    expect(page.dashboard("queue")).to_be_visible()
    expect(page.dashboard("gpus")).to_be_hidden()  # behind it
    wanted = {"all": 600, "gpus": 3600, "queue": 300}
    until(lambda: page.tab.evaluate("true") and saved(page) == wanted)
    page.reload()
    for view, name in (("all", "10 min"), ("queue", "5 min")):
        expect(page.dashboard(view)).to_be_visible(timeout=20_000)
        expect(page.dashboard(view).get_by_role("radio", name=name, exact=True)).to_be_checked()
    assert page.tab.locator('.lm-TabBar-tab[data-id^="eaf-inference-dashboard"]').count() == 3


def test_a_hidden_dashboard_sends_no_requests(page, site):
    page.open_dashboard()
    expect(page.dashboard().get_by_text("up to date")).to_be_visible(timeout=20_000)
    with page.streams[-1].expect_event("close"):
        page.execute("launcher:create")
    expect(page.dashboard()).to_be_hidden()
    asked, scraped = list(page.asked), site.asked["/metrics"]
    page.tab.wait_for_timeout(SEVERAL_INTERVALS)  # to see that nothing happens
    assert page.asked == asked
    assert site.asked["/metrics"] - scraped <= 1  # a pending one


def test_outdated_numbers_are_grey_and_have_a_note(page, site):
    page.open_dashboard()
    expect(page.dashboard().get_by_text("up to date")).to_be_visible(timeout=20_000)
    site.pages["/metrics"] = (503, "")
    try:
        expect(page.dashboard().get_by_text("No numbers for")).to_be_visible(timeout=20_000)
        expect(page.dashboard().get_by_text(re.compile("^last updated .* ago$"))).to_be_visible()
        expect(page.dashboard().locator(".jp-mod-stale").first).to_be_visible()
        assert found_in_any_theme(page, "#eaf-inference-dashboard-all") == []
    finally:
        site.pages["/metrics"] = documented("triton_gpu")
    expect(page.dashboard().get_by_text("up to date")).to_be_visible(timeout=30_000)


def test_it_is_readable_in_every_theme_and_narrow(page):
    page.open_dashboard()
    expect(page.dashboard().locator(".jp-EafInference-legend").first).to_contain_text("63%", timeout=20_000)
    page.open_dashboard("gpus")
    expect(page.dashboard("gpus").get_by_role("table")).to_contain_text("63%", timeout=20_000)
    page.open_panel()  # with the same sections
    tabs = ("#eaf-inference-dashboard-all", "#eaf-inference-dashboard-gpus", "#eaf-inference-panel")
    found = found_in_any_theme(page, *tabs)
    assert found == [], "\n".join(found)
    colours = {}
    for theme in (LIGHT, DARK):
        page.choose_theme(theme)
        colours[theme] = darkest(page.chart("GPU utilization"))
    assert colours[LIGHT] < 100 < 150 < colours[DARK]  # the drawn axis follows the theme
    page.hide_panel()
    page.tab.set_viewport_size({"width": 700, "height": 900})
    for view in ("all", "gpus"):
        page.open_dashboard(view)
        widths = page.dashboard(view).evaluate("node => [node.scrollWidth, node.clientWidth]")
        assert widths[0] == widths[1]  # nothing is wider than the tab


def darkest(chart):
    """Brightness, from 0 to 255, of the text that is drawn at the left edge of a chart."""
    return chart.locator("canvas").evaluate(
        """canvas => {
            const copy = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, 40, 150);
            const solid = [];
            for (let at = 0; at < data.length; at += 4) {
              if (data[at + 3] > 200) {
                solid.push((data[at] + data[at + 1] + data[at + 2]) / 3);
              }
            }
            return solid.reduce((sum, each) => sum + each, 0) / solid.length;
        }"""
    )


def test_without_a_service_it_shows_the_same_as_the_panel(start_lab, visit):
    page = visit(start_lab())
    page.open_dashboard()
    heading = page.dashboard().get_by_role("heading", name="No Triton service was found")
    expect(heading).to_be_visible(timeout=20_000)
    expect(page.dashboard().get_by_role("button", name="New Triton notebook")).to_be_visible()
    with page.tab.expect_request(lambda request: "api/facility" in request.url):
        page.dashboard().get_by_role("button", name="Try again").click()
