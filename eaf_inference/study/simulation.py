"""Parts 2, 3 and 4 on simulated accelerators: any number of workers, several models, and what was to be expected."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eaf_inference.metrics.advice import Workers
from eaf_inference.metrics.average import averaged
from eaf_inference.metrics.capacity import Capacity
from eaf_inference.metrics.triton import TritonMetrics
from eaf_inference.metrics.verdict import advise
from eaf_inference.study.door import door
from eaf_inference.study.load import Crowd, Load, run
from eaf_inference.study.outcome import (
    AFFINITY,
    ALONE,
    APART,
    BLOCKING,
    LEAST_BUSY,
    LEAST_REQUEST,
    PIPELINED,
    QUEUE_LIMIT,
    TOGETHER,
    UNSPILT,
    Mixture,
    Predicted,
    Scaled,
)
from eaf_inference.study.servers import ACCELERATOR, MIXED, counted, simulated_tritons
from eaf_inference.study.watching import watched
from eaf_inference.study.words import plural, tritons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_inference.bench.models import Simulated
    from eaf_inference.facility.triton import TritonServer
    from eaf_inference.metrics.snapshot import Snapshot
    from eaf_inference.study.load import Door
    from eaf_inference.study.outcome import Scale

__all__ = ["DESCRIPTION", "predict", "prediction", "several_models", "with_workers"]

PREPARING = 0.05  # seconds that a simulated worker takes to prepare a request
SERVICE = ACCELERATOR.seconds(ACCELERATOR.batch)
DESCRIPTION = (
    f"What was simulated: accelerators, which take {1e3 * SERVICE:.3g} ms for a request of {ACCELERATOR.batch} jets "
    "and compute nothing, and workers, asynchronous clients in one process, which take "
    f"{1e3 * PREPARING:.3g} ms to prepare a request. Requests go to the least busy Triton, as with a load balancer; "
    "those of several models go through Envoy where it is installed. A change of models costs an accelerator "
    f"{1e3 * MIXED[0].switch:.3g} ms."
)
_SETTLING = 2  # snapshots
_FEW = 2  # workers while the capacity is measured
_CROWD = 16  # workers an instance, of several models
_BY_ENVOY: dict[str, dict[str, Any]] = {
    # case → settings of the section `Envoy`
    LEAST_REQUEST: {},
    AFFINITY: {"affinity": True},
    UNSPILT: {"affinity": True, "spill": 10.0},
}


def with_workers(scale: Scale, *, progress: Callable[[str], None]) -> Iterator[Scaled]:
    """Part 2: each client, number of instances and number of workers."""
    most = max(scale.simulated_instances)
    points = list(product(scale.simulated_instances, scale.simulated_workers, (PIPELINED, BLOCKING)))
    with _tritons(most, [ACCELERATOR], progress) as servers:
        for number, (instances, workers, client) in enumerate(points, 1):
            load = f"{plural(workers, 'simulated worker')}, {tritons(instances, simulated=True)}"
            progress(f"workers, {number} of {len(points)}: {client}, {load}")
            crowd = _crowd(client, workers)
            yield _scaled(crowd, instances, _measure(servers[:instances], crowd, scale.seconds))


def _crowd(client: str, workers: int) -> Crowd:
    return Crowd(client, workers, (ACCELERATOR.name,), ACCELERATOR.batch, PREPARING, SERVICE)


@contextmanager
def _tritons(
    count: int, models: Sequence[Simulated], progress: Callable[[str], None]
) -> Iterator[Sequence[TritonServer]]:
    with (
        tempfile.TemporaryDirectory(prefix="eaf-inference-study-") as directory,
        simulated_tritons(count, Path(directory) / "models", models, progress=progress) as servers,
    ):
        yield servers


def _measure(servers: Sequence[TritonServer], crowd: Crowd, seconds: float, through: Door | None = None) -> Load:
    addresses = [server.grpc.partition("://")[2] for server in servers]
    return run(addresses, crowd, seconds, lambda: counted(addresses, crowd.models), through)


def _scaled(crowd: Crowd, instances: int, load: Load) -> Scaled:
    return Scaled(
        client=crowd.client,
        instances=instances,
        workers=crowd.workers,
        simulated=True,
        inferences_per_second=load.served.rows / load.seconds,
        requests_per_second=load.served.requests / load.seconds,
        queue=load.served.queue / max(load.served.requests, 1),
        p50=load.percentile(50),
        p99=load.percentile(99),
        window=load.window,
    )


def several_models(scale: Scale, *, envoy: bool, progress: Callable[[str], None]) -> Iterator[Mixture]:
    """Part 3: one model and several on one instance; several on as many, however their requests find one.

    Parameters
    ----------
    envoy : bool
        Whether there is one, which chooses; without, the load itself does.
    """
    service = MIXED[0].seconds(MIXED[0].batch)
    cases = [ALONE, TOGETHER, *(_BY_ENVOY if envoy else [LEAST_BUSY]), APART]
    with _tritons(len(MIXED), MIXED, progress) as servers:
        for number, title in enumerate(cases, 1):
            progress(f"models, {number} of {len(cases)}: {title}")
            models = tuple(model.name for model in (MIXED[:1] if title == ALONE else MIXED))
            used = servers[:1] if title in (ALONE, TOGETHER) else servers
            # each worker has a request prepared: what is measured is the servers
            crowd = Crowd(
                PIPELINED, _CROWD * len(used), models, MIXED[0].batch, 0.0, service, by_affinity=title == APART
            )
            settings = _BY_ENVOY.get(title)
            before = nullcontext() if settings is None else door(used, settings, progress=progress)
            with before as through:
                load = _measure(used, crowd, scale.seconds, through)
            yield Mixture(
                title,
                len(models),
                len(used),
                used=load.served.servers,
                requests_per_second=load.served.requests / load.seconds,
                queue=load.served.queue / max(load.served.requests, 1),
                met=load.served.met,
            )


def predict(scale: Scale, *, progress: Callable[[str], None]) -> Predicted | None:
    """Part 4: predict many workers from a short load of few; None where its metrics are not enough."""
    with _tritons(1, [ACCELERATOR], progress) as servers:
        progress(f"capacity: {scale.minute:.0f} s with {plural(_FEW, 'worker')}")
        crowd = _crowd(BLOCKING, _FEW)
        with watched([TritonMetrics(server.metrics) for server in servers]) as snapshots:
            _measure(servers, crowd, scale.minute)
    # the first ones are of the beginning, the last one may be of the end
    return prediction(snapshots[_SETTLING:-1], _FEW, PREPARING, scale.simulated_workers)


def prediction(snapshots: Sequence[Snapshot], workers: int, think: float, counts: Sequence[int]) -> Predicted | None:
    """Predict other numbers of blocking workers from the snapshots of a load of some."""
    minute = averaged(snapshots)
    capacity = Capacity.measured(minute)
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
