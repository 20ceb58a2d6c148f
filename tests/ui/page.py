"""JupyterLab in a real browser: a user's actions, what is shown, and complaints that must not occur."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lab import Lab
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Playwright, Request, WebSocket

API = "eaf-inference/api/"
LIGHT, DARK, HIGH_CONTRAST = "JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-default-apps"),
    "--disable-features=OptimizationHints,MediaRouter,Translate",
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    "--disable-backgrounding-occluded-windows",
)

_JUPYTERLAB_SAYS = {
    r"warning: Plugin \S+ .*to activate\. \(": "one took seconds, on a busy machine",
}

_NEW_NOTEBOOK = """async () => {
  const panel = await window.jupyterapp.commands.execute('notebook:create-new', {
    kernelName: 'python3',
    activate: true
  });
  await panel.context.ready;
  await panel.sessionContext.ready;
}"""

_RUN = """async source => {
  const { commands, shell } = window.jupyterapp;
  const panel = shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  const notebook = panel.content;
  notebook.deselectAll();
  notebook.activeCellIndex = notebook.widgets.length - 1;
  if (notebook.activeCell.model.sharedModel.getSource().trim()) {
    await commands.execute('notebook:insert-cell-below');
  }
  notebook.activeCell.model.sharedModel.setSource(source);
  void commands.execute('notebook:run-cell');
  return notebook.activeCellIndex;
}"""

# The border between main area and panel, where a mouse would leave it; only a private name leads there.
_SET_WIDTH = """width => {
  const { shell } = window.jupyterapp;
  const split = shell._hsplitPanel;
  const total = split.node.clientWidth;
  const left = shell.leftCollapsed ? 0 : 250;
  split.setRelativeSizes([left, total - left - width, width].slice(3 - split.widgets.length));
}"""

# JupyterLab's body has no height of its own, for which axe-core takes all its text for hidden and checks no contrast.
_TALL_BODY = "body { height: 100vh; }"
_VIOLATIONS = """async selectors => {
  const { passes, violations } = await axe.run({ include: selectors.map(each => [each]) });
  if (![...passes, ...violations].some(each => each.id === 'color-contrast')) {
    throw new Error('axe-core saw no text');
  }
  return violations
    .filter(each => each.impact === 'serious' || each.impact === 'critical')
    .map(each => [each.id, each.help, ...each.nodes.map(node => `${node.html} ${node.failureSummary}`)].join('\\n'));
}"""
_ALL_OF_IT = {"width": 1500, "height": 3000}  # axe-core ignores what is scrolled out of sight


def find_browser(playwright: Playwright) -> str | None:
    """The system's Chromium, else the one that Playwright has downloaded; None without any."""
    own = playwright.chromium.executable_path
    return next(filter(None, map(shutil.which, _NAMES)), own if Path(own).exists() else None)


@contextmanager
def running_browser() -> Iterator[Browser | None]:
    """One browser for many pages; None if there is none."""
    with sync_playwright() as playwright:
        path = find_browser(playwright)
        browser = path and playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser or None
        finally:
            if browser:
                browser.close()


class Page:
    """One user of one server: a page in a context of its own, without other users' cookies.

    Attributes
    ----------
    tab : playwright.sync_api.Page
        For what has no name here.
    complaints : list of str
        Errors and warnings of the console, and exceptions.
    external : list of str
        URLs that were asked for elsewhere than of this server.
    """

    SAYS: Mapping[str, str] = {}  # beginning of a message of the front end itself → why it is unrelated to us

    def __init__(self, server: Lab, browser: Browser, *, width: int = 1500, height: int = 950) -> None:
        self.lab = server
        self.complaints: list[str] = []
        self.external: list[str] = []
        self.context: BrowserContext = browser.new_context(viewport={"width": width, "height": height})
        self.tab = self.context.new_page()
        self.tab.on("console", self._hear)
        self.tab.on("pageerror", lambda error: self._complain(f"exception: {error.stack or error}"))
        self.tab.on("request", self._see)

    def close(self) -> None:
        self.context.close()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complain(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _complain(self, complaint: str) -> None:
        if not any(re.match(pattern, complaint) for pattern in self.SAYS):
            self.complaints.append(complaint)

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self.lab.url, "data:", "blob:")):
            self.external.append(request.url)


