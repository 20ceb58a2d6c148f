"""Tritons with simulated accelerators, one process an instance, and what they count."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from eaf_inference.bench.models import Simulated
from eaf_inference.facility.calls import ask_triton
from eaf_inference.facility.environment import make_installation
from eaf_inference.facility.triton import TritonServer
from eaf_inference.inference import protocol
from eaf_inference.inference.pipeline import Question
from eaf_inference.study.load import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["ACCELERATOR", "MIXED", "counted", "simulated_tritons"]

# 100 requests/s an instance: a small part of it are the processor's own tasks, even with four on two cores
ACCELERATOR = Simulated(request=8e-3, cell=2e-3 / 1600, batch=16, instances=1)
# models that do not fit together: with every request for another one, an instance serves a fifth
MIXED = tuple(
    Simulated(request=8e-3, cell=2e-3 / 1600, switch=40e-3, batch=16, instances=1, name=f"simulated_{number}")
    for number in range(4)
)


@contextmanager
def simulated_tritons(
    count: int, repository: Path, models: Iterable[Simulated], *, progress: Callable[[str], None]
) -> Iterator[tuple[TritonServer, ...]]:
    """So many Tritons for the length of a `with` block, each with one simulated accelerator for all the models."""
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


def counted(addresses: Sequence[str], models: Sequence[str]) -> Served:
    """What these Tritons have counted of the models since they were started."""
    question = Question("ModelStatistics", protocol.ModelStatisticsRequest())
    placed: Counter[tuple[str, str]] = Counter()
    rows = queue = 0.0
    for address in addresses:
        [statistics] = ask_triton(f"grpc://{address}", question)
        for each in statistics.model_stats:
            if each.name in models:
                placed[each.name, address] += each.inference_stats.success.count
                rows += each.inference_count
                queue += each.inference_stats.queue.ns / 1e9
    return Served(placed, rows, queue)
