"""Parts 2, 3 and 4 on simulated accelerators: many workers, several models, and the prediction."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_facility.study.edge_proxy import edge_proxy
from eaf_facility.study.formatting import plural, tritons
from eaf_facility.study.outcome import (
    AFFINITY,
    AFFINITY_WITHOUT_SPILL,
    ALONE,
    BLOCKING,
    LEAST_BUSY,
    LEAST_REQUEST,
    ONE_EACH,
    PIPELINED,
    QUEUE_LIMIT,
    TOGETHER,
    Mixture,
    Predicted,
    Scaled,
)
from eaf_facility.study.server_counts import read_counts
from eaf_facility.study.server_metrics import recorded_snapshots
from eaf_facility.study.simulated_servers import ACCELERATOR, SWITCHING_MODELS, simulated_tritons
from eaf_facility.study.simulated_workers import LoadResult, WorkerGroup, run_workers
from eaf_inference.metrics.average import averaged
from eaf_inference.metrics.capacity import Capacity
from eaf_inference.metrics.triton import TritonMetrics
from eaf_inference.metrics.verdict import advise
from eaf_inference.metrics.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_facility.servers.triton import TritonServer
    from eaf_facility.study.accelerator import SimulatedAccelerator
    from eaf_facility.study.outcome import Scale
    from eaf_facility.study.simulated_workers import EdgeProxy
    from eaf_inference.metrics.snapshot import Snapshot

__all__ = ["DESCRIPTION", "predict", "prediction", "several_models", "with_workers"]

PREPARATION = 0.05  # seconds that a simulated worker takes to prepare a request
SERVICE = ACCELERATOR.seconds(ACCELERATOR.batch)
DESCRIPTION = (
    f"What was simulated: accelerators, which take {1e3 * SERVICE:.3g} ms for a request of {ACCELERATOR.batch} jets "
    "and compute nothing, and workers, which are asynchronous clients in one process and take "
    f"{1e3 * PREPARATION:.3g} ms to prepare a request. Requests go to the least busy Triton, as with a load "
    "balancer. With several models they go through Envoy, if it is installed, and switching between models costs an "
    f"accelerator {1e3 * SWITCHING_MODELS[0].switch:.3g} ms."
)
_SETTLING = 2  # snapshots
_FEW = 2  # workers in the load that the capacity is predicted from
_WORKERS = 16  # for each Triton, with several models
_BY_ENVOY: dict[str, dict[str, Any]] = {
    # case → settings of the section `Envoy`
    LEAST_REQUEST: {},
    AFFINITY: {"affinity": True},
    AFFINITY_WITHOUT_SPILL: {"affinity": True, "spill": 10.0},
}


def with_workers(scale: Scale, *, progress: Callable[[str], None]) -> Iterator[Scaled]:
    """Part 2: measure each client with each number of Tritons and workers."""
    most = max(scale.simulated_replicas)
    points = list(product(scale.simulated_replicas, scale.simulated_workers, (PIPELINED, BLOCKING)))
    with _tritons(most, [ACCELERATOR], progress) as servers:
        for number, (replicas, workers, client) in enumerate(points, 1):
            load = f"{plural(workers, 'simulated worker')}, {tritons(replicas, simulated=True)}"
            progress(f"workers, {number} of {len(points)}: {client}, {load}")
            group = _group(client, workers)
            yield _scaled(group, replicas, _measure(servers[:replicas], group, scale.seconds))


def _group(client: str, workers: int) -> WorkerGroup:
    return WorkerGroup(client, workers, (ACCELERATOR.name,), ACCELERATOR.batch, PREPARATION, SERVICE)


@contextmanager
def _tritons(
    count: int, models: Sequence[SimulatedAccelerator], progress: Callable[[str], None]
) -> Iterator[Sequence[TritonServer]]:
    with (
        tempfile.TemporaryDirectory(prefix="eaf-inference-study-") as directory,
        simulated_tritons(count, Path(directory) / "models", models, progress=progress) as servers,
    ):
        yield servers


def _measure(
    servers: Sequence[TritonServer], group: WorkerGroup, seconds: float, proxy: EdgeProxy | None = None
) -> LoadResult:
    addresses = [server.grpc.partition("://")[2] for server in servers]
    return run_workers(addresses, group, seconds, lambda: read_counts(addresses, group.models), proxy)


def _scaled(group: WorkerGroup, replicas: int, load: LoadResult) -> Scaled:
    return Scaled(
        client=group.client,
        replicas=replicas,
        workers=group.workers,
        simulated=True,
        inferences_per_second=load.served.rows / load.seconds,
        requests_per_second=load.served.requests / load.seconds,
        queue=load.served.mean_queue,
        p50=load.percentile(50),
        p99=load.percentile(99),
        window=load.window,
    )


def several_models(scale: Scale, *, envoy: bool, progress: Callable[[str], None]) -> Iterator[Mixture]:
    """Part 3: measure one model and several on one Triton, then several on as many Tritons.

    Parameters
    ----------
    envoy : bool
        Whether Envoy is installed and chooses a Triton for each request. Otherwise the simulated workers choose.
    """
    service = SWITCHING_MODELS[0].seconds(SWITCHING_MODELS[0].batch)
    cases = [ALONE, TOGETHER, *(_BY_ENVOY if envoy else [LEAST_BUSY]), ONE_EACH]
    with _tritons(len(SWITCHING_MODELS), SWITCHING_MODELS, progress) as servers:
        for number, title in enumerate(cases, 1):
            progress(f"models, {number} of {len(cases)}: {title}")
            models = tuple(model.name for model in (SWITCHING_MODELS[:1] if title == ALONE else SWITCHING_MODELS))
            used = servers[:1] if title in (ALONE, TOGETHER) else servers
            # no preparation time, so that the servers alone limit the rate
            group = WorkerGroup(
                PIPELINED,
                _WORKERS * len(used),
                models,
                SWITCHING_MODELS[0].batch,
                preparation=0.0,
                service=service,
                by_affinity=title == ONE_EACH,
            )
            settings = _BY_ENVOY.get(title)
            running = nullcontext() if settings is None else edge_proxy(used, settings, progress=progress)
            with running as proxy:
                load = _measure(used, group, scale.seconds, proxy)
            yield Mixture(
                title,
                len(models),
                len(used),
                replicas_used=load.served.servers,
                requests_per_second=load.served.requests / load.seconds,
                queue=load.served.mean_queue,
                locality=load.served.locality,
            )


def predict(scale: Scale, *, progress: Callable[[str], None]) -> Predicted | None:
    """Part 4: predict many workers from a short load by a few; return None if its metrics are not enough."""
    with _tritons(1, [ACCELERATOR], progress) as servers:
        progress(f"capacity: {scale.capacity_seconds:.0f} s with {plural(_FEW, 'worker')}")
        group = _group(BLOCKING, _FEW)
        with recorded_snapshots([TritonMetrics(server.metrics) for server in servers]) as snapshots:
            _measure(servers, group, scale.capacity_seconds)
    # the first snapshots are from before the load, the last one may be from after it
    return prediction(snapshots[_SETTLING:-1], _FEW, PREPARATION, scale.simulated_workers)


def prediction(snapshots: Sequence[Snapshot], workers: int, think: float, counts: Sequence[int]) -> Predicted | None:
    """Predict other numbers of blocking workers from the snapshots of a load.

    Parameters
    ----------
    workers : int
        Workers in that load.
    think : float
        Seconds that a worker takes to prepare a request.
    counts : sequence of int
        Numbers of workers to predict.
    """
    average = averaged(snapshots)
    capacity = Capacity.measured(average)
    if capacity is None:
        return None
    points = []
    for count in counts:
        expected = capacity.predict(count, think=think)
        points.append((count, expected.requests_per_second, expected.queue))
    return Predicted(
        measured_with=workers,
        utilization=capacity.utilization,
        service=capacity.service,
        limit=capacity.limit,
        points=tuple(points),
        workers=capacity.in_flight_until(QUEUE_LIMIT, think=think),
        advice=str(advise(snapshots, workers=Workers(workers, capacity.inferences_per_second)) or ""),
    )
