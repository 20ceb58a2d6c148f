"""Part 1: the time for so many jets, by local ONNX Runtime and through Triton, scores compared."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eaf_inference.bench.contenders import Entry, lacks
from eaf_inference.bench.contestant import Job
from eaf_inference.bench.measuring import Contestant
from eaf_inference.bench.models import write_full_particlenet
from eaf_inference.bench.workloads import WORKLOADS, prepare
from eaf_inference.facility.triton import MODELS, TritonServer
from eaf_inference.study.outcome import BLOCKING, PIPELINED, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_inference.study.outcome import Scale

__all__ = ["measure"]

_POINTS = 10
_BATCH = 64  # of those that have to choose: the best one on a processor
_ENTRIES = (Entry("local ONNX Runtime", batch=_BATCH), Entry(PIPELINED), Entry(BLOCKING, batch=_BATCH))


def measure(scale: Scale, url: str | None, *, with_coffea: bool, progress: Callable[[str], None]) -> Iterator[Timing]:
    """Each workload's curves, one after the other.

    Parameters
    ----------
    url : str or None
        A facility that serves our ParticleNet; by default a Triton is started, which serves the study's as well.
    with_coffea : bool
    """
    entries = [each for each in _ENTRIES if not lacks(each.name) and (with_coffea or each.name != BLOCKING)]
    with tempfile.TemporaryDirectory(prefix="eaf-inference-study-") as directory:
        place = Path(directory)
        files = {"b": MODELS / "particlenet" / "1" / "model.onnx"}
        if url is not None:
            yield from _curves("b", scale, files["b"], place, url, progress, entries)
            return
        repositories = [MODELS]
        if "c" in scale.timing_jets:
            repositories.append(place / "models")
            repositories[-1].mkdir()
            files["c"] = write_full_particlenet(repositories[-1])
        with TritonServer.start(repositories, progress=progress) as server:
            for key, file in files.items():
                yield from _curves(key, scale, file, place, server.grpc, progress, entries)


def _curves(
    key: str,
    scale: Scale,
    file: Path,
    directory: Path,
    url: str,
    progress: Callable[[str], None],
    entries: Sequence[Entry],
) -> Iterator[Timing]:
    jets = scale.timing_jets[key]
    chunk = _BATCH * -(-jets // (_BATCH * _POINTS))  # whole batches: coffea fills each up
    workload = WORKLOADS[key]
    progress(f"timing: reference scores of {workload.title}")
    prepare(replace(workload, chunk=chunk), jets, file, directory)
    with ExitStack() as stack:
        contestants = [
            stack.enter_context(Contestant(Job(key, jets, entry, url, str(file), str(directory), _BATCH, chunk)))
            for entry in entries
        ]
        # the server gets its memory at the first batches: whose turn is first must not pay for that
        for contestant in contestants:
            contestant.wait_until_ready()
        for entry, contestant in zip(entries, contestants, strict=True):
            progress(f"timing: {jets} jets, {workload.title}, {entry.name}")
            seen = contestant.round()
            points = ((0, 0.0), *((scored, seconds) for scored, seconds in seen.points))
            assert seen.difference is not None  # noqa: S101  (all of them read their scores)
            yield Timing(key, workload.title, entry.label, points, seen.difference)
