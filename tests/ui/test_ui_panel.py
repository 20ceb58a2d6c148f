"""The panel and the status bar item: settings, keyboard, hostile names, and no requests while hidden."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from playwright.sync_api import expect
from recorded.replay import documented

HOSTILE = '<img src=x onerror="window.hacked = true">'
LONG = "m" * 10_000
HAS_A_RING = """() => {
  const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(document.activeElement);
  return (outlineStyle !== 'none' && parseFloat(outlineWidth) > 0) || boxShadow !== 'none';
}"""
SEVERAL_INTERVALS = 4000  # milliseconds, of one second each


@pytest.fixture
def live_lab(start_lab, server):
    """A Lab for one test that changes its settings or counts its requests."""
    return start_lab(urls=[server.grpc], metrics_urls=[server.metrics])


def field(page, name):
    """One of our settings in the settings editor, by its name in the schema."""
    return page.tab.locator(f'[id="jp-SettingsEditor-eaf-inference:plugin_{name}"]')


def test_the_status_bar_shows_the_load_and_opens_the_panel(page):
    expect(page.status).to_have_text("Triton")  # nothing is visible, so nothing is requested
    assert page.streams == []
    page.status.get_by_role("button").click()
    expect(page.panel).to_be_visible()
    expect(page.status).to_have_text(re.compile(r"^CPU \d+%"), timeout=20_000)
    expect(page.status.get_by_role("button")).to_have_attribute(
        "title", re.compile("No GPU is reported by this server")
    )


def test_settings_hide_the_status_bar_item_and_a_section(live_lab, visit):
    page = visit(live_lab)
    page.open_panel()
    expect(page.section("Models")).to_be_visible()
    page.execute("settingeditor:open", query="Triton")
    field(page, "statusBar").uncheck()
    expect(page.status).to_be_hidden()
    field(page, "sections_models").uncheck()
    expect(page.section("Models")).to_have_count(0)
    expect(page.section("Server")).to_be_visible()
    field(page, "statusBar").check()
    expect(page.status).to_be_visible()


def wishes(interval):
    return {"interval": interval, "clusters": True}


def gaps(page):
    """Seconds between the snapshots that have arrived."""
    times = [message["snapshot"]["time"] for message in page.received if message["type"] == "snapshot"]
    return [later - earlier for earlier, later in pairwise(times)]


def test_the_interval_in_the_settings_is_sent_and_clamped(live_lab, visit):
    page = visit(live_lab)
    page.open_panel()
    page.execute("settingeditor:open", query="Triton")
    expect(page.panel.get_by_text("up to date")).to_be_visible(timeout=20_000)
    assert page.sent == [wishes(1)]
    (stream,) = page.streams
    with stream.expect_event("framesent", lambda text: json.loads(text) == wishes(3)):
        field(page, "interval").fill("3")
    # snapshots on their way when the request was sent still arrived every second
    stream.wait_for_event("framereceived", lambda _: len(gaps(page)) > 1 and min(gaps(page)[-2:]) > 2)
    field(page, "interval").fill("0.2")
    expect(page.tab.locator(".jp-SettingsPanel")).to_contain_text("must be >= 1")
    with stream.expect_event("framesent", lambda text: json.loads(text) == wishes(2)):
        field(page, "interval").fill("2")
    assert page.sent == [wishes(1), wishes(3), wishes(2)]


def test_a_hidden_browser_tab_does_not_request_clusters(live_lab, visit):
    page = visit(live_lab)
    page.open_panel()
    expect(page.panel.get_by_text("up to date")).to_be_visible(timeout=20_000)
    (stream,) = page.streams
    for state, wanted in ("hidden", False), ("visible", True):
        with stream.expect_event("framesent", lambda text, wanted=wanted: json.loads(text)["clusters"] is wanted):
            page.tab.evaluate(
                """state => {
                    Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
                    document.dispatchEvent(new Event("visibilitychange"));
                }""",
                state,
            )
    assert page.sent == [wishes(1), {"interval": 1, "clusters": False}, wishes(1)]


def test_every_control_is_reached_and_used_by_keyboard(page):
    page.open_panel()
    page.new_triton_notebook()
    rows = page.section("Models").get_by_role("row")
    expect(rows).to_have_count(11)  # including the header
    expect(page.section("Notebooks").get_by_text("connected", exact=True)).to_be_visible()

    def missed():
        """The controls that show no focus ring when they have the focus."""
        page.panel.focus()
        controls = [control.element_handle() for control in page.panel.locator("button, input, a, summary").all()]
        assert len(controls) >= 12
        found = []
        for control in controls:
            page.tab.keyboard.press("Tab")
            reached = page.tab.evaluate("control => control === document.activeElement", control)
            if not (reached and page.tab.evaluate(HAS_A_RING)):
                found.append(control.get_attribute("title"))
        return found

    # new data may insert a control before those that had the focus already
    assert not missed() or not missed() or not missed()
    page.panel.get_by_role("searchbox", name="Filter models by name").focus()
    page.tab.keyboard.type("PARTICLE")
    expect(rows).to_have_count(2)
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("Enter")
    expect(page.cells).to_have_count(2)
    expect(page.cells.last.locator(".cm-content")).to_contain_text("triton.model('particlenet')")
    page.panel.get_by_role("searchbox").fill("nothing of this name")
    expect(page.section("Models")).to_contain_text('No model has "nothing of this name" in its name.')


def prometheus_says(*labels):
    """An answer to the query for all metrics: the utilization of GPUs with these labels."""
    result = [
        {"metric": {"eaf_field": "dcgm_utilization", "UUID": str(number), **each}, "value": [0, "63"]}
        for number, each in enumerate(labels)
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def test_hostile_and_huge_names_are_text(start_lab, visit, server, site):
    written = HOSTILE.replace('"', r"\"")
    text = documented("triton_gpu").partition("# HELP nv_gpu")[0].replace('"particlenet"', f'"{written}"')
    site.pages["/metrics"] = text + f'nv_inference_count{{model="{LONG}",version="{written}"}} 7\n'
    site.pages["/api/v1/query"] = prometheus_says(
        {"modelName": HOSTILE, "Hostname": LONG}, {"modelName": LONG, "Hostname": HOSTILE}
    )
    page = visit(start_lab(urls=[server.grpc], metrics_urls=[f"{site.url}/metrics"], prometheus_url=site.url))
    page.open_panel()
    expect(page.section("GPUs")).to_contain_text("<img src=x", timeout=20_000)
    expect(page.section("GPUs")).to_contain_text("mmmmmmmm")
    expect(page.section("Models").get_by_role("row", name="<img src=x")).to_be_visible()
    expect(page.section("Models").get_by_role("row", name="mmmmmmmm")).to_be_visible()
    page.new_triton_notebook()
    page.run("monitor = triton.monitor(); monitor")
    expect(page.widget).to_contain_text("<img src=x", timeout=20_000)
    picture = page.run("from IPython.display import HTML; HTML(monitor._repr_mimebundle_()[0]['text/html'])")
    expect(page.output(picture)).to_contain_text("<img src=x")
    status = page.run("%triton_status")
    expect(page.output(status)).to_contain_text("found by")
    assert page.tab.locator('img[src="x"]').count() == 0
    assert page.tab.evaluate("window.hacked") is None
    widths = page.panel.evaluate("node => [node.scrollWidth, node.clientWidth]")
    assert widths[0] == widths[1]  # nothing is wider than the panel


def test_without_metrics_no_figure_has_a_period_or_an_age(start_lab, visit, server):
    page = visit(start_lab(urls=[server.grpc]))
    page.open_panel()
    expect(page.section("Server")).to_contain_text("no metrics endpoint is configured", timeout=20_000)
    for _ in range(2):  # when the second has arrived, the first is shown
        page.streams[-1].wait_for_event("framereceived", lambda text: json.loads(text).get("advice"))
    for text in ("Nothing is measured", "up to date", re.compile(r"last \d+ s")):
        expect(page.panel).not_to_contain_text(text)


def test_a_hidden_panel_sends_no_requests(start_lab, visit, server, site):
    site.pages["/metrics"] = documented("triton_gpu")
    page = visit(start_lab(urls=[server.grpc], metrics_urls=[f"{site.url}/metrics"]))
    page.open_panel()
    expect(page.section("GPUs")).to_contain_text("63%", timeout=20_000)
    with page.streams[-1].expect_event("close"):
        page.hide_panel()
    asked, scraped = list(page.asked), site.asked["/metrics"]
    page.tab.wait_for_timeout(SEVERAL_INTERVALS)  # to see that nothing happens
    assert page.asked == asked
    assert len(page.streams) == 1
    assert site.asked["/metrics"] - scraped <= 1  # a pending one
    scraped = site.asked["/metrics"]
    page.open_panel()
    expect(page.panel.get_by_text("up to date")).to_be_visible(timeout=20_000)
    assert len(page.streams) == 2
    assert site.asked["/metrics"] > scraped


def test_names_of_models_that_begin_alike_can_be_told_apart(live_lab, visit):
    page = visit(live_lab)
    page.open_panel()
    page.set_panel_width(300)
    name = page.section("Models").locator(".jp-EafInference-modelName > span").first
    lines = """node => {
        node.textContent = 'run3_particle_transformer_boosted_' + 'mass_decorrelated_'.repeat(20);
        return node.getBoundingClientRect().height / parseFloat(getComputedStyle(node).fontSize);
    }"""
    assert 3 < name.evaluate(lines) < 6  # times the size of the font: a few lines
