"""What is measured beside this client and is not installed with it: fetched once, kept in the user's cache.

Beside an installed tritonclient without gevent, `import coffea.ml_tools` fails. So tritonclient is installed with
gevent into a directory of its own, which only the processes of the contenders that need it see.

perf_analyzer is in tritonclient's wheels 2.50 to 2.56. It needs libb64 (Debian's package libb64-0d) and CUDA's
runtime (in nvidia-cuda-runtime-cu12) even where there is no GPU. Nothing is installed: all is unpacked side by side.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

from eaf_inference.errors import ConfigurationError
from eaf_inference.facility.environment import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["REQUIREMENTS", "Program", "contender_packages", "perf_analyzer"]

REQUIREMENTS = Path(__file__).with_name("contender-requirements.txt")
_WHEELS = Path(__file__).with_name("perf-analyzer-requirements.txt")
_VERSION = "2.50.0"  # of tritonclient
_DEBIAN_PACKAGE = "libb64-0d"
_PROGRAM = "perf_analyzer"
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@dataclass(frozen=True, slots=True)
class Program:
    """A program, and the directories where it finds its libraries."""

    path: Path
    libraries: tuple[Path, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What it is run with."""
        there = os.environ.get("LD_LIBRARY_PATH")
        paths = [*map(str, self.libraries), *([there] if there else [])]
        return {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": os.pathsep.join(paths)}


def contender_packages(*, progress: Callable[[str], None] | None = None) -> Path:
    """Give the directory of tritonclient and of what coffea's ``triton_wrapper`` needs, for a contender's PYTHONPATH.

    Parameters
    ----------
    progress : callable, optional
        As for `perf_analyzer`.

    Raises
    ------
    ConfigurationError
        They cannot be had here; the message says why.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:10]
    return _kept("tritonclient", f"contenders-{sys.implementation.cache_tag}-{digest}", _install_packages, progress)


def perf_analyzer(*, progress: Callable[[str], None] | None = None) -> Program:
    """NVIDIA's load generator in C++.

    Parameters
    ----------
    progress : callable, optional
        Fetch it where it is not there yet, and tell this what happens. Without, it is only looked for.

    Raises
    ------
    ConfigurationError
        It cannot be had here; the message says why.
    """
    place = _kept(_PROGRAM, f"{_PROGRAM}-{_VERSION}", _unpack_program, progress)
    program = next(place.rglob(_PROGRAM))
    libraries = sorted({path.parent for path in place.rglob("*.so*")})
    return Program(program, tuple(libraries))


def _kept(what: str, name: str, fetch: Callable[[Path], None], progress: Callable[[str], None] | None) -> Path:
    """Give a directory of the cache. What is to be in it is fetched beside it, and put there in one step."""
    import platformdirs

    cache = platformdirs.user_cache_path("eaf-inference", appauthor=False)
    place = cache / name
    if place.exists():
        return place
    if progress is None:
        raise ConfigurationError(f"{what} is not in {cache}. `eaf-inference bench` fetches it.")
    with locked(cache / f"{name}.lock", f"fetching {what}", progress):
        if not place.exists():
            progress(f"fetching {what} into {place} (once)")
            draft = Path(tempfile.mkdtemp(dir=cache))
            try:
                fetch(draft)
                draft.rename(place)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return place


def _install_packages(draft: Path) -> None:
    checked = ["--require-hashes", "--only-binary=:all:", "-r", str(REQUIREMENTS)]
    _run("tritonclient", [*_PIP, "install", "--no-deps", "-q", "--target", str(draft), *checked], draft)


def _unpack_program(draft: Path) -> None:
    downloads = draft / "downloads"
    downloads.mkdir()
    checked = ["--require-hashes", "--only-binary=:all:", "-r", str(_WHEELS)]
    _run(_PROGRAM, [*_PIP, "download", "--no-deps", "-q", "--dest", str(downloads), *checked], downloads)
    for wheel in downloads.glob("*.whl"):
        with ZipFile(wheel) as archive:
            archive.extractall(draft)
    if ctypes.util.find_library("b64") is None:
        _unpack_base64(downloads, draft)
    shutil.rmtree(downloads)
    next(draft.rglob(_PROGRAM)).chmod(0o700)


def _unpack_base64(downloads: Path, target: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ConfigurationError(
            f"{_PROGRAM} needs the library libb64.so.0d. Install your system's package (Debian, Ubuntu: "
            f"{_DEBIAN_PACKAGE})."
        )
    _run(_PROGRAM, ["apt-get", "download", _DEBIAN_PACKAGE], downloads)
    _run(_PROGRAM, ["dpkg-deb", "-x", str(next(downloads.glob("*.deb"))), str(target)], downloads)


def _run(what: str, command: Sequence[str], directory: Path) -> None:
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PIP_USER": "0"},  # some sites set it, and pip then refuses --target
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConfigurationError(f"{what} cannot be fetched: `{' '.join(command[:4])} …` failed: {why[0]}")
