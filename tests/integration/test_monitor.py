"""The notebook widget: live under a busy cell, static elsewhere, and at rest without a view."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace

import pytest
from edge_proxy import edge_proxy
from kernels import notebook
from recorded.replay import scrapes, serve
from test_session import THREADS, Panel, opened, printed, sessions
from tokens import MARK, make_token
from waiting import until

import eaf_inference
from eaf_inference.errors import ConfigurationError
from eaf_inference.metrics.average import averaged
from eaf_inference.metrics.snapshot import Busy, Gpu, Host, ModelLoad, Snapshot, Source
from eaf_inference.notebook.load import load_of
from eaf_inference.notebook.magics import _measured
from eaf_inference.notebook.static_views import monitor_html, monitor_text

VIEW = "application/vnd.jupyter.widget-view+json"
TRAITS = {"average", "history", "advice", "session", "state", "problem"}
PREPARE = """
import pathlib, threading, time
import numpy as np
from eaf_inference.metrics import verdict
from eaf_inference.notebook import load, monitor
monitor.WIDGET = pathlib.Path({widget!r})
monitor._ASKED_EVERY, monitor._UNSEEN, monitor._NEVER_SEEN, load._INTERVAL = 0.5, 1.5, 1.5, 0.25  # seconds
verdict._ENOUGH = 0.5
%triton_connect
model = triton.model("sums")
rows = np.ones((20_000, 2, 8), np.float32)
def work(seconds):
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        model({{"x": rows}}, progress=False)
"""


def configure(tmp_path, **settings):
    directory = tmp_path / "jupyter"
    directory.mkdir(exist_ok=True)
    (directory / "eaf_inference_config.json").write_text(json.dumps({"Facility": settings}))


class Pages(Panel):
    """Front ends with views of one widget, which send the same messages as the widget's JavaScript."""

    def __init__(self, book) -> None:
        super().__init__(book)
        self.views = []
        self.widget = None

    def come(self, view):
        self.views.append(view)
        self._say(view, seen=True)

    def clear(self, view):
        """Clear the output that contains the view."""
        self.vanish(view)
        self._say(view, seen=False)

    def vanish(self, view):
        """Close the page of the view, which sends no message."""
        self.views.remove(view)

    def _say(self, view, *, seen):
        self.send("comm_msg", self.widget, {"method": "custom", "content": {"view": view, "seen": seen}})

    def _hear(self, message):
        super()._hear(message)
        data = message["content"].get("data", {})
        if data.get("method") == "custom" and data["content"].get("answer"):
            for view in self.views:
                self._say(view, seen=True)


def prepared(book, tmp_path):
    """Connect a notebook; the JavaScript is a stand-in, because nothing here runs it."""
    widget = tmp_path / "widget.js"
    widget.write_text("export default {};")
    panel = Pages(book)
    panel.run(PREPARE.format(widget=str(widget)))
    return panel


@pytest.fixture
def panel(zoo, tmp_path):
    configure(tmp_path, metrics_urls=[zoo.metrics])
    with notebook(EAF_TRITON_URL=zoo.grpc) as book:
        yield prepared(book, tmp_path)


def shown(heard, kind="display_data"):
    """Return the bundles that were displayed or updated."""
    return [each["data"] for name, each in heard if name == kind]


def changes(heard):
    """Return the changed traits of each message."""
    return [
        {name: value for name, value in each["data"]["state"].items() if name in TRAITS}
        for kind, each in heard
        if kind == "comm_msg" and each["data"].get("method") == "update"
    ]


