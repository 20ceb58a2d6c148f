"""A server's parent, which ends it and cleans up after it when its owner goes away, however that happens.

Run as a script, by path and with the standard library only:

    python -I -S guardian.py SHARED_MEMORY_PREFIX GRACE_SECONDS PROGRAM [ARGUMENT ...]

Its standard input is a pipe whose other end only the owner holds. End of file there means that the owner is
done, or dead: the kernel closes the pipe of a killed process too. As a "subreaper" the guardian inherits
whatever its server leaves behind, such as the Python stubs of a killed Triton, and ends that as well.
On standard output it says `pid N` or `error TEXT`, and holds it open for as long as it lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main(shared_memory: str, grace: float, command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's business
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # the log
            preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
    except OSError as error:
        _say(f"error {error.strerror}")
        return 127
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_end_with_owner, args=(server, grace), daemon=True).start()
    _say(f"pid {server.pid}")
    status = server.wait()
    _end_descendants()
    for region in Path("/dev/shm").glob(f"{shared_memory}*"):  # noqa: S108 - where shared memory is
        region.unlink(missing_ok=True)
    return status if status >= 0 else 128 - status


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the owner died already; its end of file is next
        os.write(1, f"{line}\n".encode())


def _end_with_owner(server: subprocess.Popen[bytes], grace: float) -> None:
    sys.stdin.buffer.read()
    server.terminate()
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()


def _end_descendants() -> None:
    """Kill and reap what the server left; the children of what is killed become ours in turn."""
    while children := _children():
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _children() -> list[int]:
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for children in lists for pid in children.read_text().split()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
