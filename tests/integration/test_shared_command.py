"""`eaf-inference up --users`: it prints addresses, restarts servers that die, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from hub_facility import ask
from waiting import until

from eaf_facility.local.multi_user import ONE_ACCOUNT

# Runs as another user if root starts it; as the same user, it does only what another user could do.
IMPOSTOR = """
import os, select, socket, sys
options = [socket.SO_REUSEADDR]
if os.geteuid() == 0:
    os.setuid(65534)
    options.append(socket.SO_REUSEPORT)
print("trying", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:  # until its end
    taken = socket.socket()
    for option in options:
        taken.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        taken.bind(("127.0.0.1", int(sys.argv[1])))
        taken.listen()
    except OSError:
        taken.close()
    else:
        print("took the port", flush=True)
        sys.stdin.read()
        break
"""
COMMAND = [sys.executable, "-m", "eaf_inference.cli", "up"]


def answers(url):
    """Return whether an HTTP server answers at this URL."""
    try:
        return ask(url).status < 500
    except OSError:
        return False


@contextmanager
def an_impostor_never_gets(port):
    """Check that a process that keeps trying to take the port does not get it during the block."""
    command = [sys.executable, "-c", IMPOSTOR, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "trying\n"
            yield
            assert process.communicate(timeout=20)[0] == ""
        finally:
            process.kill()


def test_servers_that_die_are_restarted_and_ctrl_c_leaves_nothing(tmp_path):
    output = tmp_path / "output"
    with output.open("wb") as log:
        process = subprocess.Popen([*COMMAND, "--users", "alice,bob", "--json"], stdout=subprocess.PIPE, stderr=log)
    try:
        facility = json.loads(process.stdout.readline())
        family = psutil.Process(process.pid).children(recursive=True)
        assert (list(facility["users"]), facility["note"]) == (["alice", "bob"], ONE_ACCOUNT)
        assert Path(facility["password_file"]).stat().st_mode & 0o077 == 0
        assert Path(facility["password_file"]).read_text() not in json.dumps(facility)
        servers = facility["servers"]
        assert servers["envoy"]["url"].startswith("grpcs://127.0.0.1:")
        health = f"{servers['token-service']['url']}healthz"
        with an_impostor_never_gets(urlsplit(health).port):
            os.kill(servers["token-service"]["pid"], signal.SIGKILL)
            until(lambda: "token-service was killed by SIGKILL" in output.read_text())
            until(lambda: "token-service is running again" in output.read_text())
            assert answers(health)
        os.kill(servers["jupyterhub"]["pid"], signal.SIGKILL)
        until(lambda: answers(f"{facility['url']}/hub/api"))
        os.kill(servers["jupyterhub-proxy"]["pid"], signal.SIGKILL)
        until(lambda: "jupyterhub-proxy was killed by SIGKILL" in output.read_text())
        until(lambda: answers(f"{facility['url']}/hub/api"))
        family += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, output.read_text()
    finally:
        process.kill()
        process.communicate()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    for path in (facility["password_file"], facility["ca"], facility["cluster_logs"]):
        assert not Path(path).parent.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--users", ""], "--users alice,bob"),
        (["--users", "alice,Alice"], "--users alice,bob"),
        (["--users", "alice", "--grpc-port", "8001"], "--grpc-port cannot be combined with --users"),
    ],
)
def test_up_for_users_reports_a_wrong_option_in_one_message(arguments, reason):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
