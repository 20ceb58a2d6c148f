"""Part 1: the time for so many jets, by local ONNX Runtime and through Triton, scores compared."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eaf_inference.bench.contenders import Entry, Notes, Service, make
from eaf_inference.bench.models import write_full_particlenet
from eaf_inference.bench.workloads import TOLERANCE, WORKLOADS, Data, prepare
from eaf_inference.errors import BadReply
from eaf_inference.facility.triton import MODELS, TritonServer
from eaf_inference.study.outcome import BLOCKING, PIPELINED, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_inference.bench.workloads import Workload
    from eaf_inference.study.outcome import Scale

__all__ = ["measure"]

_POINTS = 10
_BATCH = 64  # of those that have to choose: the best one on a processor
_ENTRIES = (Entry("local ONNX Runtime", batch=_BATCH), Entry(PIPELINED), Entry(BLOCKING, batch=_BATCH))


def measure(scale: Scale, url: str | None, *, progress: Callable[[str], None]) -> Iterator[Timing]:
    """Each workload's curves, one after the other.

    Parameters
    ----------
    url : str or None
        A facility that serves our ParticleNet; by default a Triton is started, which serves the study's as well.
    """
    with tempfile.TemporaryDirectory(prefix="eaf-inference-study-") as directory:
        place = Path(directory)
        files = {"b": MODELS / "particlenet" / "1" / "model.onnx"}
        if url is not None:
            # coffea's wrapper has no token
            yield from _curves("b", scale, files["b"], place, url, progress, _ENTRIES[:2])
            return
        (place / "models").mkdir()
        files["c"] = write_full_particlenet(place / "models")
        with TritonServer.start([MODELS, place / "models"], progress=progress) as server:
            for key, file in files.items():
                yield from _curves(key, scale, file, place, server.grpc, progress)


def _curves(
    key: str,
    scale: Scale,
    file: Path,
    directory: Path,
    url: str,
    progress: Callable[[str], None],
    entries: Sequence[Entry] = _ENTRIES,
) -> Iterator[Timing]:
    jets = scale.timing_jets[key]
    chunk = _BATCH * -(-jets // (_BATCH * _POINTS))  # whole batches: coffea fills each up
    workload = replace(WORKLOADS[key], chunk=chunk)
    progress(f"timing: reference scores of {workload.title}")
    prepare(workload, jets, file, directory)
    data = Data(workload, jets, directory)
    service = Service(url, file)
    # the server gets its memory at the first batches: whose turn is first must not pay for that
    _curve(workload, Data(workload, min(jets, chunk), directory), service, entries[-1])
    for entry in entries:
        progress(f"timing: {jets} jets, {workload.title}, {entry.name}")
        yield _curve(workload, data, service, entry)


def _curve(workload: Workload, data: Data, service: Service, entry: Entry) -> Timing:
    contender = make(service, workload, entry)
    points, difference, jets = [(0, 0.0)], 0.0, 0
    began = time.monotonic()
    for scores, chunk in zip(contender.run(data, Notes()) or (), data.chunks(), strict=True):
        jets += len(scores)
        points.append((jets, time.monotonic() - began))
        difference = max(difference, float(np.abs(scores - chunk.right).max()))
    if not difference <= TOLERANCE:
        raise BadReply(f"{entry.name}: a score of {workload.title} differs by {difference:.2g} from ONNX Runtime's.")
    return Timing(workload.key, workload.title, entry.label, tuple(points), difference)
