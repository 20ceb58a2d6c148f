"""The environment Triton runs in: made in the user's cache on first use, and reused afterwards.

Triton's wheel was built for numpy 1, and users' packages need numpy 2. So Triton gets its own virtual environment
with exactly the packages in triton-requirements.txt. Models written in Python run in that environment. Where numpy 1
is not available, python_backend/numpy2_tensors.py makes the wheel's Python backend work with numpy 2.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._files import cache_path, locked, write_private
from eaf_inference._proxies import refused_by_proxy
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "GLIBC",
    "REQUIREMENTS",
    "SUPPORTED",
    "Installation",
    "Interpreter",
    "check_machine",
    "environment_path",
    "existing_installation",
    "find_interpreter",
    "is_complete",
    "make_installation",
]

REQUIREMENTS = Path(__file__).with_name("triton-requirements.txt")
GLIBC = (2, 35)
SUPPORTED = ((3, 12), (3, 11), (3, 10), (3, 13))  # Pythons with a Triton stub, best first: those with numpy 1
_COMPLETE = "complete"  # a file; an environment without it is an interrupted build
_BACKEND = Path(__file__).with_name("onnxruntime_backend") / "model.py"
_NUMPY2 = Path(__file__).with_name("python_backend") / "numpy2_tensors.py"
_PATHS = Path(__file__).with_name("python_backend") / "utf8_paths.py"
_HOOK = f"\nimport {_NUMPY2.stem}\n\n{_NUMPY2.stem}.install(globals())\n"  # appended to Triton's own module
_OTHERWISE = "or give the path of an installed tritonserver with --triton-server"
_PROBE = (
    "import json, sys, sysconfig, venv; "
    "library = sysconfig.get_config_var('LIBDIR'); "
    "print(json.dumps([sys.executable, sys.version_info[:2], sys.base_prefix, library]))"
)


@dataclass(frozen=True, slots=True)
class Installation:
    """A Triton that can be started: its program, its backends, and the directory that is first on its PATH."""

    server: Path
    backends: Path
    bin: Path


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that can make the environment."""

    executable: str
    version: tuple[int, int]
    base_prefix: str
    library_directory: str | None

    @property
    def name(self) -> str:
        return f"python{self.version[0]}.{self.version[1]}"

    def shared_library(self) -> Path | None:
        """Return the libpython that Triton's stub is linked to, if this Python's installation has one."""
        directories = [self.library_directory, f"{self.base_prefix}/lib"]
        candidates = [Path(each) / f"lib{self.name}.so.1.0" for each in directories if each]
        return next((path for path in candidates if path.exists()), None)


def existing_installation(server: Path) -> Installation:
    """Return an installed tritonserver, with the backends beside its `bin` directory."""
    if not (server.is_file() and os.access(server, os.X_OK)):
        raise ConfigurationError(
            f"--triton-server {server} is not a program. Expected the path of a tritonserver, such as "
            "/opt/tritonserver/bin/tritonserver, or leave the option out to have one installed."
        )
    server = server.resolve()
    backends = server.parent.parent / "backends"
    if not backends.is_dir():
        raise ConfigurationError(
            f"{server} has no backends: expected the directory {backends}. Give the path of a tritonserver "
            "inside its installation, or leave --triton-server out to have one installed."
        )
    return Installation(server, backends, _programs_of(server))


def _programs_of(server: Path) -> Path:
    """Return the directory to put first on the PATH; a server from a wheel needs its environment's Python."""
    packages = next((path for path in server.parents if path.name == "site-packages"), None)
    return packages.parents[2] / "bin" if packages else server.parent


def make_installation(*, progress: Callable[[str], None]) -> Installation:
    """Return Triton in its own environment, which is made first if this user has none yet."""
    check_machine()
    interpreter = find_interpreter()
    path = environment_path(interpreter)
    waiting = partial(progress, "waiting for another command that is making Triton's environment")
    with locked(path.with_name(f"{path.name}.lock"), waiting=waiting) as lock:
        if not is_complete(path):
            _build(path, interpreter, lock, progress)
        packages = path / "lib" / interpreter.name / "site-packages"
        triton = packages / "pytriton" / "tritonserver"
        _put(_BACKEND.read_bytes(), triton / "backends" / "onnxruntime" / "model.py")
        _put(_NUMPY2.read_bytes(), triton / "backends" / "python" / _NUMPY2.name)
        _put(_PATHS.read_bytes(), packages / _PATHS.name)
        _put(f"import {_PATHS.stem}\n".encode(), packages / f"{_PATHS.stem}.pth")
    return Installation(triton / "bin" / "tritonserver", triton / "backends", path / "bin")


def check_machine() -> None:
    """Raise ConfigurationError if Triton's wheel cannot run on this machine."""
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < GLIBC:
        raise ConfigurationError(
            f"Triton's wheel needs glibc {GLIBC[0]}.{GLIBC[1]} or newer; this machine has "
            f"{f'{library} {version}'.strip() or 'another C library'}. Run this in a newer system or "
            f"container (Debian 12, Ubuntu 22.04, AlmaLinux 10), {_OTHERWISE}."
        )
    if platform.machine() != "x86_64":
        raise ConfigurationError(
            f"Triton's wheel is for x86_64; this machine is {platform.machine()}. Use another machine, {_OTHERWISE}."
        )


