"""Ports on loopback: held by a facility, or free."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from eaf_facility.process.ports import LOOPBACK, HeldPort, is_free, listens
from eaf_inference.errors import ConfigurationError

NOBODY = 65534
# Tries to bind with the most permissive options, on loopback and on all addresses of this machine.
STRANGER = f"""
import os, socket, sys
os.setuid({NOBODY})
for address in ("127.0.0.1", "0.0.0.0"):
    for options in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)):
        with socket.socket() as impostor:
            for option in options:
                impostor.setsockopt(socket.SOL_SOCKET, option, 1)
            try:
                impostor.bind((address, int(sys.argv[1])))
            except OSError:
                continue
            print("bound", address, options)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process can be started by root only")
@pytest.mark.parametrize("a_server_runs", [True, False])
def test_no_other_user_can_take_a_held_port(a_server_runs):
    port = HeldPort()
    with serving(port.number) if a_server_runs else socket.socket():
        command = [sys.executable, "-c", STRANGER, str(port.number)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""


def test_servers_of_the_same_user_can_listen_on_a_held_port_in_turn():
    port = HeldPort()
    for _ in range(2):
        with serving(port.number), socket.create_connection((LOOPBACK, port.number), timeout=5):
            pass
        with pytest.raises(ConnectionRefusedError), socket.create_connection((LOOPBACK, port.number), timeout=5):
            pass
    assert not is_free(port.number)


def test_a_held_port_is_free_again_when_its_object_is_deleted():
    port = HeldPort()
    number = port.number
    del port
    assert is_free(number)


def test_a_port_in_use_is_refused_even_if_its_server_would_share_it():
    held = HeldPort()
    with pytest.raises(ConfigurationError, match=f"port {held.number} on 127.0.0.1 is taken by another process"):
        HeldPort(held.number)


def test_listens_is_true_for_the_listening_process_only():
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), port)


def serving(port):
    return socket.create_server((LOOPBACK, port), reuse_port=True)