class LabPage(Page):
    """One user of one JupyterLab.

    Attributes
    ----------
    asked : list of str
        What was asked of our own server extension.
    streams : list of playwright.sync_api.WebSocket
        Our sockets, the open one and those that are closed.
    sent, received : list of dict
        Frames on them.
    """

    SAYS = _JUPYTERLAB_SAYS

    def __init__(self, lab: Lab, browser: Browser, workspace: str, **size: int) -> None:
        super().__init__(lab, browser, **size)
        self.asked: list[str] = []
        self.streams: list[WebSocket] = []
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.tab.on("websocket", self._follow)
        self.enter(lab, workspace)
        self.wait_until_restored()

    # Lab

    def enter(self, lab: Lab, workspace: str) -> None:
        """Open the Lab with its token."""
        self.tab.goto(f"{lab.url}lab/workspaces/{workspace}?token={lab.token}")

    def wait_until_restored(self) -> None:
        self.tab.wait_for_function("window.jupyterapp?.restored.then(() => true)", timeout=60_000)

    def reload(self) -> None:
        self.tab.reload()
        self.wait_until_restored()

    def execute(self, command: str, **arguments: object) -> None:
        """Execute a command, as a menu, a shortcut or the palette would."""
        self.tab.evaluate("([id, args]) => void window.jupyterapp.commands.execute(id, args)", [command, arguments])

    def choose_theme(self, name: str) -> None:
        self.execute("apputils:change-theme", theme=name)
        expect(self.tab.locator("body")).to_have_attribute("data-jp-theme-name", name)
        expect(self.tab.locator("#jupyterlab-splash")).to_have_count(0)  # it covers everything while it fades

    # The panel and the status bar

    @property
    def panel(self) -> Locator:
        return self.tab.locator("#eaf-inference-panel")

    @property
    def tab_of_the_panel(self) -> Locator:
        """The icon at the right edge."""
        return self.tab.locator('.lm-TabBar-tab[data-id="eaf-inference-panel"]')

    @property
    def status(self) -> Locator:
        """The status bar's item."""
        return self.tab.locator(".jp-EafInference-status")

    def open_panel(self) -> Locator:
        if not self.panel.is_visible():
            self.tab_of_the_panel.click()
        expect(self.panel).to_be_visible()
        return self.panel

    def hide_panel(self) -> None:
        if self.panel.is_visible():
            self.tab_of_the_panel.click()
        expect(self.panel).to_be_hidden()

    def set_panel_width(self, pixels: int) -> None:
        self.tab.evaluate(_SET_WIDTH, pixels)

    def health(self, means: str) -> Locator:
        """The panel's dot with the meaning "connected", "numbers are outdated" or "not connected"."""
        return self.panel.get_by_role("img", name=means, exact=True)

    def section(self, title: str) -> Locator:
        return self.panel.get_by_role("region", name=title, exact=True)

    # The dashboard

    def dashboard(self, view: str = "all") -> Locator:
        """A tab of the dashboard."""
        return self.tab.locator(f"#eaf-inference-dashboard-{view} .jp-EafInference-dashboard")

    def open_dashboard(self, view: str = "all", **arguments: object) -> Locator:
        self.execute("eaf-inference:open-dashboard", view=view, **arguments)
        expect(self.dashboard(view)).to_be_visible()
        return self.dashboard(view)

    def chart(self, title: str) -> Locator:
        """A chart of the dashboard."""
        return self.dashboard().get_by_role("figure", name=title).get_by_role("img")

    # Notebooks

    @property
    def notebook(self) -> Locator:
        """The notebook in front."""
        return self.tab.locator(".jp-NotebookPanel:visible")

    @property
    def cells(self) -> Locator:
        return self.notebook.locator(".jp-Notebook .jp-Cell")

    def new_notebook(self) -> None:
        """Open a new notebook, and wait for its kernel."""
        self.tab.evaluate(_NEW_NOTEBOOK)
        self.cells.first.locator(".cm-content").click()

    def new_triton_notebook(self) -> None:
        """Open a notebook with the launcher's button, and wait until it is connected."""
        self.tab.locator(".jp-LauncherCard:visible", has_text="New Triton notebook").first.click()
        expect(self.output(self.cells.first)).to_contain_text("found by", timeout=60_000)

    def run(self, source: str, *, timeout: float = 60.0) -> Locator:
        """Run the source as the last cell, and return the cell when it has ended."""
        cell = self.begin(source)
        self.wait_until_ended(cell, timeout=timeout)
        return cell

    def begin(self, source: str) -> Locator:
        """Start the source as the last cell, and return the cell."""
        return self.cells.nth(self.tab.evaluate(_RUN, source))

    def wait_until_ended(self, cell: Locator, *, timeout: float = 60.0) -> None:
        expect(prompt(cell)).to_have_text(re.compile(r"\[\d+\]:"), timeout=1000 * timeout)

    def output(self, cell: Locator) -> Locator:
        """The cell's last output."""
        return cell.locator(".jp-OutputArea-output").last

    def name_of_the_notebook(self) -> str:
        name: str = self.tab.evaluate("window.jupyterapp.shell.currentWidget.title.label")
        return name

    def save_and_reload(self) -> None:
        self.tab.evaluate("window.jupyterapp.shell.currentWidget.context.save()")
        self.reload()

    @property
    def widget(self) -> Locator:
        """The widget of `triton.monitor()`."""
        return self.notebook.locator(".eaf-widget")

    # Complaints

    def violations(self, *selectors: str) -> list[str]:
        """The serious and critical violations that axe-core finds there."""
        self.tab.set_viewport_size(_ALL_OF_IT)
        if not self.tab.evaluate("'axe' in window"):
            self.tab.add_style_tag(content=_TALL_BODY)
            self.tab.evaluate(_axe())
        found: list[str] = self.tab.evaluate(_VIOLATIONS, selectors)
        return found

    def _see(self, request: Request) -> None:
        super()._see(request)
        if API in request.url:
            self.asked.append(request.url)

    def _follow(self, socket: WebSocket) -> None:
        if not socket.url.startswith(self.lab.url.replace("http", "ws", 1)):
            self.external.append(socket.url)
        if f"{API}stream" in socket.url:
            self.streams.append(socket)
            socket.on("framesent", lambda text: self.sent.append(json.loads(text)))
            socket.on("framereceived", lambda text: self.received.append(json.loads(text)))


def prompt(cell: Locator) -> Locator:
    """A cell's ``[*]:`` or ``[3]:``."""
    return cell.locator(".jp-InputPrompt")


@cache
def _axe() -> str:
    return AXE.read_text()
