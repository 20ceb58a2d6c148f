"""coffea's ``triton_wrapper``, the way of the facilities' users today."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from coffea.ml_tools.triton_wrapper import triton_wrapper

from eaf_inference.bench.workloads import padded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eaf_inference.bench.contenders import Entry, Notes, Service
    from eaf_inference.bench.workloads import Data, Workload
    from eaf_inference.inference.recipe import Recipe

__all__ = ["Contestant", "Wrapper"]


class Wrapper(triton_wrapper):  # type: ignore[misc]  # coffea has no types
    """Notes each request; pads jagged jets to the model's greatest length, as it asks its users to."""

    notes: Notes
    recipe: Recipe | None = None

    def prepare_awkward(self, output_list: list[str], records: Any) -> tuple[list[Any], dict[str, Any]]:
        assert self.recipe is not None  # noqa: S101
        return [output_list, padded(records, self.recipe)], {}

    def run_infer(self, inputs: Any, outputs: Any, attempt: int = 0) -> Any:
        began = time.monotonic()
        reply = super().run_infer(inputs, outputs, attempt)
        sent = sum(len(each._get_content() or b"") for each in inputs)  # noqa: SLF001  (it has no public name)
        self.notes.request(time.monotonic() - began, sent)
        return reply


class Contestant:
    """coffea with one size of its batches."""

    def __init__(self, service: Service, workload: Workload, entry: Entry) -> None:
        url = f"triton+grpc://{service.address}/{workload.model}/1"
        self._output = workload.output
        self._wrapper = Wrapper(url, client_args={"ssl": False}, batch_size=entry.batch or -1)

    def run(self, data: Data, notes: Notes) -> Iterator[NDArray[Any]]:
        self._wrapper.notes, self._wrapper.recipe = notes, data.recipe
        for chunk in data.chunks():
            given = chunk.dense if chunk.records is None else chunk.records
            scores = self._wrapper([self._output], given)[self._output]
            yield scores if chunk.records is None else scores.to_numpy()
