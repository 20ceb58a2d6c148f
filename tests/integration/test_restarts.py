"""What a facility does when one of its servers dies, tested with servers that only wait and die."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from eaf_facility.process import restarts
from eaf_facility.process.ports import LOOPBACK, listens
from eaf_facility.process.restarting_server import RestartingServer
from eaf_facility.process.restarts import keep_running
from eaf_facility.process.server import Child, Server, log_file, plain_environment

WAITING = "import signal; print('first line\\nlast \\x1b[31mline', flush=True); signal.pause()"
LISTENING = """
import signal, socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    signal.pause()
"""


class Plain(Server):
    """A server that waits, or ends with an exit code."""

    name = "plain"
    program = WAITING
    arguments = ()

    def launch(self):
        self.log = log_file(self.name)
        command = [sys.executable, "-c", self.program, *self.arguments]
        self._child = Child(command, environment=plain_environment(first_on_path=Path(sys.executable)), log=self.log)

    def is_ready(self):
        return "last" in self.log.read_text()


class Spare(Plain):
    name = "spare"
    essential = False


class Listener(Plain):
    """A server on a port that other processes can take."""

    name = "listener"
    program = LISTENING

    def is_ready(self):
        return listens(self.pid, int(self.arguments[0]))


class Restarting(RestartingServer):
    name = "restarting"

    def launch(self):
        self.log = log_file(self.name)
        self.directory = Path(tempfile.mkdtemp())
        environment = plain_environment(first_on_path=Path(sys.executable))
        self.launch_with_restarter([sys.executable, "-c", WAITING], environment=environment)

    def is_ready(self):
        return "last" in self.log.read_text()


@pytest.fixture
def start():
    """Start servers, and stop them after the test."""
    with ExitStack() as stack:
        yield lambda *servers: [stack.enter_context(server.running()) for server in servers]


class Killer:
    """Records the messages, and kills the server again each time it runs again, `kills` times in all."""

    def __init__(self, server, kills, number=signal.SIGKILL):
        self.lines, self._server, self._kills, self._number = [], server, kills, number
        self.pids = []
        self.kill()

    def kill(self):
        if self._kills:
            self._kills -= 1
            assert self._server.lifeline  # a restarter's server is watched from now on; an earlier death is not seen
            self.pids.append(self._server.pid)
            os.kill(self._server.pid, self._number)

    def __call__(self, message):
        self.lines.append(message)
        if "running again" in message:
            self.kill()


@pytest.mark.parametrize("kind", [Plain, Restarting])
def test_a_server_that_dies_is_restarted_until_its_third_death(start, kind):
    (server,) = start(kind())
    killer = Killer(server, 3)
    assert keep_running([server], progress=killer) is server
    assert len(set(killer.pids)) == 3
    died, back, *_, last = killer.lines
    assert died.startswith(f"{server.name} was killed by SIGKILL. Its log is {server.log.parent}")
    assert "; it ends with:\n  first line\n  last \\x1b[31mline" in died
    assert back == f"{server.name} is running again"
    assert "was killed by SIGKILL" in last


@pytest.mark.parametrize("kind", [Plain, Restarting])
def test_the_signal_that_killed_a_server_is_named(start, kind):
    (server,) = start(kind())
    killer = Killer(server, 3, signal.SIGUSR2)
    keep_running([server], progress=killer)
    assert "was killed by SIGUSR2" in killer.lines[0]


def test_a_server_that_always_exits_is_reported_with_its_exit_code(start):
    (server,) = start(Plain())
    server.program = "print('last words', flush=True); import sys; sys.exit(3)"
    killer = Killer(server, 1)
    assert keep_running([server], progress=killer) is server
    assert [line for line in killer.lines if "plain ended with exit code 3" in line]


def test_an_inessential_server_that_keeps_crashing_is_dropped(start):
    spare, first, second = start(Spare(), Plain(), Plain())
    changed = []
    second.name = "the last one"
    next_to_kill = {
        "spare is running again": spare,
        "spare keeps crashing; continuing without it": first,
        "plain is running again": first,
        "plain keeps crashing; continuing without it": second,
        "the last one is running again": second,
    }

    def progress(message):
        for event, server in next_to_kill.items():
            if message.startswith(event):
                os.kill(server.pid, signal.SIGKILL)

    os.kill(spare.pid, signal.SIGKILL)
    assert keep_running([spare, first, second], progress=progress, changed=lambda: changed.append(1)) is second
    assert not spare.launched
    assert not first.launched
    assert len(changed) == 8  # each server came back twice, and two were dropped


def test_a_server_waits_for_its_port_while_another_process_has_it(start, monkeypatch):
    monkeypatch.setattr(restarts, "_RETRY_SECONDS", 0.02)
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    listener = Listener()
    listener.arguments = (str(port),)
    start(listener)
    messages = []

    class IsBackError(Exception):
        pass

    with ExitStack() as stack:

        def progress(message):
            messages.append(message)
            if "SIGKILL" in message:  # it has died and has not been restarted yet
                stack.enter_context(socket.create_server((LOOPBACK, port)))
            if sum("will be tried again" in each for each in messages) == 5:
                stack.close()
            if "is running again" in message:
                raise IsBackError

        os.kill(listener.pid, signal.SIGKILL)
        with pytest.raises(IsBackError):
            keep_running([listener], progress=progress)
    assert sum("will be tried again" in each for each in messages) >= 5


def test_two_dead_servers_are_restarted_if_one_waits_for_the_other(start):
    """As with the Hub and its proxy: the Hub is ready only after its proxy is."""

    class Needy(Plain):
        name = "needy"

        def is_ready(self):
            return super().is_ready() and helper.is_ready() and helper.child.wait(0) is None

    (helper,) = start(Plain())
    (needy,) = start(Needy())
    messages = []

    class BothAreBackError(Exception):
        pass

    def progress(message):
        messages.append(message)
        if message.startswith("needy was killed"):
            os.kill(helper.pid, signal.SIGKILL)
        if {"plain is running again", "needy is running again"} <= set(messages):
            raise BothAreBackError

    os.kill(needy.pid, signal.SIGKILL)
    with pytest.raises(BothAreBackError):
        keep_running([needy, helper], progress=progress)
