"""Take screenshots of every state of panel and widget: light and dark, narrow and wide.

python tests/ui/pictures.py [--output build/pictures] [--history SECONDS] [SCENE …]

Each is taken of a real JupyterLab with the real server extension, Triton and kernels, in Chromium. GPUs are
stand-ins (`stand_in.py`), read as Triton's metrics or through a real Prometheus. ``index.html`` there shows them all.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

sys.path.extend(str(Path(__file__).parents[1] / each) for each in ("", "integration", "server"))
import awkward as ak
import numpy as np
from hub import HubPage, furnish
from lab import Lab, running_lab
from page import DARK, LIGHT, LabPage, prompt, running_browser
from playwright.sync_api import expect
from pretender import refusing
from recorded.replay import serve
from samples import deployed, usage_of, used, used_by
from stand_in import Gpu, Load, dcgm, triton
from test_metrics import prometheus
from tiny_models import save_affine
from token_service import HUB_TOKEN, token_service

import eaf_inference
from eaf_facility.local.multi_user import up_for
from eaf_facility.process.ports import free_ports
from eaf_facility.servers.triton import MODELS, TritonServer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page
    from recorded.replay import Site

ROOT = Path(__file__).parents[2]
JETS = ROOT / "notebooks" / "jets.parquet"
THEMES = {"light": LIGHT, "dark": DARK}
WIDTHS = (250, 450)
SETTLED = 1200  # milliseconds, for transitions and the next snapshot

SLICES = [
    Gpu(3, "ampere-01", profile="2g.10gb", typical=0.95, memory=0.71, mebibytes=9856),
    Gpu(4, "ampere-01", profile="2g.10gb", typical=0.68, memory=0.49, mebibytes=9856),
]
BUSY = [Load("particlenet", 11_940, 982, 410, 52), Load("jet_regression", 820, 64, 3.2, 1.4)]
EASY = [Load("particlenet", 3_980, 310, 4.1, 18), Load("jet_regression", 410, 64, 1.2, 1.4)]
MORE = [
    Load(name, 9000 / (place + 1) ** 1.3, 256 // (place + 1), 12 / (place + 1), 9)
    for place, name in enumerate(("b_tagger", "tau_id", "muon_iso", "met_regression", "electron_id", "shower_gan"))
]
MANY = [Gpu(number, f"ampere-{1 + number // 8:02}", typical=0.2 + 0.01 * number) for number in range(64)]
FOUR = [
    Gpu(number, f"ampere-{1 + number // 2:02}", typical=typical, memory=memory)
    for number, (typical, memory) in enumerate([(0.78, 0.62), (0.55, 0.41), (0.34, 0.22), (0.12, 0.08)])
]
USED = [
    used("particlenet", 3120, 1_240_000, 12, estimated=True),
    used("jet_regression", 410, 81_300),
    used("b_tagger_with_a_name_that_is_rather_long", 9, 1200),
]

NOTEBOOK = [
    "# Classify jets through a shared Triton",
    "%load_ext eaf_inference\n%triton_connect",
    'import awkward as ak\n\njets = ak.from_parquet("jets.parquet").jets\nmodel = triton.model("particlenet")',
    "triton.monitor()",
    "scores = model(jets.constituents)",
]
STATIC = [*NOTEBOOK[1:3], "monitor = triton.monitor()\nscores = model(jets.constituents[:4000, :, :128])\nmonitor"]
COPIES = 30  # of the jets, so that the last cell takes a minute or two
BUSY_FOR = 30.0  # seconds, until the picture

_OPEN = """async path => {
  const panel = await window.jupyterapp.commands.execute('docmanager:open', { path });
  await panel.context.ready;
  await panel.sessionContext.ready;
}"""
_RUN_CELL = """async index => {
  const { commands, shell } = window.jupyterapp;
  shell.currentWidget.content.activeCellIndex = index;
  void commands.execute('notebook:run-cell');
}"""

Scene = Callable[["Studio"], Iterator[None]]


class Studio:
    """Starts the servers and takes the screenshots.

    Attributes
    ----------
    browser : playwright.sync_api.Browser
    triton : TritonServer
        A real one.
    taken : list of str
        Names of the pictures.
    """

    def __init__(self, output: Path, stack: ExitStack) -> None:
        self.output = output
        self.taken: list[str] = []
        self.stack = stack
        self.home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        browser = stack.enter_context(running_browser())
        if browser is None:
            raise SystemExit("There is no browser: install Chromium.")
        self.browser = browser
        self.triton = stack.enter_context(TritonServer.start())

    def directory(self, name: str) -> Path:
        path = self.home / name
        path.mkdir()
        return path

    def lab(self, name: str, *, environment: dict[str, str] | None = None, **settings: Any) -> Lab:
        return self.stack.enter_context(running_lab(self.directory(name), environment=environment, **settings))

    def visit(self, lab: Lab, *, width: int = 1200, height: int = 1500) -> LabPage:
        page = LabPage(lab, self.browser, "pictures", width=width, height=height)
        self.stack.callback(page.close)
        page.execute("application:toggle-left-area")
        page.open_panel()
        return page

    def visit_facility(self, name: str, **settings: Any) -> LabPage:
        """The panel of a Lab with the real Triton, and with metrics from these settings."""
        return self.visit(self.lab(name, urls=[self.triton.grpc], **settings))

    def metrics(self, text: Callable[[float], str]) -> Site:
        """A stand-in for a server's metrics: `text(seconds since its start)`."""
        site, began = self.stack.enter_context(serve()), time.monotonic()
        site.answer = lambda _: (200, text(time.monotonic() - began))
        return site

    def through_prometheus(
        self, name: str, of_triton: Callable[[float], str], of_dcgm: Callable[[float], str]
    ) -> dict[str, Any]:
        """Settings of a facility with a real Prometheus that scrapes both stand-ins."""
        targets = {
            name: self.metrics(text).url.removeprefix("http://")
            for name, text in {"triton": of_triton, "dcgm": of_dcgm}.items()
        }
        url = self.stack.enter_context(prometheus(self.directory(f"prometheus-{name}"), **targets))
        return {"prometheus_url": url, "prometheus_matchers": ['namespace="ours"'], "prometheus_window": 10}

    def panels(self, page: LabPage, name: str) -> None:
        """The panel as it is now, in every theme and width."""
        for theme, of_jupyterlab in THEMES.items():
            page.choose_theme(of_jupyterlab)
            for width in WIDTHS:
                page.set_panel_width(width)
                page.tab.wait_for_timeout(SETTLED)
                box = page.panel.bounding_box()
                end = page.panel.evaluate("node => node.lastElementChild.getBoundingClientRect().bottom")
                clip = {**box, "height": min(box["height"], end - box["y"] + 12)}
                self.keep(f"{name}-{theme}-{width}", page.tab, clip=clip)

    def tab(self) -> Page:
        """An empty page, away from JupyterLab."""
        tab = self.browser.new_page(viewport={"width": 900, "height": 600})
        self.stack.callback(tab.close)
        return tab

    def keep(self, name: str, of: Page | Locator, **options: Any) -> None:
        of.screenshot(path=self.output / f"{name}.png", **options)
        self.taken.append(name)
        print(name, flush=True)

    def make_index(self) -> None:
        """One page with all screenshots."""
        figures = "".join(
            f'<figure><img src="{name}.png"><figcaption>{html.escape(name)}</figcaption></figure>'
            for name in self.taken
        )
        style = "body{display:flex;flex-wrap:wrap;gap:12px;background:#888;font:12px sans-serif} figure{margin:0}"
        (self.output / "index.html").write_text(f"<!doctype html><style>{style}</style>{figures}")


