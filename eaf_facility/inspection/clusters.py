"""Dask Gateway and the batch system behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.inspection.calls import get
from eaf_facility.process.server import plain_environment
from eaf_inference.doctor import Finding, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eaf_facility.inspection.setup import Setup

__all__ = ["batch_system", "gateway", "partitions"]

_SECONDS = 5.0
_SLURM = Path("/etc/slurm/slurm.conf")
_WORKS = ("alloc", "comp", "idle", "mix", "plnd", "resv")  # how states begin in which nodes run jobs, or soon will


def gateway(setup: Setup) -> Iterator[Finding]:
    """Report whether Dask Gateway answers, and its own opinion of its health."""
    url = setup.facility.gateway_url or setup.environment.get("DASK_GATEWAY__ADDRESS", "")
    if not url:
        yield Finding(
            "Dask Gateway", State.NOTE, "none is configured", 'c.Facility.gateway_url = "http://gateway:8000"'
        )
        return
    subject = f"Dask Gateway {url}"
    try:
        reply = get(f"{url.rstrip('/')}/api/health", setup.facility.ca or None)
    except OSError as error:
        remedy = "start it, and see its log; or correct Facility.gateway_url"
        yield Finding(subject, State.PROBLEM, f"does not answer: {error}", remedy)
        return
    if reply.status == HTTPStatus.OK and _passes(reply.body):
        yield Finding(subject, State.FINE, "healthy")
    elif reply.status == HTTPStatus.OK:
        remedy = "Facility.gateway_url must lead to a Dask Gateway, with the prefix if it has one"
        yield Finding(subject, State.PROBLEM, "/api/health gives another answer than a gateway's", remedy)
    elif reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        what = f"its proxy answers {reply.status}, so the gateway is down or not healthy"
        yield Finding(subject, State.PROBLEM, what, "start it again; see its log")
    else:
        remedy = "Facility.gateway_url must be what stands before /api/v1, with the prefix if it has one"
        yield Finding(subject, State.PROBLEM, f"/api/health answers {reply.status}", remedy)


def _passes(body: bytes) -> bool:
    """Return whether this is a healthy gateway's answer, and not that of another server, which has a page for all."""
    try:
        return bool(json.loads(body)["status"] == "pass")
    except (ValueError, LookupError, TypeError):
        return False


def batch_system(setup: Setup) -> Iterator[Finding]:
    """Report the partitions of Slurm, if it is configured on this machine."""
    program = shutil.which("sinfo")
    if program is None or not ("SLURM_CONF" in setup.environment or _SLURM.exists()):
        return
    environment = plain_environment(first_on_path=Path(program).parent)  # no token
    environment |= {name: value for name, value in setup.environment.items() if name.startswith("SLURM_")}
    try:
        done = subprocess.run(
            [program, "--noheader", "--format=%R|%a|%D|%t"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=True,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        what = f"sinfo gave no answer within {_SECONDS:g} s"
        yield Finding("Slurm", State.PROBLEM, what, "is slurmctld running, and reachable from here?")
        return
    except subprocess.CalledProcessError as error:
        reason = (str(error.stderr).strip().splitlines() or ["no reason given"])[-1]
        remedy = "is slurmctld running, and munged here and there?"
        yield Finding("Slurm", State.PROBLEM, f"sinfo failed: {reason}", remedy)
        return
    yield from partitions(done.stdout)


def partitions(text: str) -> Iterator[Finding]:
    """Judge what ``sinfo --format=%R|%a|%D|%t`` prints: partition, availability, number of nodes and their state."""
    found: dict[str, list[tuple[int, str]]] = {}
    for line in text.splitlines():
        name, available, nodes, state = (line.split("|") + [""] * 4)[:4]
        if not nodes.isdecimal():
            yield Finding("Slurm", State.PROBLEM, f"sinfo printed {line[:100]!r}", "see what is wrong: run sinfo")
            continue
        found.setdefault(name, []).append((int(nodes), state if available == "up" else f"partition {available}"))
    if not found:
        yield Finding("Slurm", State.PROBLEM, "it has no partition", "see slurm.conf")
    for name, groups in found.items():
        working = sum(nodes for nodes, state in groups if state.startswith(_WORKS) and not state.endswith("*"))
        others = ", ".join(
            f"{nodes} {state}" for nodes, state in groups if not state.startswith(_WORKS) or state.endswith("*")
        )
        subject, what = f"Slurm partition {name}", f"{working} nodes work" + (f"; {others}" if others else "")
        if not working:
            yield Finding(
                subject, State.PROBLEM, what, f"`sinfo -R -p {name}` says why; `scontrol update … state=resume`"
            )
        else:
            yield Finding(subject, State.NOTE if others else State.FINE, what)
