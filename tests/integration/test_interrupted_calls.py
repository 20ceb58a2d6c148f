"""Ctrl-C during calls to a real Triton, at moments when it could be lost or break something."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading

import numpy as np
import pytest
from kernels import notebook

import eaf_inference
from eaf_inference.inference.traffic import Traffic

pytestmark = pytest.mark.usefixtures("pythons_handler")

ROWS = {"x": np.ones((20, 2, 100), np.float32)}


class InterruptedAtItsEnd:
    """An object whose `__del__` is interrupted, as that of a forgotten progress bar was."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10):  # Python raises the interrupt here, and ignores it
            pass


class InterruptedOnLeaving(Traffic):
    def abandoned(self, requests):
        os.kill(os.getpid(), signal.SIGINT)
        super().abandoned(requests)


@pytest.fixture
def connection(zoo):
    with eaf_inference.connect(zoo.grpc) as opened:
        yield opened


@pytest.fixture
def model(connection):
    handler = signal.getsignal(signal.SIGINT)
    model = connection.model("sums")
    model(ROWS)  # runs the padding check
    yield model
    assert signal.getsignal(signal.SIGINT) is handler
    assert connection.traffic.in_flight == 0
    assert model(ROWS).sum() == 4000


@pytest.fixture
def ignored(monkeypatch):
    """Collect the exceptions that Python ignores in a test."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: seen.append(each.exc_type))
    return seen


@pytest.mark.parametrize("chunks", [1, 1000], ids=["the only chunk", "an early chunk"])
def test_an_interrupt_that_python_ignores_ends_the_call(model, ignored, chunks):
    made = []

    def interrupted():
        for number in range(chunks):
            made.append(number)
            if number == 0:
                InterruptedAtItsEnd()
            yield ROWS

    with pytest.raises(KeyboardInterrupt):
        list(model.map(interrupted()))
    assert ignored == [KeyboardInterrupt]
    assert len(made) < 10


def test_an_interrupt_during_clean_up_leaves_nothing_in_flight(model):
    traffic = InterruptedOnLeaving()

    def interrupted():
        for _ in range(3):
            yield ROWS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(model.map(interrupted(), traffic=traffic))
    assert traffic.in_flight == 0


def test_the_users_own_handler_is_called_and_ends_nothing(model):
    called = []
    before = signal.signal(signal.SIGINT, lambda number, _: called.append(number))
    try:

        def interrupted():
            for number in range(20):
                if number % 10 == 0:
                    os.kill(os.getpid(), signal.SIGINT)
                yield ROWS

        assert len(list(model.map(interrupted()))) == 20
        assert called == [signal.SIGINT] * 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_calls_in_threads_and_nested_calls_keep_the_handler(model):
    handler = signal.getsignal(signal.SIGINT)
    scores = []
    thread = threading.Thread(target=lambda: scores.extend(model.map([ROWS] * 3)))
    thread.start()
    thread.join()
    assert len(scores) == 3
    for _ in zip(model.map([ROWS] * 3), model.map(ROWS for _ in model.map([ROWS] * 3)), strict=True):
        assert signal.getsignal(signal.SIGINT) is handler


def test_stop_ends_a_cell_with_one_line_and_a_plain_interrupt(model):
    def interrupted():
        yield ROWS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        list(model.map(interrupted()))
    assert type(stopped.value) is KeyboardInterrupt  # so a script ends with the signal
    assert str(stopped.value).startswith("Stopped ")
    assert stopped.value._render_traceback_() == [str(stopped.value)]


def test_stop_reports_the_progress_of_a_call_in_a_notebook(zoo, black_hole):
    with notebook(EAF_TRITON_URL=zoo.grpc) as book:
        book.run("%triton_connect")
        book.run("import numpy as np\nmodel = triton.model('sums')\nrows = np.ones((1_000_000, 2, 20), np.float32)")
        early = book.interrupt("def chunks():\n    while True: pass\n    yield\nlist(model.map(chunks()))", 0.3)
        call = book.interrupt("model({'x': rows}, progress=False)", 1.0)
        stream = book.interrupt("for _ in model.map({'x': rows[:20]} for _ in iter(int, 1)): pass", 0.3)
        connecting = book.interrupt(f"%triton_connect {black_hole}", 0.3)
    assert early.error[2:] == ["Stopped before the first jets were scored; no scores are returned."]
    assert call.error[0] == "KeyboardInterrupt"
    none = r"before the first jets were scored; no scores are returned\."  # on a busy machine
    for stopped, words in (
        (call, r"after [\d,]+ of 1,000,000 jets; no scores are returned\."),
        (stream, r"after [\d,]+ jets; the scores of [\d,]+ chunks were returned\."),
    ):
        assert len(stopped.error[2:]) == 1
        assert re.fullmatch(f"Stopped ({words}|{none})", stopped.error[2])
    assert connecting.error[2:] == ["Stopped before a connection was made."]