def gpu(studio: Studio) -> Iterator[None]:
    """Two GPUs, as Triton itself reports them; then its metrics are gone."""
    gpus = [Gpu(0, "ampere-01", typical=0.63, memory=0.36), Gpu(1, "ampere-01", typical=0.28, memory=0.08)]
    site = studio.metrics(lambda seconds: triton(seconds, EASY, gpus))
    page = studio.visit_facility("gpu", metrics_urls=[f"{site.url}/metrics"])
    yield
    studio.panels(page, "gpu")
    site.answer = lambda _: (503, "")
    expect(page.health("numbers are outdated")).to_be_visible(timeout=30_000)
    page.tab.wait_for_timeout(12_000)
    studio.panels(page, "stale")
    page.open_dashboard()
    page.tab.wait_for_timeout(SETTLED)
    studio.keep("dashboard-stale", page.tab)


def mig(studio: Studio) -> Iterator[None]:
    """Two MIG slices through Prometheus, with a saturated server."""
    settings = studio.through_prometheus(
        "mig", lambda seconds: triton(seconds, BUSY), lambda seconds: dcgm(seconds, SLICES)
    )
    page = studio.visit_facility("mig", **settings)
    yield
    studio.panels(page, "mig")


def replicas(studio: Studio) -> Iterator[None]:
    """Two replicas with a GPU each."""
    sites = [
        studio.metrics(lambda seconds, own=own: triton(seconds, EASY, [own]))
        for own in (Gpu(0, "ampere-01", typical=0.57, memory=0.41), Gpu(0, "ampere-02", typical=0.61, memory=0.41))
    ]
    page = studio.visit_facility("replicas", metrics_urls=[f"{site.url}/metrics" for site in sites])
    yield
    studio.panels(page, "replicas")


