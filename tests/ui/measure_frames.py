"""Measure how long the panel's scripts delay a frame at worst.

python tests/ui/measure_frames.py [SECONDS]

Two panels in Chromium, one after the other, fed by a real Jupyter server: 64 GPUs with two minutes of history and all
rows open, and 500 models of which every tenth has a name of 10 kB, as a stand-in for a Triton lists them. A trace of
this duration contains each script on the page's main thread; a frame is all that started within 1/60 s of a script.
CPU time is the cost of the scripts; elapsed time includes that of other programs on the machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

sys.path.extend(str(Path(__file__).parents[1] / each) for each in ("", "server"))
from lab import running_lab
from page import LabPage, running_browser
from pretender import models_called
from recorded.replay import serve
from stand_in import Gpu, Load, triton

from eaf_facility.servers.triton import TritonServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

HISTORY = 125.0  # seconds
SETTLES = 10.0
FRAME = 1e6 / 60  # microseconds
CATEGORIES = ["devtools.timeline", "v8"]
SCRIPT = {"FunctionCall", "RunMicrotasks", "EvaluateScript", "TimerFire", "EventDispatch", "FireAnimationFrame"}
SCRIPT |= {"FireIdleCallback", "v8.callFunction", "MinorGC", "MajorGC"}
LAYOUT = {"Layout", "UpdateLayoutTree", "PrePaint", "Paint"}

GPUS = [Gpu(number, "dgx-01", typical=0.2 + 0.01 * number) for number in range(64)]
MODELS = [
    Load(f"{number:03}{'m' * (10_000 if number % 10 == 0 else 60)}", 1000.0 + number, 64) for number in range(500)
]

Span = tuple[float, float, float]  # start, duration and CPU time in microseconds


def measure(title: str, page: LabPage, seconds: float) -> None:
    """Trace the page for this time, and print the longest tasks."""
    browser = page.tab.context.browser
    browser.start_tracing(page=page.tab, categories=CATEGORIES)
    page.tab.wait_for_timeout(1000 * seconds)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    scripts = list(outermost(events, SCRIPT))
    frames = sorted(in_a_frame(scripts), reverse=True)
    layouts = sorted((cpu for _, _, cpu in outermost(events, LAYOUT)), reverse=True)
    print(f"{title}, load average {os.getloadavg()[0]:.2f}")
    print(f"  script of a frame: longest {milliseconds([cpu for cpu, _ in frames])} of CPU time")
    print(f"                     longest {milliseconds(sorted((took for _, took in frames), reverse=True))} elapsed")
    print(f"  layout and paint:  longest {milliseconds(layouts)} of CPU time")
    print(f"  all script:        {sum(cpu for _, _, cpu in scripts) / 1000 / seconds:.1f} ms a second", flush=True)


def outermost(events: list[dict[str, Any]], names: set[str]) -> Iterator[Span]:
    """The outermost tasks of the page's main thread, in order."""
    (thread,) = {(each["pid"], each["tid"]) for each in events if each["name"] == "WebSocketReceive"}
    ends = 0.0
    for event in sorted(events, key=lambda event: event["ts"]):
        is_ours = event["ph"] == "X" and event["name"] in names and (event["pid"], event["tid"]) == thread
        if is_ours and event["ts"] >= ends:
            ends = event["ts"] + event["dur"]
            yield event["ts"], event["dur"], event["tdur"]


def in_a_frame(scripts: list[Span]) -> Iterator[tuple[float, float]]:
    """CPU and elapsed time of the tasks that start within one frame of each task."""
    for place, (began, _, _) in enumerate(scripts):
        frame = [span for span in scripts[place:] if span[0] < began + FRAME]
        yield sum(cpu for _, _, cpu in frame), sum(took for _, took, _ in frame)


def milliseconds(longest: list[float]) -> str:
    return ", ".join(f"{each / 1000:.1f}" for each in longest[:4]) + " ms"


@contextmanager
def panel(browser: Browser, url: str, loads: list[Load], gpus: list[Gpu]) -> Iterator[LabPage]:
    """Measure a Lab whose Triton reports these metrics."""
    began = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = stack.enter_context(serve())
        site.answer = lambda _: (200, triton(time.monotonic() - began, loads, gpus))
        lab = stack.enter_context(running_lab(home, urls=[url], metrics_urls=[f"{site.url}/metrics"]))
        page = LabPage(lab, browser, "frames")
        stack.callback(page.close)
        page.open_panel()
        yield page


def main(seconds: float = 20.0) -> None:
    """Measure both."""
    names = [load.model for load in MODELS]
    with TritonServer.start() as server, models_called(*names) as served, running_browser() as browser:
        if browser is None:
            raise SystemExit("There is no browser: install Chromium.")
        print(f"{os.cpu_count()} CPUs, Chromium {browser.version}, {seconds:.0f} s each")
        with panel(browser, server.grpc, [], GPUS) as page:
            page.panel.get_by_role("button", name="and 48 more").click()
            page.tab.wait_for_timeout(1000 * HISTORY)
            measure("64 GPUs", page, seconds)
        with panel(browser, served, MODELS, []) as page:
            expect(page.panel.get_by_placeholder(f"Filter {len(MODELS)} models")).to_be_visible(timeout=60_000)
            page.tab.wait_for_timeout(1000 * SETTLES)
            measure("500 models", page, seconds)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
