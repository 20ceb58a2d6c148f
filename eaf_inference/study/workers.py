"""Part 2 with real workers: processes of a Dask Gateway, files of jets, real Tritons with a real network."""

from __future__ import annotations

import functools
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

import eaf_inference
from eaf_inference.bench.workloads import recipe_of, sample
from eaf_inference.errors import BadReply
from eaf_inference.facility.machine import up
from eaf_inference.study.outcome import BLOCKING, PIPELINED, Scaled
from eaf_inference.study.watching import observing
from eaf_inference.study.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from distributed import Client

    from eaf_inference.study.outcome import Scale, Site

__all__ = ["measure"]

_MODEL = "particlenet"
_BATCH = 64  # of coffea's requests: its best one on a processor
_kept: list[Any] = []  # dask-gateway 2026.3: one that was closed complains when it is collected, not at the end
_PATIENCE = 120.0  # seconds for workers to come


def measure(
    scale: Scale, directory: Path, site: Site, *, tritonclient: Path | None, progress: Callable[[str], None]
) -> Iterator[Scaled]:
    """Throughput and queue of each client, number of Tritons and number of workers.

    On this machine the Tritons and a Dask Gateway are started, and workers read files in `directory`. On a facility,
    whose workers may not see them, the jets travel.

    Parameters
    ----------
    tritonclient : Path or None
        Where coffea's wrapper finds it, see `contender_packages`; without, that is not measured.
    """
    clients = {PIPELINED: _by_submission}
    if tritonclient is not None:
        clients[BLOCKING] = functools.partial(_by_wrapper, str(tritonclient))
    with ExitStack() as stack:
        if site.url is None:
            facility = stack.enter_context(up(replicas=max(scale.local_instances), progress=progress))
            urls: Sequence[str] = facility.description.urls
            choices: list[Sequence[str]] = [urls[:count] for count in scale.local_instances]
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
            client.wait_for_workers(workers, timeout=_PATIENCE)
            for choice, connection in zip(choices, connections, strict=True):
                connection.configure(client)
                wanted = chunks[: workers * scale.files_a_worker]
                for name, work in clients.items():
                    number += 1
                    load = f"{plural(workers, 'real worker')}, {plural(len(choice), 'Triton')}"
                    progress(f"workers, {number} of {total}: {name}, {load}")
                    with observing(site, choice, _MODEL) as observed:
                        began = time.monotonic()
                        jets = work(connection, client, wanted, choice)
                        seconds = time.monotonic() - began
                    yield Scaled(
                        client=name,
                        instances=observed.instances,
                        workers=workers,
                        simulated=False,
                        inferences_per_second=jets / seconds,
                        requests_per_second=observed.requests_per_second,
                        queue=observed.queue,
                    )


def _most_chunks(scale: Scale) -> int:
    return max(scale.local_workers) * scale.files_a_worker


def _jets(count: int) -> ak.Array:
    """So many: the sample's, again and again."""
    jets = sample(count)
    return ak.to_packed(ak.concatenate([jets] * -(-count // len(jets)))[:count])


def write_files(directory: Path, scale: Scale) -> list[Path]:
    """Parquet files of the recipe's variables, with the right number of jets each."""
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
        _check(np.stack([ak.to_numpy(scores[name]) for name in scores.fields], axis=-1))
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
    """On a worker: what coffea's users run there."""
    if tritonclient not in sys.path:
        sys.path.append(tritonclient)
    from eaf_inference.bench.contenders import Notes
    from eaf_inference.bench.contenders.coffea_wrapper import Wrapper

    wrapper = Wrapper(f"triton+{url}/{_MODEL}/1", client_args={"ssl": False}, batch_size=_BATCH)
    wrapper.notes, wrapper.recipe = Notes(), recipe_of(_MODEL)
    return wrapper(["softmax"], ak.from_parquet(file))["softmax"].to_numpy()


def _check(scores: Any) -> None:
    """Probabilities of two classes; part 1 compares each with its right value."""
    if not np.allclose(np.sum(scores, axis=-1), 1.0, atol=1e-5):
        raise BadReply("The scores are not probabilities: those of a jet do not add up to 1.")
