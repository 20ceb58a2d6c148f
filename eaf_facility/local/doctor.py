"""The operator's checks of `eaf-inference doctor`: what `up` needs, and what a killed facility left behind.

The doctor finds `CHECKS` by the entry point ``eaf_inference.checks``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.servers.dask_gateway import PACKAGES, missing_packages
from eaf_facility.servers.dask_gateway_proxy import proxy_program
from eaf_facility.servers.envoy import envoy_program
from eaf_facility.servers.prometheus import prometheus_program
from eaf_facility.servers.triton import SHARED_MEMORY
from eaf_facility.servers.triton_environment import (
    check_machine,
    environment_path,
    find_interpreter,
    is_complete,
)
from eaf_inference.doctor import Finding, State, install_command
from eaf_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eaf_inference.doctor import Check

__all__ = ["CHECKS", "leftovers"]


def leftovers() -> list[Path]:
    """Return the shared memory of Tritons that were killed together with their reaper."""
    present = Path("/dev/shm").glob(f"{SHARED_MEMORY}*")  # noqa: S108 - where shared memory is
    regions = [path for path in present if _is_ours(path)]
    commands = _command_lines()
    prefix = len(SHARED_MEMORY) + 12  # unique to each server, see TritonServer.launch
    return [path for path in regions if not any(path.name[:prefix].encode() in line for line in commands)]


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except FileNotFoundError:  # its Triton has just ended
        return False


def _command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has just ended
            lines.append(path.read_bytes())
    return lines


def _machine() -> Iterator[Finding]:
    try:
        check_machine()
    except ConfigurationError as error:
        yield Finding("machine", State.NOTE, "cannot run Triton from its wheel; only `up` needs that", str(error))
    else:
        yield Finding("machine", State.FINE, f"{platform.machine()}, {' '.join(platform.libc_ver())}")


def _triton() -> Iterator[Finding]:
    try:
        path = environment_path(find_interpreter())
    except ConfigurationError as error:
        yield Finding("Triton", State.NOTE, "no Python for its environment; only `up` needs that", str(error))
        return
    if is_complete(path):
        yield Finding("Triton", State.FINE, f"installed in {path}")
    else:
        yield Finding("Triton", State.NOTE, "not installed yet", "`eaf-inference up` installs it on first use")


def _dask_gateway() -> Iterator[Finding]:
    if missing := missing_packages():
        yield Finding("Dask Gateway", State.NOTE, f"lacks {', '.join(missing)}", install_command("facility"))
        return
    proxy = proxy_program()
    if not os.access(proxy, os.X_OK):
        remedy = f"{sys.executable} -m pip install --force-reinstall --no-deps dask-gateway-server"
        yield Finding("Dask Gateway", State.PROBLEM, f"its proxy, {proxy}, cannot be executed", remedy)
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    yield Finding("Dask Gateway", State.FINE, versions)


def _for_several_users() -> Iterator[Finding]:
    """Report the programs that only `up --users` needs; JupyterHub's packages are in the extras."""
    for subject, program in {"Envoy": envoy_program, "Prometheus": prometheus_program}.items():
        try:
            yield Finding(subject, State.FINE, str(program()))
        except ConfigurationError as error:
            yield Finding(subject, State.NOTE, "missing; `up --users` needs it", str(error))


def _shared_memory() -> Iterator[Finding]:
    if dead := leftovers():
        remedy = "rm " + " ".join(map(str, dead))
        yield Finding("shared memory", State.PROBLEM, f"{len(dead)} regions left by dead Tritons", remedy)
    else:
        yield Finding("shared memory", State.FINE, "nothing left by dead Tritons")


CHECKS: Mapping[str, Check] = {
    "machine": _machine,
    "Triton": _triton,
    "Dask Gateway": _dask_gateway,
    "up --users": _for_several_users,
    "shared memory": _shared_memory,
}
