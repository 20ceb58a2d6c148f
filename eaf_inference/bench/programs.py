"""Programs that are measured beside this client and are no Python package: fetched once, kept in the user's cache.

perf_analyzer is in tritonclient's wheels 2.50 to 2.56. It needs libb64 (Debian's package libb64-0d) and CUDA's
runtime (in nvidia-cuda-runtime-cu12) even where there is no GPU. Nothing is installed: all is unpacked side by side.
"""

from __future__ import annotations

import ctypes.util
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
from eaf_inference.facility.processes import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Program", "perf_analyzer"]

_WHEELS = Path(__file__).with_name("perf-analyzer-requirements.txt")
_VERSION = "2.50.0"  # of tritonclient
_DEBIAN_PACKAGE = "libb64-0d"
_PROGRAM = "perf_analyzer"


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
    import platformdirs

    cache = platformdirs.user_cache_path("eaf-inference", appauthor=False)
    place = cache / f"{_PROGRAM}-{_VERSION}"
    if not place.exists():
        if progress is None:
            raise ConfigurationError(f"{_PROGRAM} is not in {cache}. `eaf-inference bench` fetches it.")
        progress(f"fetching {_PROGRAM} into {place} (once)")
        private_directory(cache)
        _fetch(place)
    program = next(place.rglob(_PROGRAM))
    libraries = sorted({path.parent for path in place.rglob("*.so*")})
    return Program(program, tuple(libraries))


def _fetch(place: Path) -> None:
    """Unpack all beside the place, and put it there in one step."""
    draft = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        downloads = draft / "downloads"
        downloads.mkdir()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "-q"]
        _run(
            [*pip, "--only-binary=:all:", "--dest", str(downloads), "--require-hashes", "-r", str(_WHEELS)], downloads
        )
        for wheel in downloads.glob("*.whl"):
            with ZipFile(wheel) as archive:
                archive.extractall(draft)
        if ctypes.util.find_library("b64") is None:
            _unpack_base64(downloads, draft)
        shutil.rmtree(downloads)
        next(draft.rglob(_PROGRAM)).chmod(0o700)
        draft.rename(place)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _unpack_base64(downloads: Path, target: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ConfigurationError(
            f"{_PROGRAM} needs the library libb64.so.0d. Install your system's package (Debian, Ubuntu: "
            f"{_DEBIAN_PACKAGE})."
        )
    _run(["apt-get", "download", _DEBIAN_PACKAGE], downloads)
    _run(["dpkg-deb", "-x", str(next(downloads.glob("*.deb"))), str(target)], downloads)


def _run(command: Sequence[str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConfigurationError(f"{_PROGRAM} cannot be fetched: `{' '.join(command[:4])} …` failed: {why[0]}")
