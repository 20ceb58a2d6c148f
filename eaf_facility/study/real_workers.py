"""Part 2 with real workers: processes of a Dask Gateway that score files of jets on real Tritons."""

from __future__ import annotations

import functools
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from eaf_facility.local.single_user import up
from eaf_facility.study.formatting import plural
from eaf_facility.study.outcome import BLOCKING, PIPELINED, Scaled
from eaf_facility.study.server_metrics import server_load
from eaf_facility.study.workloads import numbers_of, recipe_of, sample
from eaf_inference.errors import BadReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from distributed import Client

    from eaf_facility.study.outcome import Scale, Site

__all__ = ["measure"]

_MODEL = "particlenet"
_BATCH = 64  # rows in coffea's requests: the best batch size on a processor
_kept: list[Any] = []  # dask-gateway 2026.3: a closed gateway prints an error if it is collected before the exit
_TIMEOUT = 120.0  # seconds for workers to start


def measure(
    scale: Scale, directory: Path, site: Site, *, tritonclient: Path | None, progress: Callable[[str], None]
) -> Iterator[Scaled]:
    """Measure the throughput and queue time of each client with each number of Tritons and workers.

    On this machine, this starts the Tritons and a Dask Gateway, and workers read files in `directory`. A facility's
    workers may not see these files, so they get the jets themselves.

    Parameters
    ----------
    tritonclient : Path or None
        The directory of tritonclient for coffea's wrapper (see `client_packages`); None leaves coffea out.
    """
    clients = {PIPELINED: _by_submission}
    if tritonclient is not None:
        clients[BLOCKING] = functools.partial(_by_wrapper, str(tritonclient))
    with ExitStack() as stack:
        if site.url is None:
            facility = stack.enter_context(up(replicas=max(scale.local_replicas), progress=progress))
            urls: Sequence[str] = facility.description.urls
            choices: list[Sequence[str]] = [urls[:count] for count in scale.local_replicas]
            chunks: Sequence[Any] = write_files(directory, scale)
        else:
            choices = [[site.url]]
            chunks = [_jets(scale.file_jets)] * _most_chunks(scale)
        connections = [stack.enter_context(eaf_inference.connect(choice)) for choice in choices]
        cluster, client = _cluster(stack, site.gateway)
        total, number = len(scale.local_workers) * len(choices) * len(clients), 0
        for workers in scale.local_workers:
            progress(f"workers: waiting for {plural(workers, 'real worker')}")
            cluster.scale(workers)
            client.wait_for_workers(workers, timeout=_TIMEOUT)
            for choice, connection in zip(choices, connections, strict=True):
                connection.configure(client)
                wanted = chunks[: workers * scale.files_per_worker]
                for name, work in clients.items():
                    number += 1
                    setting = f"{plural(workers, 'real worker')}, {plural(len(choice), 'Triton')}"
                    progress(f"workers, {number} of {total}: {name}, {setting}")
                    with server_load(site, choice, _MODEL) as load:
                        began = time.monotonic()
                        jets = work(connection, client, wanted, choice)
                        seconds = time.monotonic() - began
                    yield Scaled(
                        client=name,
                        replicas=load.replicas,
                        workers=workers,
                        simulated=False,
                        inferences_per_second=jets / seconds,
                        requests_per_second=load.requests_per_second,
                        queue=load.queue,
                    )


def _most_chunks(scale: Scale) -> int:
    return max(scale.local_workers) * scale.files_per_worker


def _jets(count: int) -> ak.Array:
    """Return this number of jets, repeating the sample if necessary."""
    jets = sample(count)
    return ak.to_packed(ak.concatenate([jets] * -(-count // len(jets)))[:count])


def write_files(directory: Path, scale: Scale) -> list[Path]:
    """Write Parquet files of the recipe's variables with `Scale.file_jets` jets each."""
    content = _jets(scale.file_jets)
    files = [directory / f"jets-{number}.parquet" for number in range(_most_chunks(scale))]
    for file in files:
        ak.to_parquet(content, file)
    return files


def _cluster(stack: ExitStack, address: str | None) -> tuple[Any, Client]:
    from dask_gateway import Gateway

    gateway = stack.enter_context(Gateway(address) if address else Gateway())
    cluster = stack.enter_context(gateway.new_cluster())
    _kept.extend((gateway, cluster.gateway))
    return cluster, stack.enter_context(cluster.get_client())


def _by_submission(connection: Any, client: Client, chunks: Sequence[Any], urls: Sequence[str]) -> int:  # noqa: ARG001
    model = connection.model(_MODEL)
    jets = 0
    for scores in connection.submit(model, chunks, client=client, progress=False):
        _check(numbers_of(scores))
        jets += len(scores)
    return jets


def _by_wrapper(
    tritonclient: str,
    connection: Any,  # noqa: ARG001
    client: Client,
    chunks: Sequence[Any],
    urls: Sequence[str],
) -> int:
    futures = [
        client.submit(
            score_with_coffea, str(file.absolute()), urls[number % len(urls)], tritonclient, pure=False, retries=2
        )
        for number, file in enumerate(chunks)
    ]
    jets = 0
    for future in futures:
        scores = future.result()
        _check(scores)
        jets += len(scores)
    return jets


def score_with_coffea(file: str, url: str, tritonclient: str) -> Any:
    """Score a file on a worker with coffea, as its users do."""
    if tritonclient not in sys.path:
        sys.path.append(tritonclient)
    from eaf_facility.study.clients import RequestLog
    from eaf_facility.study.clients.coffea_wrapper import Wrapper

    wrapper = Wrapper(f"triton+{url}/{_MODEL}/1", client_args={"ssl": False}, batch_size=_BATCH)
    wrapper.log, wrapper.recipe = RequestLog(), recipe_of(_MODEL)
    return wrapper(["softmax"], ak.from_parquet(file))["softmax"].to_numpy()


def _check(scores: Any) -> None:
    """Check that scores are probabilities of two classes; part 1 compares each with its expected value."""
    if not np.allclose(np.sum(scores, axis=-1), 1.0, atol=1e-5):
        raise BadReply("The scores of a jet do not add up to 1. Expected probabilities of two classes.")
