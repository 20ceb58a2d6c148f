"""The user's own usage and own models in the panel, with a stand-in for the token service."""

from __future__ import annotations

import re
import time

from playwright.sync_api import expect
from samples import usage_of, used, used_by
from test_ui_panel import HOSTILE, LONG, SEVERAL_INTERVALS, field


def test_totals_and_models_are_shown_and_a_setting_hides_them(start_hub_lab, visit, token_giver):
    others = [used(f"affine_{number}", 1, 1) for number in range(1, 5)]
    token_giver.usage = usage_of(
        used("particlenet", 1200, 1_240_000, 12, estimated=True),
        used(HOSTILE, 20, 5000),
        used(LONG, 2, 3),
        *others,
        used("", 0, 0, 5),
    )
    page = visit(start_hub_lab())
    opened = time.monotonic()
    page.open_panel()
    page.set_panel_width(450)
    section = page.section("My usage")
    expect(section).to_contain_text("1.25M inferences", timeout=30_000)
    expect(section).to_contain_text("last 24 hours (about)")
    expect(section).to_contain_text("1,226 requests")
    expect(section).to_contain_text("5 GB")
    expect(section).to_contain_text("17 failed")
    rows = section.get_by_role("row")
    expect(rows.nth(1)).to_contain_text(re.compile(r"particlenet\s*1.24M\s*1,200\s*12"))
    expect(rows.nth(2)).to_contain_text("<img src=x")
    expect(rows).to_have_count(6)  # including the header
    expect(section).to_contain_text("and 2 more")
    assert page.tab.locator('img[src="x"]').count() == 0
    page.set_panel_width(250)
    expect(rows.first.get_by_text("failed")).to_be_hidden()
    expect(section).to_contain_text("17 failed")
    widths = page.panel.evaluate("node => [node.scrollWidth, node.clientWidth]")
    assert widths[0] == widths[1]  # nothing is wider than the panel
    page.execute("settingeditor:open", query="Triton")
    field(page, "sections_usage").uncheck()
    expect(section).to_have_count(0)
    expect(page.section("Notebooks")).to_be_visible()
    page.tab.wait_for_timeout(SEVERAL_INTERVALS)  # to see that nothing happens
    requests = len([url for url in page.asked if "/api/usage" in url])
    assert 1 <= token_giver.told <= requests <= 1 + (time.monotonic() - opened) // 60  # one a minute


def test_my_models_are_first_and_drag_and_one_use_has_no_table(start_hub_lab, visit, token_giver):
    token_giver.usage = usage_of(used("particlenet", 1, 1), owned=(used_by("alice.my_tagger", 3, 70, 1_240_000),))
    page = visit(start_hub_lab())
    page.open_panel()
    section = page.section("My usage")
    expect(section).to_contain_text(re.compile(r"1 inference\s*1 request"), timeout=30_000)
    expect(section).to_contain_text("none failed")
    expect(section).not_to_contain_text("about")
    expect(section.get_by_role("table")).to_have_count(0)
    others = page.section("Use of my models")
    expect(others.get_by_role("row").last).to_contain_text(re.compile(r"alice.my_tagger\s*3\s*70\s*1.24M"))
    models = page.section("Models").get_by_role("row")
    mine = models.nth(1)  # after the header
    expect(mine).to_contain_text("alice.my_taggerv1")
    expect(mine).to_contain_text(re.compile(r"yours\s*12 MB\s*not used since it was loaded"))
    expect(models.filter(has_text="bob.affine")).to_contain_text("by bob")
    expect(models.filter(has_text="mallory")).to_have_count(0)
    page.new_triton_notebook()
    mine.hover()
    mine.get_by_role("button", name="Insert a cell for alice.my_tagger").click()
    expect(page.cells.last.locator(".cm-content")).to_contain_text("model = triton.model('alice.my_tagger')")
    page.execute("notebook:run-cell")
    page.wait_until_ended(page.cells.last)
    table = page.output(page.run("triton.models()"))
    expect(table).to_contain_text(re.compile(r"alice.my_tagger\s*1\s*you\s*12.3 MB\s*\d+ (s|min) ago"))
    expect(mine).to_contain_text(re.compile(r"used (just now|\d+ (s|min) ago)"), timeout=30_000)


def test_the_reason_for_missing_numbers_is_shown(start_hub_lab, visit, token_giver):
    message = "The facility's Prometheus cannot be read: no answer within 8 s."
    token_giver.usage = 503, {"error": "usage_unavailable", "message": message}
    page = visit(start_hub_lab())
    page.open_panel()
    expect(page.section("My usage")).to_contain_text(message, timeout=30_000)


def test_without_usage_there_is_no_section(start_hub_lab, visit, token_giver):
    page = visit(start_hub_lab())
    with page.tab.expect_response(re.compile("/api/usage"), timeout=30_000) as answer:
        page.open_panel()
    assert answer.value.json()["offered"] is False
    expect(page.section("Models")).to_be_visible(timeout=20_000)
    expect(page.section("My usage")).to_have_count(0)
