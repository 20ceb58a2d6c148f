"""A browser, real Labs and a real Triton; at the end of a test, every page must be free of complaints.

pytest-jupyter and Playwright's synchronous interface disturb each other, so this directory is a run of its own:
``pytest tests/ui``.
"""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest
from integration.token_service import HUB_TOKEN, token_service
from lab import running_lab
from marimo_server import running_marimo
from page import LabPage, running_browser
from playwright.sync_api import expect
from recorded.replay import serve
from samples import deployed
from tiny_models import save_affine

from eaf_facility.servers.triton import MODELS, TritonServer

expect.set_options(timeout=20_000)  # ms: a busy machine is no failure, and nothing waits that is there
MORE_MODELS = [f"affine_{number}" for number in range(1, 6)]  # enough for the panel to show its filter
DEPLOYED = ["alice.my_tagger", "bob.affine"]  # by users; alice is the one who looks


@pytest.fixture(scope="session")
def browser():
    with running_browser() as running:
        if running is None:
            pytest.skip("no browser: install Chromium (apt-get install chromium, or playwright install chromium)")
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A Triton with the models of this package, and some that are instant."""
    repository = tmp_path_factory.mktemp("more")
    for name in MORE_MODELS:
        save_affine(repository / name)
    for name in DEPLOYED:
        save_affine(repository / name, config=deployed())
    with TritonServer.start([MODELS, repository]) as running:
        yield running


@pytest.fixture(scope="session")
def lab(browser, server, tmp_path_factory):
    """A Lab connected to that Triton."""
    with running_lab(tmp_path_factory.mktemp("lab"), urls=[server.grpc], metrics_urls=[server.metrics]) as running:
        yield running


@pytest.fixture
def start_lab(browser, tmp_path_factory):
    """Start a Lab for one test, with its own facility settings."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running_lab(tmp_path_factory.mktemp("lab"), **settings))


@pytest.fixture
def start_marimo(browser, tmp_path_factory):
    """Start marimo for one test, with these cells and facility settings."""
    with ExitStack() as stack:
        yield lambda *cells, **settings: stack.enter_context(
            running_marimo(tmp_path_factory.mktemp("marimo"), *cells, **settings)
        )


@pytest.fixture
def site():
    """A site with recorded or written metrics."""
    with serve() as site:
        yield site


@pytest.fixture
def token_giver():
    """A stand-in for the facility's token service."""
    with token_service({}) as running:
        yield running


@pytest.fixture
def start_hub_lab(start_lab, server, token_giver):
    """Start a Lab as a Hub would, with that token service."""
    environment = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN, "EAF_TOKEN_SERVICE": token_giver.url}
    return lambda: start_lab(environment=environment, urls=[server.grpc], metrics_urls=[server.metrics])


@pytest.fixture
def visit(browser, request):
    """Open a Lab in a new page; at the end, no page may have complained or contacted another site."""
    pages = []

    def open_lab(lab, *, kind=LabPage):
        name = re.sub(r"\W+", "-", request.node.name)
        pages.append(kind(lab, browser, f"{name}-{len(pages)}"))
        return pages[-1]

    open_lab.pages = pages
    yield open_lab
    for page in pages:
        page.close()
    assert [complaint for page in pages for complaint in page.complaints] == []
    assert [url for page in pages for url in page.external] == []


@pytest.fixture
def page(lab, visit):
    return visit(lab)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the pages, logs and consoles of a failed test."""
    report = yield
    if report.failed and "visit" in item.funcargs:
        for number, page in enumerate(item.funcargs["visit"].pages):
            if call.when == "call":
                picture = page.lab.log.with_name(f"{item.name}-{number}.png")
                page.tab.screenshot(path=picture)
                report.sections.append(("picture", str(picture)))
            report.sections.append((f"console of page {number}", "\n".join(page.complaints)))
            report.sections.append((f"log of its Lab, {page.lab.log}", page.lab.log.read_text()[-3000:]))
    return report
