"""A server's parent, which ends it and cleans up after it when its owner goes away, however that happens.

Run as a script, by path and with the standard library only:

    python -I -S guardian.py SHARED_MEMORY_PREFIX DIRECTORY GRACE_SECONDS PROGRAM [ARGUMENT ...]

The first two are what the server leaves behind, or empty: regions in /dev/shm whose names begin so, and a
directory, in which it runs too.
Its standard input is a pipe whose other end only the owner holds. End of file there means that the owner is
done, or dead: the kernel closes the pipe of a killed process too. As a "subreaper" the guardian inherits
whatever its server leaves behind, such as the Python stubs of a killed Triton, and ends that as well.
On standard output it says `pid N` or `error TEXT`, and holds it open for as long as it lives.

Whatever the server creates is for this user alone: the umask is 077. Triton's Python backend opens its shared memory
to all users with fchmod after creating it, which no umask prevents. So a program that has shared memory runs under a
seccomp filter that turns such an fchmod into a no-op.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
FCHMOD = {"x86_64": (0xC000003E, 91), "aarch64": (0xC00000B7, 52)}  # machine -> AUDIT_ARCH_*, number of the call
OTHERS = 0o077  # bits of a file's mode
FOLLOWING_SECONDS = 1.0
NO_FILTER = (
    "this kernel or container allows no seccomp filter (prctl PR_SET_SECCOMP), without which every user of this "
    "machine could read the server's shared memory"
)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main(shared_memory: str, directory: str, grace: float, command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's business
    os.umask(OTHERS)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def prepare() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if shared_memory:
            keep_files_private()

    try:
        server = subprocess.Popen(
            command,
            cwd=directory or None,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # the log
            preexec_fn=prepare,
        )
    except (OSError, subprocess.SubprocessError) as error:
        _remove(shared_memory, directory)
        _say(f"error {getattr(error, 'strerror', NO_FILTER)}")
        return 127
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=_end_with_owner, args=(server, grace), daemon=True).start()
    _say(f"pid {server.pid}")
    status = server.wait()
    _end_descendants()
    _remove(shared_memory, directory)
    return status if status >= 0 else 128 - status


def keep_files_private() -> None:
    """Turn every fchmod that would open a file to other users into a no-op, for this process and its children."""
    architecture, call = FCHMOD[platform.machine()]
    load, jump_if_equal, jump_if_set, give = 0x20, 0x15, 0x45, 0x06  # BPF instructions
    nothing, allow = 0x00050000, 0x7FFF0000  # SECCOMP_RET_ERRNO with error 0, SECCOMP_RET_ALLOW
    program = [  # (instruction, lines to skip if true, if false, operand)
        (load, 0, 0, 4),  # struct seccomp_data: the architecture,
        (jump_if_equal, 0, 5, architecture),
        (load, 0, 0, 0),  # the call,
        (jump_if_equal, 0, 3, call),
        (load, 0, 0, 24),  # its second argument
        (jump_if_set, 0, 1, OTHERS),
        (give, 0, 0, nothing),
        (give, 0, 0, allow),
    ]
    lines = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_program = struct.pack("HP", len(program), ctypes.addressof(lines))  # struct sock_fprog
    if _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the owner died already; its end of file is next
        os.write(1, f"{line}\n".encode())


def _end_with_owner(server: subprocess.Popen[bytes], grace: float) -> None:
    os.read(0, 1)  # nobody writes; not by sys.stdin, whose lock this thread would hold when Python ends
    server.terminate()
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()


def _end_descendants() -> None:
    """Kill and reap what the server left; the children of what is killed become ours in turn.

    Those may end by themselves first: Python's resource tracker, a child of each Dask worker, removes that
    worker's semaphores when it sees it die.
    """
    while children := _children():
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        deadline = time.monotonic() + FOLLOWING_SECONDS
        with contextlib.suppress(ChildProcessError):  # there are none any more
            while time.monotonic() < deadline:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)


def _remove(shared_memory: str, directory: str) -> None:
    if shared_memory:
        for region in Path("/dev/shm").glob(f"{shared_memory}*"):  # noqa: S108 - where shared memory is
            region.unlink(missing_ok=True)
    if directory:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)


def _children() -> list[int]:
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for children in lists for pid in children.read_text(encoding="utf-8").split()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
