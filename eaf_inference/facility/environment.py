"""The environment Triton runs in: made on first use in the user's cache, and found there afterwards.

Triton's wheel was built for numpy 1, and a user's packages want numpy 2. So Triton gets a virtual environment of its
own with exactly what triton-requirements.txt lists. Models written in Python see that environment. Where there is no
numpy 1, python_backend/numpy2_tensors.py makes the wheel's Python backend work with numpy 2.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference._proxies import refused_by_proxy
from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.processes import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
    "locked",
    "make_installation",
]

REQUIREMENTS = Path(__file__).with_name("triton-requirements.txt")
GLIBC = (2, 35)
SUPPORTED = ((3, 12), (3, 11), (3, 10), (3, 13))  # Pythons with a Triton stub; best first, those with numpy 1
_COMPLETE = "complete"  # a file: what lacks it is an interrupted build
_BACKEND = Path(__file__).with_name("onnxruntime_backend") / "model.py"
_NUMPY2 = Path(__file__).with_name("python_backend") / "numpy2_tensors.py"
_PATHS = Path(__file__).with_name("python_backend") / "utf8_paths.py"
_HOOK = f"\nimport {_NUMPY2.stem}\n\n{_NUMPY2.stem}.install(globals())\n"  # at the end of Triton's own module
_OTHERWISE = "or give the path of a tritonserver that is already there with --triton-server"
_PROBE = (
    "import json, sys, sysconfig, venv; "
    "library = sysconfig.get_config_var('LIBDIR'); "
    "print(json.dumps([sys.executable, sys.version_info[:2], sys.base_prefix, library]))"
)


@dataclass(frozen=True, slots=True)
class Installation:
    """A Triton that can be started: its program, its backends, and what comes first on its PATH."""

    server: Path
    backends: Path
    bin: Path


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python the environment can be made with."""

    executable: str
    version: tuple[int, int]
    base_prefix: str
    library_directory: str | None

    @property
    def name(self) -> str:
        return f"python{self.version[0]}.{self.version[1]}"

    def shared_library(self) -> Path | None:
        """The libpython that Triton's stub is linked to, where it belongs to this Python's installation."""
        directories = [self.library_directory, f"{self.base_prefix}/lib"]
        candidates = [Path(each) / f"lib{self.name}.so.1.0" for each in directories if each]
        return next((path for path in candidates if path.exists()), None)


def existing_installation(server: Path) -> Installation:
    """Use a tritonserver that is already there, with the backends beside its `bin` directory."""
    if not (server.is_file() and os.access(server, os.X_OK)):
        raise ConfigurationError(
            f"--triton-server {server} is not a program. Give the path of a tritonserver, such as "
            "/opt/tritonserver/bin/tritonserver, or leave the option out to have one installed."
        )
    server = server.resolve()
    backends = server.parent.parent / "backends"
    if not backends.is_dir():
        raise ConfigurationError(
            f"{server} has no backends: expected the directory {backends}. Give the path of a tritonserver "
            "that stands in its own installation, or leave --triton-server out to have one installed."
        )
    return Installation(server, backends, _programs_of(server))


def _programs_of(server: Path) -> Path:
    """What goes first on the PATH: for a server from a wheel, its environment, whose Python its models need."""
    packages = next((path for path in server.parents if path.name == "site-packages"), None)
    return packages.parents[2] / "bin" if packages else server.parent


def make_installation(*, progress: Callable[[str], None]) -> Installation:
    """Give Triton in its own environment, which is made first if this user has none yet."""
    check_machine()
    interpreter = find_interpreter()
    path = environment_path(interpreter)
    with locked(path.with_name(f"{path.name}.lock"), "making Triton's environment", progress) as lock:
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
    """Refuse a machine that Triton's wheel cannot run on."""
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < GLIBC:
        raise ConfigurationError(
            f"Triton's wheel needs glibc {GLIBC[0]}.{GLIBC[1]} or newer; this machine has "
            f"{f'{library} {version}'.strip() or 'another C library'}. Run this in a newer system or "
            f"container (Debian 12, Ubuntu 22.04, AlmaLinux 10), {_OTHERWISE}."
        )
    if platform.machine() != "x86_64":
        raise ConfigurationError(
            f"Triton's wheel is for x86_64; this machine is {platform.machine()}. Use another, {_OTHERWISE}."
        )


