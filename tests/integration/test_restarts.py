"""What a facility does when one of its servers dies, with servers that do nothing else than live and die."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from eaf_inference.facility import restarts
from eaf_inference.facility.kept import KeptServer
from eaf_inference.facility.ports import LOOPBACK, listens
from eaf_inference.facility.processes import Child, Server, log_file, plain_environment
from eaf_inference.facility.restarts import keep_running

WAITING = "import signal; print('first line\\nlast \\x1b[31mline', flush=True); signal.pause()"
LISTENING = """
import signal, socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    signal.pause()
"""


class Plain(Server):
    """Waits, or ends with an exit code."""

    name = "plain"
    program = WAITING
    arguments = ()

    def launch(self):
        self.log = log_file(f"{self.name}-{time.monotonic()}")
        command = [sys.executable, "-c", self.program, *self.arguments]
        self._child = Child(command, environment=plain_environment(first_on_path=Path(sys.executable)), log=self.log)

    def is_ready(self):
        return "last" in self.log.read_text()


class Spare(Plain):
    name = "spare"
    essential = False


class Listener(Plain):
    """Needs a port that others can take."""

    name = "listener"
    program = LISTENING

    def is_ready(self):
        return listens(self.pid, int(self.arguments[0]))


class Kept(KeptServer):
    name = "kept"

    def launch(self):
        self.log = log_file(f"{self.name}-{time.monotonic()}")
        self.directory = Path(tempfile.mkdtemp())
        environment = plain_environment(first_on_path=Path(sys.executable))
        self.keep([sys.executable, "-c", WAITING], environment=environment)

    def is_ready(self):
        return "last" in self.log.read_text()


@pytest.fixture
def start():
    """Start servers that end with the test."""
    with ExitStack() as stack:
        yield lambda *servers: [stack.enter_context(server.running()) for server in servers]


class Said:
    """What is said of the servers; a server is killed again as soon as it runs again, so many times."""

    def __init__(self, server, kills, number=signal.SIGKILL):
        self.lines, self._server, self._kills, self._number = [], server, kills, number
        self.pids = []
        self.kill()

    def kill(self):
        if self._kills:
            self._kills -= 1
            self.pids.append(self._server.pid)
            os.kill(self._server.pid, self._number)

    def __call__(self, message):
        self.lines.append(message)
        if "running again" in message:
            self.kill()


@pytest.mark.parametrize("kind", [Plain, Kept])
def test_a_server_that_dies_is_started_again_and_ends_the_facility_at_the_third_death(start, kind):
    (server,) = start(kind())
    said = Said(server, 3)
    assert keep_running([server], progress=said) is server
    assert len(set(said.pids)) == 3
    died, back, *_, last = said.lines
    assert died.startswith(f"{server.name} was killed by SIGKILL. Its log is {server.log.parent}")
    assert "; it ends with:\n  first line\n  last \\x1b[31mline" in died
    assert back == f"{server.name} is running again"
    assert "was killed by SIGKILL" in last


@pytest.mark.parametrize("kind", [Plain, Kept])
def test_how_a_server_ended_is_said(start, kind):
    (server,) = start(kind())
    said = Said(server, 3, signal.SIGUSR2)
    keep_running([server], progress=said)
    assert "was killed by SIGUSR2" in said.lines[0]


def test_a_server_that_ends_whenever_it_is_started_says_with_which_exit_code(start):
    (server,) = start(Plain())
    server.program = "print('last words', flush=True); import sys; sys.exit(3)"
    said = Said(server, 1)
    assert keep_running([server], progress=said) is server
    assert [line for line in said.lines if "plain ended with exit code 3" in line]


def test_what_a_facility_can_do_without_is_left_out_and_the_rest_goes_on(start):
    spare, first, second = start(Spare(), Plain(), Plain())
    changed = []
    second.name = "the last one"
    whom_to_kill = {
        "spare is running again": spare,
        "spare keeps crashing; going on without it": first,
        "plain is running again": first,
        "plain keeps crashing; going on without it": second,
        "the last one is running again": second,
    }

    def progress(message):
        for event, server in whom_to_kill.items():
            if message.startswith(event):
                os.kill(server.pid, signal.SIGKILL)

    os.kill(spare.pid, signal.SIGKILL)
    assert keep_running([spare, first, second], progress=progress, changed=lambda: changed.append(1)) is second
    assert not spare.launched
    assert not first.launched
    assert len(changed) == 8  # each server came back twice, and two were left out


def test_a_port_that_another_process_took_is_waited_for_however_often_that_fails(start, monkeypatch):
    monkeypatch.setattr(restarts, "_RETRY_SECONDS", 0.02)
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    listener = Listener()
    listener.arguments = (str(port),)
    start(listener)
    said = []

    class IsBackError(Exception):
        pass

    with ExitStack() as stack:

        def progress(message):
            said.append(message)
            if "SIGKILL" in message:  # it is dead, and not started again yet
                stack.enter_context(socket.create_server((LOOPBACK, port)))
            if sum("will be tried again" in each for each in said) == 5:
                stack.close()
            if "is running again" in message:
                raise IsBackError

        os.kill(listener.pid, signal.SIGKILL)
        with pytest.raises(IsBackError):
            keep_running([listener], progress=progress)
    assert sum("will be tried again" in each for each in said) >= 5


def test_a_server_that_needs_another_one_does_not_keep_that_from_being_started_again(start):
    """As the Hub needs its proxy: it is ready only once that is."""

    class Needy(Plain):
        name = "needy"

        def is_ready(self):
            return super().is_ready() and helper.is_ready() and helper.child.wait(0) is None

    (helper,) = start(Plain())
    (needy,) = start(Needy())
    said = []

    class BothAreBackError(Exception):
        pass

    def progress(message):
        said.append(message)
        if message.startswith("needy was killed"):
            os.kill(helper.pid, signal.SIGKILL)
        if {"plain is running again", "needy is running again"} <= set(said):
            raise BothAreBackError

    os.kill(needy.pid, signal.SIGKILL)
    with pytest.raises(BothAreBackError):
        keep_running([needy, helper], progress=progress)
