"""The recorded metrics as snapshots, and a server for them."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.metrics.exposition import parse, reading
from eaf_inference.metrics.reading import assemble

if TYPE_CHECKING:
    import ssl

HERE = Path(__file__).parent


def documented(name: str) -> str:
    return (HERE / "documented" / f"{name}.txt").read_text()


def h200(moment: str) -> str:
    """Return the /metrics of a Triton on a GPU."""
    return (HERE / "h200" / f"{moment}.txt").read_text()


def h200_seen(moment: str) -> dict[str, float | str]:
    """Return nvidia-smi's reading of the same moment."""
    return json.loads((HERE / "h200" / "nvidia_smi.json").read_text())[moment]


def scrapes(name: str):
    """Return seconds and text of each scrape of a recorded situation."""
    return [(seconds, text) for seconds, text in json.loads((HERE / f"{name}.json").read_text())]


def snapshots(name: str):
    """Return a recorded situation as the sampler would have seen it."""
    made, before = [], None
    for seconds, text in scrapes(name):
        scrape = parse(text)
        earlier, since = (before[1], seconds - before[0]) if before else (None, 0.0)
        measured = reading(
            scrape, earlier, since, id="127.0.0.1:8002", host="127.0.0.1", url="http://127.0.0.1:8002/metrics"
        )
        made.append(assemble([measured], time=seconds))
        before = (seconds, scrape)
    return made


def going_on(name: str, seconds: float = 20.0):
    """Return a recorded situation repeated, because recordings cover a few seconds only."""
    made = snapshots(name)
    again = itertools.cycle([each for each in made if each.window])
    while made[-1].time - made[0].time < seconds and made[-1].window:
        following = next(again)
        made.append(replace(following, time=made[-1].time + following.window))
    return made


class Site:
    """A small HTTP server: its pages (path → text, (status, text), or seconds of silence), and the requests to it."""

    def __init__(self) -> None:
        self.pages: dict[str, str | tuple[int, str] | float] = {}
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.ended = threading.Event()
        self.url = ""

    def answer(self, path: str) -> tuple[int, str]:
        page = self.pages.get(path, (404, ""))
        if isinstance(page, float):
            self.ended.wait(page)
            return 200, ""
        return (200, page) if isinstance(page, str) else page


@contextmanager
def serve(tls: ssl.SSLContext | None = None):
    """Serve a `Site` on a free loopback port."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            site.asked[self.path] += 1
            site.headers.append(dict(self.headers))
            status, text = site.answer(self.path)
            body = text.encode()
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  (http.server's name)

        def handle(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        site.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield site
        finally:
            site.ended.set()
            server.shutdown()
            thread.join()