def test_it_updates_while_a_cell_runs_and_leaves_a_static_view(panel, zoo):
    heard = panel.run("widget = triton.monitor(); widget")
    (bundle,) = shown(heard)
    assert {VIEW, "text/html", "text/plain"} == set(bundle)
    assert "opened at" in bundle["text/html"]
    (comm,) = opened(
        [each for each in heard if VIEW in json.dumps(each) or "_esm" in json.dumps(each)], "jupyter.widget"
    )
    panel.widget = comm
    panel.come("view")
    panel.run("pass")  # after the message
    moved = changes(panel.run("work(1)"))
    assert len([each for each in moved if "history" in each]) >= 2
    assert len(moved) <= 10  # one per tick
    working = [each["session"] for each in moved if each["session"]["busy"]]  # not between two calls
    assert {each["total"] for each in working} <= {20_000, None}  # None while a call begins
    assert 20_000 in {each["total"] for each in working}
    last = moved[-1]
    assert last["history"][-1]["inferences_per_second"] == last["session"]["inferences_per_second"] > 0
    assert last["history"][-1]["busy"] > 0
    assert last["session"]["inferences"] > moved[0]["session"]["inferences"]
    assert last["average"]["models"][0]["name"] == "sums"
    assert last["average"]["gpus"] == []
    panel.listen(2)
    assert printed(panel.run("print(widget.state, widget.problem, widget.advice['title'] != '')")) == "live  True\n"
    status = shown(panel.run("%triton_status"))[0]["text/plain"]  # the widget's figures
    assert re.search(r"(are|is) the limit\.|well used\.|keeps up\.", status)
    assert re.search(r"In the last \d+ s: .* [1-9][\d,]* jets/s", status)
    assert re.search(r"this notebook: [\d,]+ jets · [\d,]+ jets/s", status)
    panel.run("%triton_disconnect")
    heard = panel.run(f"time.sleep(0.8); {THREADS}")
    assert printed(heard) == "['eaf-inference-session']\n"
    assert changes(heard)[-1]["state"] == "stopped"
    (picture,) = shown(heard, "update_display_data")
    assert set(picture) == {"text/html", "text/plain"}
    assert zoo.grpc in picture["text/html"]
    assert "no GPU reported by this server" in picture["text/html"]
    assert "<polyline" in picture["text/html"]
    assert time.strftime("%Y-%m-%d") in picture["text/html"]


def test_it_stops_when_closed_and_rests_if_it_was_never_shown(panel):
    panel.run("widget = triton.monitor(); widget")
    panel.run(f"time.sleep(2); {THREADS}")  # during a cell, views cannot answer
    assert "sampler" in printed(panel.heard)
    panel.listen(2)
    assert printed(panel.run(f"print(widget.state); {THREADS}")) == "live\n['eaf-inference-session']\n"
    (comm,) = opened(panel.run("second = triton.monitor(); second.close(); second.close()"), "jupyter.widget")[-1:]
    assert ("comm_close", comm) in [(kind, each.get("comm_id")) for kind, each in panel.heard]
    assert printed(panel.run(f"time.sleep(0.8); {THREADS}")) == "['eaf-inference-session']\n"
    assert (
        printed(panel.run("third = triton.monitor(); third.stop(); third.stop(); print(third.state)")) == "stopped\n"
    )


@pytest.fixture
def counting(zoo, tmp_path):
    """A notebook with a widget, and the number of requests for its metrics."""
    with serve() as site:
        site.pages["/metrics"] = scrapes("idle")[0][1]
        configure(tmp_path, metrics_urls=[f"{site.url}/metrics"])
        with notebook(EAF_TRITON_URL=zoo.grpc) as book:
            panel = prepared(book, tmp_path)
            (panel.widget,) = opened(panel.run("widget = triton.monitor(); widget"), "jupyter.widget")[-1:]
            yield panel, lambda: site.asked["/metrics"]


def rests(panel, asked):
    """Wait until no metrics are read; return False if that does not happen."""
    for _ in range(8):
        before = asked()
        panel.listen(1)
        if asked() == before:
            return True
    return False


def wakes(panel, asked):
    before = asked()
    panel.listen(1.5)
    return asked() >= before + 3


def test_it_rests_after_the_last_page_closes_until_one_returns(counting):
    panel, asked = counting
    panel.come("one page")
    panel.come("another")
    panel.listen(2.5)
    panel.vanish("one page")
    panel.listen(2.5)
    assert wakes(panel, asked)  # still
    panel.vanish("another")
    before = asked()
    panel.run("time.sleep(3)")  # longer than views may be silent, but during a cell they cannot answer
    assert asked() >= before + 8
    assert rests(panel, asked)
    panel.run("time.sleep(1)")
    assert rests(panel, asked)
    before = len(panel.heard)
    panel.come("the page, loaded again")
    assert wakes(panel, asked)
    assert len([each for each in changes(panel.heard[before:]) if "history" in each]) >= 3
    assert printed(panel.run("print(widget.state)")) == "live\n"


