"""Tritons with simulated accelerators, one process for each."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from eaf_facility.servers.triton import TritonServer
from eaf_facility.servers.triton_environment import make_installation
from eaf_facility.study.accelerator import SimulatedAccelerator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["ACCELERATOR", "SWITCHING_MODELS", "simulated_tritons"]

# 100 requests/s for each Triton: even with four on two cores, the processor's own work is a small part of that
ACCELERATOR = SimulatedAccelerator(request=8e-3, cell=2e-3 / 1600, batch=16, instances=1)
# Models that do not fit into memory together. If each request is for another model than the one before, a Triton
# serves a fifth of the requests.
SWITCHING_MODELS = tuple(replace(ACCELERATOR, switch=40e-3, name=f"simulated_{number}") for number in range(4))


@contextmanager
def simulated_tritons(
    count: int, repository: Path, models: Iterable[SimulatedAccelerator], *, progress: Callable[[str], None]
) -> Iterator[tuple[TritonServer, ...]]:
    """Run Tritons for the length of a `with` block, each with one simulated accelerator that its models share."""
    repository.mkdir()
    for model in models:
        model.write(repository)
    installation = make_installation(progress=progress)
    servers = tuple(
        TritonServer([repository], installation=installation, name=f"simulated-{number}") for number in range(count)
    )
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
        for server in servers:
            stack.callback(server.ask_to_stop)
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_until_ready(progress=progress)
        yield servers
