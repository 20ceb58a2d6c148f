"""A real marimo with one notebook, in a real browser."""

from __future__ import annotations

import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import Lab, environment_of, serving
from page import Page

from eaf_facility.process.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator

_XDG = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")  # marimo's settings and state
_SETTINGS = """
[runtime]
auto_instantiate = true
"""
_NOTEBOOK = """
import marimo

app = marimo.App()

{cells}
"""
_CELL = """
@app.cell
def _({takes}):
{body}
    return {gives}
"""


def cell(source: str, *, takes: str = "", gives: str = "") -> str:
    """A cell in marimo's format: a function with the used variables as parameters that returns the defined ones."""
    body = "\n".join(f"    {line}" for line in source.strip().splitlines())
    return _CELL.format(takes=takes, body=body, gives=f"({gives},)" if gives else "")


@contextmanager
def running_marimo(home: Path, *cells: str, **settings) -> Iterator[Lab]:
    """A marimo editor for the length of a `with` block, with the facility's configuration."""
    (port,) = free_ports(1)
    environment = environment_of(home) | {name: str(home / name.lower()) for name in _XDG}
    marimo = Lab(
        f"http://127.0.0.1:{port}/", secrets.token_hex(16), environment, home / "notebooks", home / "marimo.log"
    )
    marimo.directory.mkdir()
    marimo.configure(**settings)
    notebook = marimo.directory / "jets.py"
    notebook.write_text(_NOTEBOOK.format(cells="\n".join(cells)))
    settings_file = Path(environment["XDG_CONFIG_HOME"]) / "marimo" / "marimo.toml"
    settings_file.parent.mkdir(parents=True)
    settings_file.write_text(_SETTINGS)
    password = home / "password"
    password.touch(mode=0o600)
    password.write_text(marimo.token)
    command = [
        *(sys.executable, "-m", "marimo", "--yes", "edit", str(notebook), "--headless", "--skip-update-check"),
        *("--host", "127.0.0.1", "--port", str(port), "--token-password-file", str(password)),
    ]
    with serving(marimo, command, "health", environment=environment):
        yield marimo


class MarimoPage(Page):
    """A page with that notebook, whose cells run when it is opened."""

    SAYS = {  # noqa: RUF012
        r"warning: The resource \S+/assets/": "marimo preloads pictures that it shows later",
    }

    def __init__(self, marimo: Lab, browser: Browser, _name: str, **size: int) -> None:
        super().__init__(marimo, browser, **size)
        self.tab.goto(f"{marimo.url}?access_token={marimo.token}")

    def output(self, number: int) -> Locator:
        """The output of the cell with this number."""
        return self.tab.locator("[data-cell-id]").nth(number).locator(".output-area")

    @property
    def widget(self) -> Locator:
        """The widget of `triton.monitor()`."""
        return self.tab.locator(".eaf-widget")