def many(studio: Studio) -> Iterator[None]:
    """64 GPUs on 8 machines, and enough models for the filter."""
    settings = studio.through_prometheus(
        "many", lambda seconds: triton(seconds, [*EASY, *MORE]), lambda seconds: dcgm(seconds, MANY)
    )
    page = studio.visit_facility("many", **settings)
    yield
    studio.panels(page, "many")
    page.hide_panel()
    for theme, of_jupyterlab in THEMES.items():
        page.choose_theme(of_jupyterlab)
        page.open_dashboard()
        page.tab.wait_for_timeout(SETTLED)
        page.chart("GPU utilization").hover(position={"x": 400, "y": 60})
        studio.keep(f"dashboard-many-{theme}", page.tab)


def dashboard(studio: Studio) -> Iterator[None]:
    """The dashboard's tab with four GPUs and six models; wide and narrow, and two of its views side by side."""
    settings = studio.through_prometheus(
        "dashboard", lambda seconds: triton(seconds, [*EASY, *MORE[:4]]), lambda seconds: dcgm(seconds, FOUR)
    )
    service = studio.stack.enter_context(token_service({}))
    service.usage = usage_of(*USED)
    environment = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN, "EAF_TOKEN_SERVICE": service.url}
    lab = studio.lab("dashboard", environment=environment, urls=[studio.triton.grpc], **settings)
    page = studio.visit(lab, width=1400, height=1180)
    page.hide_panel()
    page.open_dashboard()
    yield
    expect(page.dashboard().get_by_role("region", name="My usage")).to_contain_text("inferences")
    for theme, of_jupyterlab in THEMES.items():
        page.choose_theme(of_jupyterlab)
        for width in (1400, 560):
            page.tab.set_viewport_size({"width": width, "height": 1180})
            page.tab.wait_for_timeout(SETTLED)
            box = page.chart("GPU utilization").bounding_box()
            page.chart("GPU utilization").hover(position={"x": 0.8 * box["width"], "y": 60})
            studio.keep(f"dashboard-{theme}-{width}", page.tab)
    page.tab.set_viewport_size({"width": 1400, "height": 850})
    page.choose_theme(LIGHT)
    page.open_dashboard("gpus")
    page.open_dashboard("models")
    page.tab.wait_for_timeout(SETTLED)
    studio.keep("dashboard-views", page.tab)


def usage(studio: Studio) -> Iterator[None]:
    """A user's own usage of several models and of one, with a stand-in for the token service."""
    site = studio.metrics(lambda seconds: triton(seconds, EASY, [Gpu(0, "ampere-01", typical=0.63, memory=0.36)]))
    pages = {}
    for name, models in {"usage": USED, "usage-one": USED[1:2]}.items():
        service = studio.stack.enter_context(token_service({}))
        service.usage = usage_of(*models)
        environment = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN, "EAF_TOKEN_SERVICE": service.url}
        settings = {"urls": [studio.triton.grpc], "metrics_urls": [f"{site.url}/metrics"]}
        pages[name] = studio.visit(studio.lab(name, environment=environment, **settings))
    yield
    for name, page in pages.items():
        expect(page.section("My usage")).to_contain_text("inferences")
        studio.panels(page, name)