def find_interpreter() -> Interpreter:
    """Return the running Python if it is supported, or else the best supported one on the PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return Interpreter(sys.executable, sys.version_info[:2], sys.base_prefix, sysconfig.get_config_var("LIBDIR"))
    for major, minor in SUPPORTED:
        if (found := _probe(f"python{major}.{minor}")) and found.version == (major, minor):
            return found
    names = " or ".join(f"python{major}.{minor}" for major, minor in SUPPORTED)
    raise ConfigurationError(
        f"Triton's wheel cannot run models with Python {sys.version_info[0]}.{sys.version_info[1]}, and "
        f"there is no {names} on your PATH to make its environment with. Install one as well "
        f"(`uv python install 3.12`, or your system's packages python3.12 and python3.12-venv), {_OTHERWISE}."
    )


def _probe(name: str) -> Interpreter | None:
    program = shutil.which(name)
    if program is None:
        return None
    answer = subprocess.run(
        [program, "-I", "-c", _PROBE], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if answer.returncode:  # a pyenv shim of an inactive version, or a Python without venv
        return None
    executable, version, base_prefix, library_directory = json.loads(answer.stdout)
    return Interpreter(executable, (version[0], version[1]), base_prefix, library_directory)


def environment_path(interpreter: Interpreter) -> Path:
    """Return the path of the environment for these requirements and this Python, which may not exist yet."""
    content = REQUIREMENTS.read_bytes() + _HOOK.encode() + os.fsencode(interpreter.base_prefix)
    digest = hashlib.sha256(content).hexdigest()[:10]
    return cache_path() / f"triton-{interpreter.name}-{digest}"


def is_complete(path: Path) -> bool:
    """Return whether the environment exists and its Python is still installed."""
    return (path / _COMPLETE).exists() and (path / "bin" / "python3").exists()


def _build(path: Path, interpreter: Interpreter, lock: int, progress: Callable[[str], None]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    progress(f"making Triton's environment in {path} (once, about 300 MB)")
    try:
        _run([interpreter.executable, "-I", "-m", "venv", path], lock, progress)
        pip = ["-I", "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--progress-bar=off"]
        checked = ["--require-hashes", "--only-binary=:all:", "-r", str(REQUIREMENTS)]
        _run([path / "bin" / "python3", *pip, *checked], lock, progress)
        _fit_stub(path / "lib" / interpreter.name / "site-packages", interpreter)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    (path / _COMPLETE).touch()


def _run(command: Sequence[str | Path], lock: int, progress: Callable[[str], None]) -> None:
    said = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PIP_USER": "0"},  # pip refuses to install into an environment if a site sets it to 1
        pass_fds=[lock],  # so that an orphan of a killed command holds the lock while it still writes
    ) as process:
        try:
            assert process.stdout  # noqa: S101 - a pipe, see above
            for line in process.stdout:
                said.append(line.strip())
                progress(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        errors = [line for line in said if line.lower().startswith("error")] or said[-10:]
        proxy = refused_by_proxy() if "proxy" in "".join(said).lower() else ""
        raise ConfigurationError(
            f"cannot make Triton's environment: `{' '.join(map(str, command))}` failed:\n  "
            + "\n  ".join([*errors, *filter(None, [proxy])])
            + f"\nFix the problem and run the command again, {_OTHERWISE}."
        )


def _fit_stub(packages: Path, interpreter: Interpreter) -> None:
    """Copy this Python's stub to where the backend looks for it, and link libpython to where the stub does."""
    triton = packages / "pytriton" / "tritonserver"
    stub = triton / "backends" / "python" / "triton_python_backend_stub"
    version = interpreter.name.removeprefix("python")
    shutil.copy(triton / "python_backend_stubs" / version / stub.name, stub)
    with (stub.parent / "triton_python_backend_utils.py").open("a", encoding="utf-8") as utilities:
        utilities.write(_HOOK)
    if library := interpreter.shared_library():
        _link_library(packages / "nvidia_pytriton.libs", library, interpreter)
    trial = subprocess.run([stub], capture_output=True, encoding="utf-8", errors="replace", check=False)
    if trial.returncode == 127:  # the loader's code; a stub that can run asks for arguments
        raise ConfigurationError(
            f"Triton's Python backend does not run with {interpreter.executable}: {trial.stderr.strip()}\n"
            f"Install that library (Debian, Ubuntu: the package lib{interpreter.name}), use a Python that "
            f"includes it (conda, uv, or built with --enable-shared), {_OTHERWISE}."
        )


def _link_library(directory: Path, library: Path, interpreter: Interpreter) -> None:
    """Link this Python's own library, in place of the wheel's if it has one: its 3.13 is 3.13.0."""
    minor = interpreter.version[1]
    name = next((path.name for path in directory.glob(f"libpython3*.{minor}.so.1.0")), library.name)
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(library)


def _put(content: bytes, target: Path) -> None:
    """Replace a file atomically, so that a Triton that is starting sees the old or the new one."""
    if target.exists() and target.read_bytes() == content:
        return
    target.parent.mkdir(exist_ok=True)
    write_private(target, content)
