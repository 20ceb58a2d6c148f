"""Messages from a kernel to the panel over its comm, during cells and between them."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
from kernels import notebook
from waiting import until

from eaf_inference.inference.progress import Progress, progress_bar, under_way
from eaf_inference.inference.traffic import Retrying
from eaf_inference.notebook.session import TARGET, follow_session, leave_session
from eaf_inference.notebook.work import work_of

MODEL = "import numpy as np, threading; model = triton.model('sums'); rows = np.ones((300_000, 2, 8), np.float32)"
THREADS = "print(sorted(t.name for t in threading.enumerate() if t.name.startswith('eaf-inference')))"


class Panel:
    """A front end that records a kernel's messages."""

    def __init__(self, book) -> None:
        self._client = book._client
        self.heard = []  # (kind, content) of every message
        self.text = ""

    def run(self, code, **options):
        """Run a cell; return the messages since the last call."""
        before = self.listen(0)
        place = len(self.heard)
        self._client.execute_interactive(code, output_hook=self._hear, timeout=60, **options)
        return before + self.heard[place:]

    def listen(self, seconds):
        """Return the messages of the next seconds, without running a cell."""
        place, until = len(self.heard), time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 or not seconds:
            try:
                self._hear(self._client.get_iopub_msg(timeout=max(0, left)))
            except Empty:
                break
        return self.heard[place:]

    def send(self, kind, comm_id, data=None):
        """Send a message on a comm, like a front end."""
        message = self._client.session.msg(kind, {"comm_id": comm_id, "data": data or {}})
        self._client.shell_channel.send(message)

    def _hear(self, message):
        kind, content = message["msg_type"], message["content"]
        self.heard.append((kind, content))
        self.text += json.dumps(content)
        assert kind != "error", content


def opened(heard, target=TARGET):
    """Return the ids of the opened comms."""
    return [each["comm_id"] for kind, each in heard if kind == "comm_open" and each["target_name"] == target]


def sessions(heard):
    return [
        each["data"]["session"]
        for kind, each in heard
        if kind in ("comm_open", "comm_msg") and "session" in each["data"] and "method" not in each["data"]
    ]


def printed(heard):
    return "".join(content["text"] for kind, content in heard if kind == "stream")


@pytest.fixture
def panel(zoo):
    with notebook(EAF_TRITON_URL=zoo.grpc) as book:
        yield Panel(book)


def test_the_panel_follows_a_cell_until_the_notebook_disconnects(panel, zoo):
    connected = panel.run("%triton_connect")
    (comm,) = opened(connected + panel.listen(0.7))
    idle = sessions(panel.heard)[0]
    assert (idle["endpoint"], idle["user"], idle["busy"], idle["inferences"]) == (zoo.grpc, None, False, 0)
    assert (idle["label"], idle["done"], idle["total"], idle["clusters"]) == (None, None, None, [])
    panel.run(MODEL)
    before = time.monotonic()
    reported = sessions(panel.run("model({'x': rows}, progress=False)"))
    assert 1 <= len(reported) <= 2 * (time.monotonic() - before) + 2
    working = [each for each in reported if each["busy"]]
    assert "jet" in {each["unit"] for each in working} <= {"jet", None}
    assert {(each["label"], each["total"]) for each in working} - {("sums", None)} == {("sums", 300_000)}
    counted = [each["done"] for each in working if each["total"]]  # before that, the model is looked up
    assert 0 <= counted[0] <= counted[-1] <= 300_000
    rest = sessions(panel.listen(0.8))
    assert (rest[-1]["busy"], rest[-1]["inferences"]) == (False, 300_000)
    assert rest[-1]["inferences_per_second"] > 0
    assert rest[-1]["not_finite"] == 0
    panel.run("triton.model('ratio')({'x': 0 * rows[:3]}, progress=False)")
    assert sessions(panel.listen(0.8))[-1]["not_finite"] == 3
    panel.run("%triton_disconnect")
    panel.listen(0.2)
    assert ("comm_close", comm) in [(kind, each.get("comm_id")) for kind, each in panel.heard]
    assert panel.listen(1.2) == []


def test_progress_advances_with_chunks_and_unloading_ends_the_thread(panel):
    (comm,) = opened(panel.run("%triton_connect") + panel.listen(0.7))
    panel.run(MODEL)
    code = "for _ in model.map({'x': rows[:1000]} for _ in range(5) if not threading.Event().wait(0.4)): pass"
    done = [each["done"] for each in sessions(panel.run(code)) if each["busy"]]
    assert len(set(done)) >= 3
    assert done == sorted(done)
    assert printed(panel.run(THREADS)) == "['eaf-inference-session']\n"
    heard = panel.run("%unload_ext eaf_inference")
    assert [each["comm_id"] for kind, each in heard if kind == "comm_close"] == [comm]
    assert printed(panel.run(THREADS)) == "[]\n"
    assert len(opened(panel.run("%load_ext eaf_inference") + panel.listen(0.7))) == 1