def test_it_rests_after_its_output_is_cleared_even_during_a_cell(counting):
    panel, asked = counting
    panel.come("view")
    panel.listen(0.5)
    panel.clear("view")
    panel.run("time.sleep(1)")
    before = asked()
    panel.run("time.sleep(1)")
    assert asked() == before
    panel.come("the same, in a cell that was moved")
    assert wakes(panel, asked)
    panel.run("%triton_disconnect")
    assert rests(panel, asked)
    assert changes(panel.heard)[-1]["state"] == "stopped"


def test_status_waits_a_second_and_static_views_follow_each_cell(panel):
    panel.run("load._INTERVAL = 1.0")
    began = time.monotonic()
    text = shown(panel.run("%triton_status"))[0]["text/plain"]
    assert time.monotonic() - began < 3
    assert "No load. No request came in the last 1 s." in text
    panel.run("work(2)")
    text = shown(panel.run("%triton_status"))[0]["text/plain"]  # it has continued to measure
    assert re.search(r"In the last [1-3] s: .* [1-9][\d,]* jets/s", text)

    panel.run("load._INTERVAL = 0.25")  # without a front end, each cell updates the static view
    (bundle,) = shown(panel.run("triton.monitor()", allow_stdin=False))  # like nbconvert and papermill
    assert VIEW not in bundle
    renewed = shown(panel.run("work(1)", allow_stdin=False), "update_display_data")
    assert "sums" in renewed[-1]["text/html"]
    inferences = int(printed(panel.run("print(triton.traffic.inferences)")))
    assert f"this notebook: {inferences:,} jets" in renewed[-1]["text/html"]  # the last figure
    assert re.search(r"the last \d+ s before 20", renewed[-1]["text/plain"])


def test_a_facility_that_ended_is_not_taken_for_one_without_metrics(zoo):
    with eaf_inference.connect(zoo.grpc) as connection:
        found = replace(connection.endpoint, source="local facility")  # whose file is gone by now
        connection._opened = replace(connection._opened, endpoint=found)
        assert "has ended. Start one with `eaf-inference up`" in load_of(connection).problem


def test_missing_metrics_are_reported_and_never_shown_as_a_number(zoo, tmp_path):
    with notebook(EAF_TRITON_URL=zoo.grpc) as book:
        panel = prepared(book, tmp_path)
        panel.run("widget = triton.monitor()")
        last = changes(panel.run("work(1)"))[-1]
        assert set(last) == {"session", "history"}
        assert last["session"]["inferences_per_second"] > 0
        moment = last["history"][-1]
        assert (moment["busy"], moment["queue_ms"]) == (None, None)
        assert moment["inferences_per_second"] > 0
        assert "Facility.metrics_urls" in printed(panel.run("print(widget.problem, widget.average)"))
        assert "None\n" in printed(panel.heard)
        began = time.monotonic()
        assert "No load" not in shown(panel.run("%triton_status"))[0]["text/plain"]
        assert time.monotonic() - began < 1


def test_no_trait_or_output_holds_a_secret(zoo, tmp_path):
    path = tmp_path / "token"
    path.write_text(token := make_token())
    with serve() as site, edge_proxy(zoo.grpc.removeprefix("grpc://")) as (handler, port):
        site.pages["/metrics"] = (500, MARK)
        configure(
            tmp_path,
            metrics_urls=[f"{site.url}/metrics"],
            prometheus_url=site.url,
            prometheus_token_file=str(path),
            token_file=str(path),
        )
        handler.tokens = {token: float("inf")}
        with notebook(EAF_TRITON_URL=f"grpc://127.0.0.1:{port}") as book:
            panel = prepared(book, tmp_path)
            panel.run("widget = triton.monitor(); widget")
            panel.run("work(1)")
            assert f"No metrics. {site.url}/metrics: it answers 500" in printed(panel.run("print(widget.problem)"))
            panel.run("%triton_status")
            panel.run("print(widget.get_state(), widget)")
            panel.run("%triton_disconnect")
            panel.run("time.sleep(0.8)")
    assert any("Authorization" in headers for headers in site.headers)
    assert {each["user"] for each in sessions(panel.heard)} == {"alice"}
    assert MARK not in panel.text