def deployments(studio: Studio) -> Iterator[None]:
    """Models that users deployed: this user's first, one of another, and how much all users used hers."""
    repository = studio.directory("deployed")
    for name in ("alice.my_tagger", "alice.tagger_with_a_name_that_is_rather_long", "bob.tau_id"):
        save_affine(repository / name, config=deployed())
    server = studio.stack.enter_context(TritonServer.start([MODELS, repository]))
    loads = [*EASY, Load("alice.my_tagger", 640, 32, 1.1, 2), Load("bob.tau_id", 210, 8, 0.4, 1)]
    site = studio.metrics(lambda seconds: triton(seconds, loads, [Gpu(0, "ampere-01", typical=0.63, memory=0.36)]))
    service = studio.stack.enter_context(token_service({}))
    service.usage = usage_of(*USED[:2], owned=(used_by("alice.my_tagger", 4, 5210, 1_870_000),))
    environment = {"JUPYTERHUB_API_TOKEN": HUB_TOKEN, "EAF_TOKEN_SERVICE": service.url}
    settings = {"urls": [server.grpc], "metrics_urls": [f"{site.url}/metrics"]}
    page = studio.visit(studio.lab("deployments", environment=environment, **settings))
    with eaf_inference.connect(server.grpc) as connection:
        connection.model("alice.my_tagger")(np.zeros((4, 2), "float32"))
    yield
    expect(page.section("Use of my models")).to_contain_text("alice.my_tagger")
    studio.panels(page, "deployments")


def unmeasured(studio: Studio) -> Iterator[None]:
    """A facility without configured metrics."""
    page = studio.visit_facility("unmeasured")
    yield
    studio.panels(page, "unmeasured")


def empty(studio: Studio) -> Iterator[None]:
    """The empty states: one Lab with changing configuration."""
    lab = studio.lab("empty")
    page = studio.visit(lab)
    yield
    (closed,) = free_ports(1)
    settings: dict[str, tuple[str, dict[str, Any]]] = {
        "no-facility": ("No Triton service was found", {}),
        "unreachable": ("Triton does not answer", {"urls": [f"grpc://127.0.0.1:{closed}"]}),
        "not-authorised": ("Not authorised", {"urls": [studio.stack.enter_context(refusing())]}),
        "misconfigured": ("The configuration is invalid", {"urls": ["htp://triton.example.org"]}),
    }
    for name, (heading, facility) in settings.items():
        lab.configure(**facility)
        page.panel.get_by_role("button", name="Try again").click()
        expect(page.panel.get_by_role("heading", name=heading)).to_be_visible(timeout=30_000)
        studio.panels(page, name)
    page.panel.locator("summary").click()
    studio.panels(page, "attempts")
    page.open_dashboard()
    page.tab.wait_for_timeout(SETTLED)
    studio.keep("dashboard-empty", page.tab)


def missing(studio: Studio) -> Iterator[None]:
    """The server extension is switched off."""
    off = studio.directory("off")
    extensions = {"ServerApp": {"jpserver_extensions": {"eaf_inference.server": False}}}
    (off / "jupyter_server_config.json").write_text(json.dumps(extensions))
    page = studio.visit(studio.lab("missing", environment={"JUPYTER_CONFIG_PATH": str(off)}))
    yield
    expect(page.panel.get_by_role("heading", name="The server extension is missing")).to_be_visible()
    studio.panels(page, "missing")


def notebook(studio: Studio) -> Iterator[None]:
    """The widget under a busy cell and the panel beside it, with a Triton on CPUs; then the static picture."""
    lab = studio.lab("notebook", urls=[studio.triton.grpc], metrics_urls=[studio.triton.metrics])
    jets = ak.from_parquet(JETS)
    ak.to_parquet(ak.concatenate([jets] * COPIES), lab.directory / "jets.parquet")
    write_notebook(lab.directory / "quickstart.ipynb", NOTEBOOK)
    page = studio.visit(lab, width=1400, height=930)
    page.set_panel_width(330)
    page.tab.evaluate(_OPEN, "quickstart.ipynb")
    for index in range(3):
        run_cell(page, index)
    with asking(studio.triton, jets.jets.constituents):
        yield
    run_cell(page, 3)
    page.tab.evaluate(_RUN_CELL, 4)
    busy = page.cells.nth(4)
    page.tab.wait_for_timeout(1000 * BUSY_FOR)
    for theme, of_jupyterlab in THEMES.items():
        page.choose_theme(of_jupyterlab)
        page.tab.wait_for_timeout(SETTLED)
        expect(prompt(busy)).to_have_text("[*]:")
        studio.keep(f"jupyterlab-{theme}", page.tab)
    studio.panels(page, "cpu")
    expect(prompt(busy)).to_have_text("[*]:")
    page.execute("notebook:interrupt-kernel")
    static_pictures(studio, lab)