def find_interpreter() -> Interpreter:
    """Choose the Python that runs now, or else the newest suitable one on the PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return Interpreter(sys.executable, sys.version_info[:2], sys.base_prefix, sysconfig.get_config_var("LIBDIR"))
    for major, minor in SUPPORTED:
        if (found := _probe(f"python{major}.{minor}")) and found.version == (major, minor):
            return found
    names = " or ".join(f"python{major}.{minor}" for major, minor in SUPPORTED)
    raise ConfigurationError(
        f"Triton's wheel cannot run models with Python {sys.version_info[0]}.{sys.version_info[1]}, and "
        f"there is no {names} on your PATH to make its environment with. Install one beside "
        f"(`uv python install 3.12`, or your system's packages python3.12 and python3.12-venv), {_OTHERWISE}."
    )


def _probe(name: str) -> Interpreter | None:
    program = shutil.which(name)
    if program is None:
        return None
    answer = subprocess.run(
        [program, "-I", "-c", _PROBE], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if answer.returncode:  # a pyenv shim of a version that is not switched on, a Python without venv
        return None
    executable, version, base_prefix, library_directory = json.loads(answer.stdout)
    return Interpreter(executable, (version[0], version[1]), base_prefix, library_directory)


def environment_path(interpreter: Interpreter) -> Path:
    """Where the environment for these requirements and this Python is, or will be."""
    import platformdirs

    content = REQUIREMENTS.read_bytes() + _HOOK.encode() + os.fsencode(interpreter.base_prefix)
    digest = hashlib.sha256(content).hexdigest()[:10]
    cache = platformdirs.user_cache_path("eaf-inference", appauthor=False)
    return cache / f"triton-{interpreter.name}-{digest}"


def is_complete(path: Path) -> bool:
    """Say whether the environment is there, with a Python that is still installed."""
    return (path / _COMPLETE).exists() and (path / "bin" / "python3").exists()


@contextmanager
def locked(path: Path, doing: str, progress: Callable[[str], None]) -> Iterator[int]:
    """Hold a lock file, and say what another command that holds it is doing; gives the file's descriptor."""
    private_directory(path.parent)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another command that is {doing}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


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
        env={**os.environ, "PIP_USER": "0"},  # some sites set it, and pip then refuses an environment
        pass_fds=[lock],  # while an orphan of a killed command still writes, nobody else begins
    ) as process:
        try:
            assert process.stdout  # noqa: S101 - asked for above
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
            + f"\nPut that right and run the command again, {_OTHERWISE}."
        )


def _fit_stub(packages: Path, interpreter: Interpreter) -> None:
    """Put the stub of this Python where the backend looks, and its libpython where the stub looks."""
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
            f"Install that library (Debian, Ubuntu: the package lib{interpreter.name}), or use a Python that "
            f"brings it (conda, uv, or built with --enable-shared), {_OTHERWISE}."
        )


def _link_library(directory: Path, library: Path, interpreter: Interpreter) -> None:
    """Link this Python's own library, also in place of the wheel's: the one for 3.13 is of 3.13.0."""
    minor = interpreter.version[1]
    name = next((path.name for path in directory.glob(f"libpython3*.{minor}.so.1.0")), library.name)
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(library)


def _put(content: bytes, target: Path) -> None:
    """Write a file in one step, so that a Triton that starts meanwhile sees the old or the new one."""
    if target.exists() and target.read_bytes() == content:
        return
    target.parent.mkdir(exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}")
    draft.write_bytes(content)
    draft.rename(target)