def test_a_message_repeats_the_session_and_closing_ends_the_reports(panel, zoo):
    (comm,) = opened(panel.run("%triton_connect") + panel.listen(1.3))
    panel.send("comm_msg", comm)
    assert [each["endpoint"] for each in sessions(panel.listen(0.7))] == [zoo.grpc]
    panel.send("comm_close", comm)
    panel.listen(0.3)
    assert sessions(panel.run(f"{MODEL}\nmodel({{'x': rows[:1000]}})") + panel.listen(0.7)) == []
    panel.run("%triton_disconnect")
    panel.listen(0.3)
    assert len(opened(panel.run("%triton_connect") + panel.listen(0.7))) == 1


def test_the_session_is_repeated_during_a_cell_only(panel, zoo):
    panel.run("from eaf_inference.notebook import session; session._AGAIN = 0.5")
    panel.run("%triton_connect")
    panel.listen(6)  # until the rate is known and constant
    assert panel.listen(1.5) == []
    reported = sessions(panel.run("threading = __import__('threading'); threading.Event().wait(3)"))
    assert len(reported) >= 3
    assert all(each == reported[0] for each in reported)
    panel.listen(0.2)
    assert panel.listen(1.5) == []


def test_the_session_lists_clusters_with_their_workers(panel):
    panel.run("%triton_connect")
    panel.run(
        "from distributed import Client, LocalCluster\n"
        "cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)\n"
        "client = Client(cluster); triton.configure(client)"
    )

    def clusters():
        panel.listen(0.3)
        return [each["clusters"] for each in sessions(panel.heard) if each["clusters"]]

    until(clusters)
    assert [(each["workers"], "configured" in each["state"]) for each in clusters()[-1]] == [(1, True)]
    panel.run("client.close(); cluster.close()")


def test_without_a_kernel_there_are_no_reports():
    follow_session(SimpleNamespace())
    assert "eaf-inference-session" not in {thread.name for thread in threading.enumerate()}
    leave_session()


def test_the_outermost_call_is_reported_unless_it_was_abandoned():
    with progress_bar(enabled=False, label="outer") as outer:
        outer.expect(10)
        outer.update(4)
        with progress_bar(enabled=False, label="inner") as inner:
            assert under_way() is outer
            outer.moved -= 60
            assert under_way() is inner
        assert under_way() is outer
        assert (outer.done, outer.total) == (4, 10)
    assert under_way() is None
    forgotten = Progress(enabled=False, label="forgotten")
    assert under_way() is forgotten
    del forgotten
    assert under_way() is None


def test_no_time_left_is_reported_during_an_outage(connection):
    work, traffic = work_of(connection), connection.traffic
    with progress_bar(enabled=False, label="sums") as progress:
        progress.expect(10)
        progress._begun -= 10  # after a second, there is an estimate
        progress.update(4)
        assert work.look()["left"] > 0
        traffic.retries_until(Retrying("server gone", ends=time.monotonic() + 100))
        assert (work.look()["left"], work.look()["retrying"]["reason"]) == (None, "server gone")
        traffic.retries_until(None)
        assert work.look()["left"] > 0


def test_a_submission_reports_files_failures_and_the_time_left(connection, tmp_path):
    files = [str(tmp_path / f"{number}.parquet") for number in range(4)]
    for file in files:
        ak.to_parquet(ak.Array({"x": np.ones((5, 2, 8), np.float32)}), file)
    (tmp_path / "1.parquet").write_bytes(b"PAR1")
    reported = []
    with ThreadPoolExecutor(1) as pool:
        run = connection.submit(connection.model("sums"), files, client=pool, progress=False)
        under_way()._begun -= 10  # after a second, there is an estimate
        for _ in run:
            session = work_of(connection).look()
            reported.append([session[name] for name in ("unit", "done", "total", "failed")])
            assert len(run.failed) == session["failed"]
            assert (session["left"] > 0) == (session["done"] < 4)
    assert reported == [["file", 1, 4, 0], ["file", 3, 4, 1], ["file", 4, 4, 1]]
    assert work_of(connection).look()["failed"] == 0
    assert run._stopped() == "Stopped after 4 of 4 files (15 jets returned, 1 failed); the other files are cancelled."
