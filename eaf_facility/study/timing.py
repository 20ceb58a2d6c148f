"""Part 1: the time to score a number of jets, with local ONNX Runtime and through Triton; the scores are compared."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_facility.servers.triton import MODELS, TritonServer
from eaf_facility.study.client_process import ClientProcess
from eaf_facility.study.clients import COFFEA, EAF_INFERENCE, ONNXRUNTIME, Job
from eaf_facility.study.outcome import Timing
from eaf_facility.study.particlenet import write_particlenet
from eaf_facility.study.workloads import FULL_PARTICLENET, OUR_PARTICLENET, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_facility.study.clients import Entry
    from eaf_facility.study.outcome import Scale
    from eaf_facility.study.workloads import Workload

__all__ = ["measure"]

_POINTS = 10
_BATCH = 64  # for clients that do not choose by themselves: the best one on a processor
_ENTRIES = (ONNXRUNTIME.using(batch=_BATCH), EAF_INFERENCE, COFFEA.using(batch=_BATCH))


def measure(scale: Scale, url: str | None, *, with_coffea: bool, progress: Callable[[str], None]) -> Iterator[Timing]:
    """Yield the curve of each client on each workload.

    Parameters
    ----------
    url : str or None
        A facility that serves our ParticleNet. None starts a Triton, which also serves the full-size ParticleNet.
    with_coffea : bool
    """
    entries = [each for each in _ENTRIES if not each.missing_package and (with_coffea or each.name != COFFEA.name)]
    with tempfile.TemporaryDirectory(prefix="eaf-inference-study-") as directory:
        place = Path(directory)
        ours = MODELS / "particlenet" / "1" / "model.onnx"
        if url is not None:
            yield from _curves(OUR_PARTICLENET, scale, ours, place, url, progress, entries)
            return
        repositories, files = [MODELS], [(OUR_PARTICLENET, ours)]
        if FULL_PARTICLENET.key in scale.timing_jets:
            repositories.append(place / "models")
            repositories[-1].mkdir()
            files.append((FULL_PARTICLENET, write_particlenet(repositories[-1])))
        with TritonServer.start(repositories, progress=progress) as server:
            for workload, file in files:
                yield from _curves(workload, scale, file, place, server.grpc, progress, entries)


def _curves(
    workload: Workload,
    scale: Scale,
    file: Path,
    directory: Path,
    url: str,
    progress: Callable[[str], None],
    entries: Sequence[Entry],
) -> Iterator[Timing]:
    jets = scale.timing_jets[workload.key]
    # whole batches, because coffea fills up each one
    workload = replace(workload, chunk=_BATCH * -(-jets // (_BATCH * _POINTS)))
    progress(f"timing: reference scores of {workload.title}")
    prepare(workload, jets, file, directory)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ClientProcess(Job(workload, jets, entry, url, str(file), str(directory), _BATCH)))
            for entry in entries
        ]
        # the server allocates memory for the first batches, which must not count against the first client
        for process in processes:
            process.wait_until_ready()
        for entry, process in zip(entries, processes, strict=True):
            progress(f"timing: {jets} jets, {workload.title}, {entry.name}")
            result = process.round()
            points = ((0, 0.0), *((scored, seconds) for scored, seconds in result.points))
            assert result.difference is not None  # noqa: S101  (all of them read their scores)
            yield Timing(workload.key, workload.title, entry.label, points, result.difference)
