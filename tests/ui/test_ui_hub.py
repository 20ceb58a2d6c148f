"""The unchanged quickstart under a real Hub, as the logged-in user."""

from __future__ import annotations

import re

import pytest
from hub import HubPage, furnish
from page import prompt
from playwright.sync_api import expect

from eaf_facility.local.multi_user import up_for


@pytest.fixture(scope="module")
def shared(browser):
    with up_for(["alice", "bob"]) as facility:
        yield facility


@pytest.fixture
def page(shared, browser):
    furnish(shared, "alice")
    page = HubPage(shared, browser, "alice")
    yield page
    page.close()
    assert page.complaints == []
    assert page.external == []


@pytest.mark.slow
def test_the_quickstart_runs_unchanged_under_the_hub_and_the_panel_follows(page):
    page.open_panel()
    expect(page.panel).to_contain_text(re.compile(r"alice.*renewed automatically, \d+ min left"), timeout=30_000)
    page.open_notebook()
    page.begin_all()
    rate = page.section("Models").get_by_role("row", name="particlenet").get_by_role("cell").first
    expect(rate).to_have_text(re.compile(r"^[1-9]"), timeout=120_000)  # while there is load
    page.wait_for_all()
    connected = page.notebook.locator(".jp-CodeCell").first
    expect(page.output(connected)).to_contain_text("Hub facility document")
    outputs = page.notebook.locator(".jp-OutputArea-output")
    expect(outputs.filter(has_text=re.compile("6498 jets in"))).to_have_count(1)
    expect(prompt(page.notebook.locator(".jp-CodeCell").last)).to_have_text(re.compile(r"\[\d+\]"))
