"""Clusters of a real gateway in the panel, and notebooks that are connected elsewhere or lost their kernel."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect
from test_ui_accessibility import PANEL, found_in_any_theme

CLUSTER = """
from dask_gateway import Gateway
cluster = Gateway().new_cluster()
cluster.scale(1)
client = cluster.get_client()
client.wait_for_workers(1)
"""


@pytest.fixture
def cluster_lab(start_lab, server, gateway_server, tmp_path):
    """A Lab with a gateway in the user's Dask configuration."""
    auth = {"type": "basic", "kwargs": {"username": "alice", "password": gateway_server.password_file.read_text()}}
    (tmp_path / "gateway.yaml").write_text(json.dumps({"gateway": {"address": gateway_server.address, "auth": auth}}))
    return start_lab(environment={"DASK_CONFIG": str(tmp_path)}, urls=[server.grpc], metrics_urls=[server.metrics])


def answer(page, button, title):
    """Answer the dialog with this title, and return its text."""
    dialog = page.tab.get_by_role("dialog").filter(has_text=title)
    expect(dialog).to_be_visible()
    text = dialog.inner_text()
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_have_count(0)
    return text


@pytest.mark.slow
def test_a_cluster_is_named_scaled_and_shut_down_from_the_panel(cluster_lab, visit, gateway_server):
    page = visit(cluster_lab)
    page.open_panel()
    page.new_triton_notebook()
    page.run(CLUSTER)
    name = page.name_of_the_notebook()
    cluster = page.section("My clusters").get_by_role("group")
    expect(cluster).to_have_count(1, timeout=30_000)
    expect(cluster).to_contain_text(re.compile(rf"^[0-9a-f]{{6}}1 / 1 connected{name} · \d+ s old"), timeout=30_000)
    label = cluster.locator("strong").inner_text()
    assert found_in_any_theme(page, PANEL) == []

    with page.context.expect_page() as opened:
        cluster.get_by_role("link", name="Dashboard").click()
    expect(opened.value).to_have_title(re.compile("Dask"))
    assert opened.value.url.startswith(gateway_server.address)
    opened.value.close()

    scale, end = (cluster.get_by_role("button", name=f"{verb} cluster {label}") for verb in ("Scale", "Shut down"))
    scale.click()
    assert "(1 now)" in answer(page, "Cancel", f"Scale cluster {label}")
    scale.click()
    page.tab.get_by_role("dialog").get_by_role("spinbutton").fill("-1")
    answer(page, "Scale", f"Scale cluster {label}")
    assert "whole number from 0 to 10000" in answer(page, "Close", "The cluster was not scaled")
    scale.click()
    page.tab.get_by_role("dialog").get_by_role("spinbutton").fill("2")
    page.tab.keyboard.press("Enter")
    expect(cluster).to_contain_text("Requested 2 workers.")
    expect(cluster).to_contain_text("2 / 2 connected", timeout=30_000)
    expect(cluster.get_by_role("status")).to_have_count(0)

    end.click()
    said = answer(page, "Cancel", f"Shut down cluster {label}?")
    assert "Its 2 workers stop, and their running tasks are lost." in said
    assert f"It is used by {name}." in said
    expect(cluster).to_contain_text("2 / 2 connected")

    url = re.compile("/shutdown")
    page.tab.route(url, lambda route: route.fulfill(status=409, json={"message": "It is starting."}))
    end.click()
    answer(page, "Shut down", f"Shut down cluster {label}?")
    expect(cluster.get_by_role("alert")).to_have_text("Not shut down: It is starting.")
    page.complaints[:] = [each for each in page.complaints if "409 (Conflict)" not in each]
    page.tab.unroute(url)
    end.click()
    answer(page, "Shut down", f"Shut down cluster {label}?")
    expect(cluster).to_have_count(0)
    expect(page.section("My clusters")).to_contain_text("No Dask cluster is running.")


def test_a_notebook_connects_to_a_typed_address_and_is_marked(start_lab, visit, server):
    page = visit(start_lab())
    page.open_panel()
    page.new_notebook()
    expect(page.panel.get_by_role("heading", name="No Triton service was found")).to_be_visible(timeout=20_000)
    field = page.panel.get_by_label("Connect to an address")
    field.focus()
    page.tab.keyboard.type("grpc://two words")
    page.tab.keyboard.press("Enter")
    expect(page.panel.get_by_role("alert")).to_contain_text("Expected grpcs://host:443 (with TLS)")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.cells.first.locator(".cm-content")).to_have_text("")
    field.fill(server.grpc)
    expect(page.panel.get_by_role("alert")).to_have_count(0)
    page.tab.keyboard.press("Enter")
    expect(page.cells.first.locator(".cm-content")).to_have_text(
        re.compile(rf"^%load_ext eaf_inference\s*%triton_connect {server.grpc}$")
    )
    notebooks = page.section("Notebooks")
    expect(notebooks).to_contain_text(f"connected to {server.grpc}", timeout=60_000)
    expect(page.panel.get_by_role("heading", name="Only a notebook is connected")).to_be_visible()
    expect(page.panel).not_to_contain_text("No Triton service was found")
    assert found_in_any_theme(page, PANEL) == []

    page.begin("import os; os.kill(os.getpid(), 9)")
    answer(page, "Ok", "Kernel Restarting")
    expect(notebooks).to_contain_text("kernel died: connect again", timeout=20_000)
    page.panel.get_by_label("Connect to an address").press("Enter")  # the address is still in the field
    expect(notebooks).to_contain_text(f"connected to {server.grpc}", timeout=60_000)
    expect(notebooks).not_to_contain_text("kernel died")
    page.complaints[:] = [each for each in page.complaints if "Connection lost" not in each]  # to the dead kernel