def hub(studio: Studio) -> Iterator[None]:
    """The quickstart of a user who has logged in to a real Hub, and the panel beside it."""
    facility = studio.stack.enter_context(up_for(["alice", "bob"]))
    furnish(facility, "alice")
    page = HubPage(facility, studio.browser, "alice", width=1400, height=850)
    studio.stack.callback(page.close)
    page.execute("application:toggle-left-area")
    page.open_panel()
    page.set_panel_width(330)
    page.open_notebook()
    page.run_all()
    yield
    expect(page.section("My usage")).to_contain_text("particlenet", timeout=90_000)
    for theme, of_jupyterlab in THEMES.items():
        page.choose_theme(of_jupyterlab)
        page.notebook.locator(".jp-RenderedImage").first.evaluate("node => node.scrollIntoView({block: 'end'})")
        page.tab.wait_for_timeout(SETTLED)
        studio.keep(f"hub-{theme}", page.tab)


def static_pictures(studio: Studio, lab: Lab) -> None:
    """The widget in the output of nbconvert."""
    write_notebook(lab.directory / "static.ipynb", STATIC)
    convert = [sys.executable, "-m", "nbconvert", "--log-level=WARN", "static.ipynb"]
    run = {"cwd": lab.directory, "env": lab.environment, "check": True, "timeout": 300}
    subprocess.run([*convert, "--to=notebook", "--execute", "--inplace"], **run)
    for theme in THEMES:
        subprocess.run([*convert, "--to=html", f"--theme={theme}"], **run)
        tab = studio.tab()
        tab.goto((lab.directory / "static.html").as_uri())
        studio.keep(f"static-{theme}", tab.locator(".jp-Cell").last)


SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (notebook, dashboard, gpu, mig, replicas, many, usage, deployments, unmeasured, empty, missing, hub)
}


def write_notebook(path: Path, cells: list[str]) -> None:
    make = nbformat.v4
    nodes = [make.new_markdown_cell(each) if each.startswith("# ") else make.new_code_cell(each) for each in cells]
    kernel = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }  # otherwise JupyterLab asks for one
    nbformat.write(make.new_notebook(cells=nodes, metadata={"kernelspec": kernel}), path)


def run_cell(page: LabPage, index: int) -> None:
    page.tab.evaluate(_RUN_CELL, index)
    cell = page.cells.nth(index)
    if "jp-CodeCell" in (cell.get_attribute("class") or ""):
        page.wait_until_ended(cell)


@contextmanager
def asking(server: TritonServer, constituents: ak.Array) -> Iterator[None]:
    """Another user, who scores jets now and then."""
    ended = threading.Event()

    def ask() -> None:
        with eaf_inference.connect(server.grpc) as connection:
            model = connection.model("particlenet")
            began = time.monotonic()
            while not ended.wait(0.2 + 0.2 * math.sin((time.monotonic() - began) / 9)):
                model(constituents[:200, :, :128])  # without a warning about longer ones

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenes", nargs="*", choices=[[], *SCENES], help="those to take pictures of; all")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "pictures")
    parser.add_argument("--history", type=float, default=130.0, help="seconds that the lines show")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        studio = Studio(arguments.output, stack)
        scenes = [SCENES[name](studio) for name in arguments.scenes or SCENES]
        for scene in scenes:
            stack.callback(scene.close)
            next(scene)
        studio.tab().wait_for_timeout(1000 * arguments.history)  # all of them at once
        for scene in scenes:
            next(scene, None)
        studio.make_index()


if __name__ == "__main__":
    main()
