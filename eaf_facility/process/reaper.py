"""The parent of a server, which stops it and cleans up when its owner exits, for whatever reason.

Run as a script, by path and with the standard library only:

    python -I -S reaper.py SHARED_MEMORY_PREFIX DIRECTORY GRACE_SECONDS PROGRAM [ARGUMENT ...]

The first two arguments name what the server leaves behind, and may be empty: the prefix of its regions in /dev/shm,
and its working directory. Both are removed when the server has ended. Standard input is a pipe whose other end only
the owner holds. End of file means that the owner has finished or died: the kernel closes the pipe of a killed process
too. As a "subreaper", the reaper inherits the processes that its server leaves behind, such as the Python stubs of a
killed Triton, and kills them. The reaper writes `pid N` or `error TEXT` to standard output, and keeps it open until
it exits.

The umask is 077, so that only this user can read the files that the server creates. Triton's Python backend opens its
shared memory to all users with fchmod after creating it, which no umask prevents. A program with shared memory
therefore runs under a seccomp filter that turns such an fchmod into a no-op.
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
OTHERS = 0o077  # the bits of a file's mode for group and others
FOLLOWING_SECONDS = 1.0  # for children that end by themselves after their parent
NO_FILTER = (
    "this kernel or container allows no seccomp filter (prctl PR_SET_SECCOMP), without which every user of this "
    "machine could read the server's shared memory"
)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main(shared_memory: str, directory: str, grace: float, command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner handles Ctrl-C
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
    """Make every fchmod that would open a file to other users a no-op in this process and its children."""
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
    with contextlib.suppress(BrokenPipeError):  # the owner has died; end of file on standard input follows
        os.write(1, f"{line}\n".encode())


def _end_with_owner(server: subprocess.Popen[bytes], grace: float) -> None:
    os.read(0, 1)  # returns at end of file; sys.stdin would hold a lock that blocks Python's exit
    server.terminate()
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()


def _end_descendants() -> None:
    """Kill and reap the processes that the server left behind; their children then become ours.

    Those get a moment to end by themselves: Python's resource tracker, a child of each Dask worker, removes the
    worker's semaphores when the worker dies.
    """
    while children := _children():
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        deadline = time.monotonic() + FOLLOWING_SECONDS
        with contextlib.suppress(ChildProcessError):  # no children are left
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
    while True:
        lists = Path("/proc/self/task").glob("*/children")
        with contextlib.suppress(FileNotFoundError):  # a thread has just ended, and another one inherits its children
            return [int(pid) for children in lists for pid in children.read_text(encoding="utf-8").split()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
