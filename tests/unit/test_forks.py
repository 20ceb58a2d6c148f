"""Processes that are forked while another thread is inside gRPC."""

from __future__ import annotations

import subprocess
import sys

FORK_DURING_A_START = """
import os, threading
from concurrent.futures import Future
from eaf_inference.inference._grpc_workarounds import hold_forks_back, start_call

hold_forks_back()
starting, forking, order = threading.Event(), threading.Event(), []
os.register_at_fork(before=forking.set)  # runs before those registered earlier

def start():
    starting.set()
    assert forking.wait(20)
    order.append("started")
    return Future()

thread = threading.Thread(target=start_call, args=[start, print])
thread.start()
assert starting.wait(20)
if (child := os.fork()) == 0:
    start_call(Future, print)  # nobody holds the lock in the child
    os._exit(0)
order.append("forked")
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert order == ["started", "forked"], order
"""


def test_no_process_is_forked_while_a_thread_starts_a_call():
    command = [sys.executable, "-W", "ignore", "-c", FORK_DURING_A_START]
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
