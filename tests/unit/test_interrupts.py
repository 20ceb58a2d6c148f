"""When a noted Ctrl-C is raised, and which handler is installed afterwards."""

from __future__ import annotations

import signal
import sys

import pytest

from eaf_inference.inference.interrupts import Interrupts

pytestmark = pytest.mark.usefixtures("pythons_handler")


@pytest.fixture
def interrupts(pythons_handler):
    interrupts = Interrupts()
    interrupts.watch()
    yield interrupts
    interrupts.release(KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_ends_before_its_interrupt_is_raised(interrupts):
    steps = []

    def interrupted():
        with interrupts:
            with interrupts:
                signal.raise_signal(signal.SIGINT)
                steps.append("inner")
            steps.append("outer")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert steps == ["inner", "outer"]


def test_an_ignored_interrupt_is_raised_at_the_next_check_and_at_the_end(interrupts):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
    with pytest.raises(KeyboardInterrupt):
        interrupts.release()
    interrupts.watch()
    interrupts.check()  # it is raised only once


def test_a_handler_installed_during_the_call_stays(interrupts):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.release()
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN
    with pytest.raises(KeyboardInterrupt):  # a handler reinstalled too late acts like Python's own
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_handler_that_ends_the_process_is_called_once():
    calls = []

    def ends(*_):  # as dask_jobqueue installs one
        calls.append(1)
        sys.exit()

    signal.signal(signal.SIGINT, ends)
    interrupts = Interrupts()
    interrupts.watch()
    with pytest.raises(SystemExit) as left:
        signal.raise_signal(signal.SIGINT)
    interrupts.release(left.type)
    assert calls == [1]
    assert signal.getsignal(signal.SIGINT) is ends


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts = Interrupts()
        interrupts.watch()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interrupts.release()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