def test_without_its_javascript_the_error_says_how_to_build_it(connection, monkeypatch, tmp_path):
    from eaf_inference.notebook import monitor

    monkeypatch.setattr(monitor, "WIDGET", tmp_path / "none.js")
    with pytest.raises(ConfigurationError, match="npm ci && npm run build:prod"):
        connection.monitor()
    connection.close()
    with pytest.raises(ConfigurationError, match="closed"):
        connection.monitor()


def test_it_works_outside_a_notebook_and_leaves_no_thread(zoo, tmp_path, monkeypatch):
    from eaf_inference.notebook import monitor

    configure(tmp_path, metrics_urls=[zoo.metrics])
    (tmp_path / "widget.js").write_text("export default {};")
    monkeypatch.setattr(monitor, "WIDGET", tmp_path / "widget.js")
    with eaf_inference.connect(zoo.grpc) as connection:
        widgets = [connection.monitor(), connection.monitor()]  # they share one sampler
        until(lambda: all(widget.history for widget in widgets))
        assert [each.name for each in threading.enumerate()].count("eaf-inference-sampler") == 1
        assert "no GPU reported" in repr(widgets[0])
    until(lambda: "eaf-inference-sampler" not in [each.name for each in threading.enumerate()])
    assert [widget.state for widget in widgets] == ["stopped", "stopped"]
    for widget in widgets:
        widget.close()


EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_the_static_view_escapes_all_names_and_shows_its_time():
    average = Snapshot(
        window=60.0,
        time=1_795_494_402.0,
        busy=Busy(0.5, EVIL, estimated=False),
        gpus=(Gpu(EVIL, host=EVIL, profile=EVIL, memory_used=2.0**30, memory_total=2.0**31), Gpu("b", name=EVIL)),
        models=tuple(ModelLoad(EVIL, EVIL, inferences_per_second=1.0) for _ in range(500)),
        hosts=(Host(EVIL, cpu_utilization=0.5),),
    )
    history = [{"time": average.time - each, "busy": 0.1 * (each % 9)} for each in range(90, 0, -1)]
    history[80]["busy"] = None
    session = {"endpoint": EVIL, "busy": True, "label": EVIL, "done": 5, "total": 9, "inferences": 5}
    session |= {"unit": "file", "failed": 2}
    session["inferences_per_second"] = None
    session["retrying"] = {"reason": EVIL, "left": 87}
    advice = {"title": EVIL, "text": EVIL}
    picture = monitor_html(average, history, advice, session, problem=EVIL, live=False)
    assert "<img" not in picture
    assert "<script" not in picture
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in picture
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(average.time))
    assert f"{clock}" in picture
    assert "stopped" in picture
    assert "1.0 of 2.0 GiB" in picture
    assert picture.count("not reported") == 5  # the power of one, and all of the other but its name
    assert picture.count("<polyline") == 2
    assert len(picture) < 50_000
    text = monitor_text(average, session, problem="")
    assert clock in text
    assert "5 of 9 files · 2 failed" in text
    assert "this notebook: 1 jet · at work" in monitor_text(average, session | {"inferences": 1}, problem="")


def test_a_pause_has_no_queue_time_of_the_run_before_it():
    served = ModelLoad("m", "1", inferences_per_second=9.0, requests_per_second=1.0, queue_ms=37.5, batch=9.0)
    idle = replace(served, inferences_per_second=0.0, requests_per_second=0.0, queue_ms=None, batch=None)
    loads = [(second, served if second < 30 else idle) for second in range(50)]
    average = averaged([Snapshot(time=float(second), window=1.0, models=(load,)) for second, load in loads])
    assert (average.window, average.models[0].queue_ms) == (20.0, 37.5)  # the panel says that it is of the minute
    assert _measured(average) == {("m", "1"): (0, None)}
    picture = monitor_html(average, [], None, None, problem="", live=False)
    assert "37.5" not in picture
    assert picture.count("no request") == 2


def test_a_gpu_is_missing_only_if_all_sources_have_answered():
    answering, silent = Source("a", "Triton", age=0.5), Source("b", "Triton", age=3.0, error="refused")
    for sources, missing in (((answering,), True), ((answering, silent), False), ((Source("a", "Triton"),), False)):
        text = monitor_text(Snapshot(time=0.0, sources=sources), None, problem="")
        assert ("no GPU reported by this server" in text) is missing
