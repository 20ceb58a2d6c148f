"""The kit that `pack` made, unpacked: Triton with a Python that finds this machine's PyTorch, and perf_analyzer."""

from __future__ import annotations

import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from eaf_facility.servers.triton_environment import Installation

__all__ = ["Kit", "unpack"]

_ARCHIVES = ("triton", "python", "perf_analyzer")


@dataclass(frozen=True, slots=True)
class Kit:
    """What was unpacked: `perf_analyzer` is its directory, `weights` that of both networks."""

    installation: Installation
    perf_analyzer: Path
    weights: Path


def unpack(kit: Path, directory: Path) -> Kit:
    """Unpack the kit into a directory."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: _extract(kit / f"{name}.tar.xz", directory), _ARCHIVES))
    triton, python = directory / "triton", directory / "python"
    server = triton / "pytriton" / "tritonserver"
    library = python / "lib" / "libpython3.12.so.1.0"
    (triton / "nvidia_pytriton.libs" / library.name).symlink_to(library)
    site = python / "lib" / "python3.12" / "site-packages"
    site.mkdir()
    (site / "torch.pth").write_text(f"{_directory_of('torch')}\n{_directory_of('numpy')}\n", encoding="utf-8")
    installation = Installation(server / "bin" / "tritonserver", server / "backends", python / "bin")
    return Kit(installation, directory / "perf_analyzer", kit / "weights")


def _extract(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="tar")


def _directory_of(package: str) -> str:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"this Python has no {package}")
    return str(Path(spec.origin).parents[1])
