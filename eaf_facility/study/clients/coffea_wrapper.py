"""coffea's ``triton_wrapper``, which users of the facilities use today."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from coffea.ml_tools.triton_wrapper import triton_wrapper

from eaf_facility.study.workloads import padded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_facility.study.clients import Job, RequestLog
    from eaf_facility.study.workloads import Data
    from eaf_inference.inference.recipe import Recipe

__all__ = ["Client", "Wrapper"]


class Wrapper(triton_wrapper):  # type: ignore[misc]  # coffea has no types
    """A wrapper that logs each request and pads jets to the model's maximum length, as coffea asks its users to."""

    log: RequestLog
    recipe: Recipe | None = None

    def prepare_awkward(self, output_list: list[str], records: Any) -> tuple[list[Any], dict[str, Any]]:
        assert self.recipe is not None  # noqa: S101
        return [output_list, padded(records, self.recipe)], {}

    def run_infer(self, inputs: Any, outputs: Any, attempt: int = 0) -> Any:
        began = time.monotonic()
        reply = super().run_infer(inputs, outputs, attempt)
        sent = sum(len(each._get_content() or b"") for each in inputs)  # noqa: SLF001  (it has no public name)
        self.log.add(time.monotonic() - began, sent)
        return reply


class Client:
    """coffea with one batch size."""

    def __init__(self, job: Job) -> None:
        url = f"triton+grpc://{job.address}/{job.workload.model}/1"
        self._output = job.workload.output
        self._wrapper = Wrapper(url, client_args={"ssl": False}, batch_size=job.entry.batch or -1)

    def run(self, data: Data, log: RequestLog) -> Iterator[NDArray[Any]]:
        self._wrapper.log, self._wrapper.recipe = log, data.recipe
        for chunk in data.chunks():
            jets = chunk.dense if chunk.records is None else chunk.records
            scores = self._wrapper([self._output], jets)[self._output]
            yield scores if chunk.records is None else scores.to_numpy()
