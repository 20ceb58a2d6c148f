"""`eaf-inference up --users`: says where all is, starts again what dies, and leaves nothing behind."""

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
from recorded.replay import until

from eaf_inference.facility.shared import ONE_ACCOUNT

# As another user, if root may start it; as the same one, only what another one could do too.
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
    """Whether an HTTP server does."""
    try:
        return ask(url).status < 500
    except OSError:
        return False


@contextmanager
def an_impostor_never_gets(port):
    """Somebody tries to take the port all the time, and has not managed to when the block ends."""
    command = [sys.executable, "-c", IMPOSTOR, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "trying\n"
            yield
            assert process.communicate(timeout=20)[0] == ""
        finally:
            process.kill()


def test_what_dies_is_started_again_and_ctrl_c_leaves_nothing(tmp_path):
    said = tmp_path / "said"
    with said.open("wb") as log:
        process = subprocess.Popen([*COMMAND, "--users", "alice,bob", "--json"], stdout=subprocess.PIPE, stderr=log)
    try:
        told = json.loads(process.stdout.readline())
        family = psutil.Process(process.pid).children(recursive=True)
        assert (list(told["users"]), told["note"]) == (["alice", "bob"], ONE_ACCOUNT)
        assert Path(told["password_file"]).stat().st_mode & 0o077 == 0
        assert Path(told["password_file"]).read_text() not in json.dumps(told)
        servers = told["servers"]
        assert servers["envoy"]["url"].startswith("grpcs://127.0.0.1:")
        health = f"{servers['token-service']['url']}healthz"
        with an_impostor_never_gets(urlsplit(health).port):
            os.kill(servers["token-service"]["pid"], signal.SIGKILL)
            until(lambda: "token-service was killed by SIGKILL" in said.read_text())
            until(lambda: "token-service is running again" in said.read_text())
            assert answers(health)
        os.kill(servers["jupyterhub"]["pid"], signal.SIGKILL)
        until(lambda: answers(f"{told['url']}/hub/api"))
        os.kill(servers["jupyterhub-proxy"]["pid"], signal.SIGKILL)
        until(lambda: "jupyterhub-proxy was killed by SIGKILL" in said.read_text())
        until(lambda: answers(f"{told['url']}/hub/api"))
        family += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, said.read_text()
    finally:
        process.kill()
        process.communicate()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    for path in (told["password_file"], told["ca"], told["cluster_logs"]):
        assert not Path(path).parent.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--users", ""], "--users alice,bob"),
        (["--users", "alice,Alice"], "--users alice,bob"),
        (["--users", "alice", "--grpc-port", "8001"], "--grpc-port has no use there"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments, says):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
