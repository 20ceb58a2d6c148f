"""A user of a multi-user facility in a real browser, who logs in to the Hub and opens a notebook."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lab import NO_NEWS, Lab
from page import LabPage
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from eaf_facility.local.multi_user import SharedFacility

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NOTEBOOK = "quickstart.ipynb"
_ERROR = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'
_OPEN = """async path => {
  const panel = await window.jupyterapp.commands.execute('docmanager:open', { path });
  await panel.context.ready;
  await panel.sessionContext.ready;
}"""


def furnish(facility: SharedFacility, user: str) -> Path:
    """Copy the quickstart with its data to the user's home, and write the settings of JupyterLab."""
    home = facility.hub.homes / user
    configuration = home / ".jupyter"
    notification = "lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings = {
        "jupyter_lab_config.json": {"LabApp": {"expose_app_in_browser": True, "extension_manager": "readonly"}},
        notification: NO_NEWS,
    }
    for name, content in settings.items():
        (configuration / name).parent.mkdir(parents=True, exist_ok=True)
        (configuration / name).write_text(json.dumps(content))
    for name in (NOTEBOOK, "jets.parquet"):
        shutil.copy(NOTEBOOKS / name, home)
    return home


class HubPage(LabPage):
    """The user's page; complaints and requests include those of the Hub's pages."""

    def __init__(self, facility: SharedFacility, browser: Browser, user: str, **size: int) -> None:
        self._user = user
        self._password = facility.hub.password_file.read_text()
        home = facility.hub.homes / user
        super().__init__(Lab(f"{facility.hub.url}/", "", {}, home, facility.hub.log), browser, "quickstart", **size)

    def enter(self, lab: Lab, workspace: str) -> None:
        self.tab.goto(f"{lab.url}hub/login")
        self.tab.get_by_label("Username").fill(self._user)
        self.tab.get_by_label("Password").fill(self._password)
        self.tab.get_by_role("button", name="Sign in").click()
        self.tab.wait_for_url(f"**/user/{self._user}/lab**", timeout=90_000)
        self.wait_until_restored()
        self.tab.goto(f"{lab.url}user/{self._user}/lab/workspaces/{workspace}")

    def open_notebook(self) -> None:
        self.tab.evaluate(_OPEN, NOTEBOOK)

    def run_all(self) -> None:
        """Run all cells, as the menu does, and wait for the last one."""
        self.begin_all()
        self.wait_for_all()

    def begin_all(self) -> None:
        """Start to run all cells."""
        self.execute("notebook:run-all-cells")

    def wait_for_all(self) -> None:
        """Wait for all cells."""
        self.wait_until_ended(self.notebook.locator(".jp-CodeCell").last, timeout=180)
        expect(self.notebook.locator(_ERROR)).to_have_count(0)
