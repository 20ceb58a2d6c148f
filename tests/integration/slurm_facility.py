"""A facility with `up --batch slurm`, as an operator runs it as root, and two users of the machine."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import psutil
from tokens import make_token

ROOT = Path(__file__).parents[2]
NOBODY = 65534
COMMANDS = (
    ["scontrol", "show", "job", "-dd"],
    ["scontrol", "show", "step", "-dd"],
    ["scontrol", "show", "config"],
    ["scontrol", "show", "node", "-dd"],
    ["squeue", "--format=%all"],
    ["squeue", "--steps", "--format=%all"],
    ["sacct", "--long"],
    ["sinfo", "--format=%all"],
)


def python_for_all_users(directory: Path) -> str | None:
    """Return a Python that every user can run and that has this one's packages, made in `directory` if need be."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sys.prefix) / "lib" / version / "site-packages"
    copied = directory / "packages"
    candidates = (Path(sys.base_prefix) / "bin" / version, Path("/usr/bin") / version)
    for number, (packages, base) in enumerate(product((own, copied), candidates)):
        if packages == copied and not copied.exists():  # in a private directory, as a temporary clone's are
            with suppress(OSError):  # on another file system
                _link_files(own, copied)
        environment = directory / str(number)
        (environment / "bin").mkdir(parents=True)
        (environment / "lib" / version).mkdir(parents=True)
        (environment / "bin" / "python").symlink_to(base)
        (environment / "pyvenv.cfg").write_text(f"home = {base.parent}\n", encoding="utf-8")
        (environment / "lib" / version / "site-packages").symlink_to(packages)
        python = str(environment / "bin" / "python")
        program = environment / "bin" / "eaf-inference"
        program.write_text(f"#!{python}\nimport sys\nfrom eaf_inference.cli import main\nsys.exit(main())\n")
        program.chmod(0o755)
        command = [python, "-c", "import dask, eaf_inference"]
        with suppress(PermissionError, subprocess.CalledProcessError):
            subprocess.run(command, user=NOBODY, env={}, cwd="/", capture_output=True, check=True)
            return python
    return None


def _link_files(packages: Path, copied: Path) -> None:
    """Make hard links of installed packages and of this project's."""
    shutil.copytree(packages, copied, copy_function=os.link)
    for name in ("eaf_inference", "eaf_facility"):
        shutil.copytree(ROOT / name, copied / name, copy_function=os.link)


@dataclass(frozen=True)
class User:
    """A user of the machine, who can run programs."""

    name: str
    python: str
    slurm_conf: str = ""

    @property
    def entry(self) -> pwd.struct_passwd:
        return pwd.getpwnam(self.name)

    @property
    def home(self) -> Path:
        return Path(self.entry.pw_dir)

    def begin(self, *command: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """Start a program with her identity, in her home directory."""
        path = os.pathsep.join([str(Path(self.python).parent), "/usr/bin", "/bin"])
        return subprocess.Popen(
            command,
            user=self.entry.pw_uid,
            group=self.entry.pw_gid,
            extra_groups=[],
            umask=0o022,
            cwd=cwd or self.home,
            env={
                "HOME": str(self.home),
                "USER": self.name,
                "PATH": path,
                "SLURM_CONF": self.slurm_conf,
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )

    def run(self, *command: str, **environment: str) -> str:
        """Run a program to its end, and return what it printed."""
        with self.begin(*command, **environment) as program:
            try:
                printed, errors = program.communicate(timeout=60)
            finally:
                program.kill()
        return printed + errors

    def own(self, path: Path) -> Path:
        os.chown(path, self.entry.pw_uid, self.entry.pw_gid)
        return path

    def save_token(self) -> Path:
        path = self.home / "token"
        path.touch(mode=0o600)
        path.write_text(make_token(self.name), encoding="utf-8")
        return self.own(path)


@contextmanager
def renewed_token(user: User, issued: dict[str, float], *, lives: float):
    """Keep a valid token in a file of the user's; yield its path, and note each token and its expiry in `issued`."""
    path, ends = user.home / "token", threading.Event()

    def renew() -> None:
        token = make_token(user.name, lives=lives)
        issued[token] = time.time() + lives
        draft = path.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_text(token, encoding="utf-8")
        user.own(draft).rename(path)

    def keep() -> None:
        while not ends.wait(lives / 4):
            renew()

    renew()
    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield path
    finally:
        ends.set()
        thread.join()


@contextmanager
def users_of_the_machine(python: str, slurm_conf: str, count: int = 2):
    """Make accounts, and remove them with their files."""
    users = [User(f"eaf-test-{secrets.token_hex(3)}", python, slurm_conf) for _ in range(count)]
    try:
        for user in users:
            subprocess.run(["/usr/sbin/useradd", "--create-home", "--shell", "/bin/bash", user.name], check=True)
        yield users
    finally:
        for user in users:
            identity = user.entry.pw_uid
            for process in psutil.process_iter():
                with suppress(psutil.NoSuchProcess):
                    if process.uids().real == identity:
                        process.kill()
            subprocess.run(["/usr/sbin/userdel", "--force", "--remove", user.name], check=True, capture_output=True)
            for path in (f"eaf-inference-{identity}", f"dask-scratch-space-{identity}"):
                shutil.rmtree(Path(tempfile.gettempdir()) / path, ignore_errors=True)


@contextmanager
def facility_with_slurm(python: str, models: Path):
    """Run the operator's command; yield what it prints, and the process."""
    command = [python, "-m", "eaf_inference.cli", "up", "--batch", "slurm", "--models", str(models), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as program:
        try:
            line = program.stdout.readline()
            assert line, program.stderr.read()[-3000:]
            yield json.loads(line)
        finally:
            program.terminate()
            program.communicate(timeout=60)


def tell(program: subprocess.Popen[str], what: Any) -> None:
    program.stdin.write(json.dumps(what) + "\n")
    program.stdin.flush()


def hear(program: subprocess.Popen[str]) -> Any:
    line = program.stdout.readline()
    assert line, program.stderr.read()[-3000:]
    return json.loads(line)


def shown_to(run, jobs: list[str]) -> dict[str, str]:
    """Return what Slurm's commands show, run by `run`."""
    scripts = [["scontrol", "write", "batch_script", job, "-"] for job in jobs]
    return {" ".join(command): run(*command) for command in (*COMMANDS, *scripts)}


def stored_in(*directories: Path) -> dict[str, str]:
    """Return the content of all files below."""
    files = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    return {str(path): path.read_text(encoding="utf-8", errors="replace") for path in files}


def processes_of(user: User) -> dict[str, tuple[str, str]]:
    """Return the command line and the environment of the user's processes, and of their parents in Slurm."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if process.uids().real == user.entry.pw_uid or process.name().startswith("slurm"):
                found[str(process.pid)] = "\n".join(process.cmdline()), repr(process.environ())
    return found
