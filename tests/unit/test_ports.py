"""A port that a facility holds for its servers stays its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.ports import LOOPBACK, HeldPort, is_free, listens

NOBODY = 65534
# Binds with the options that let most, on this machine's every address and on loopback only.
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
def test_no_other_user_can_take_a_port_that_is_held(a_server_runs):
    port = HeldPort()
    with serving(port.number) if a_server_runs else socket.socket():
        command = [sys.executable, "-c", STRANGER, str(port.number)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""


def test_servers_of_the_same_user_can_listen_on_it_one_after_the_other():
    port = HeldPort()
    for _ in range(2):
        with serving(port.number), socket.create_connection((LOOPBACK, port.number), timeout=5):
            pass
        with pytest.raises(ConnectionRefusedError), socket.create_connection((LOOPBACK, port.number), timeout=5):
            pass
    assert not is_free(port.number)


def test_it_is_free_again_once_nobody_needs_it():
    port = HeldPort()
    number = port.number
    del port
    assert is_free(number)


def test_a_port_that_another_server_has_is_refused_by_name_also_where_that_one_would_share_it():
    held = HeldPort()
    with pytest.raises(ConfigurationError, match=f"port {held.number} on 127.0.0.1 is taken"):
        HeldPort(held.number)


def test_who_listens_is_told_from_others():
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), port)


def serving(port):
    return socket.create_server((LOOPBACK, port), reuse_port=True)
