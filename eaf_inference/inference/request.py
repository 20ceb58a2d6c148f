"""A batch as the pipeline sends it: the request's header encoded, the tensors framed behind it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference.inference.outputs import read_outputs
from eaf_inference.inference.transport import frame_request

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eaf_inference.credentials import Token
    from eaf_inference.inference.batching import Batch
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Server

__all__ = ["Inference"]


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """One batch as a request of the pipeline."""

    spec: ModelSpec
    batch: Batch

    @property
    def subject(self) -> str:
        batch = self.batch
        empty = [
            repr(each.spec.name)
            for length, collection in zip(batch.lengths, batch.job.collections, strict=True)
            for each in collection.inputs
            if length == 0
        ]
        return f"model {self.spec.name!r}" + (f", rows of length 0 in {', '.join(empty)}" if empty else "")

    @property
    def work(self) -> float:
        return max(self.batch.nbytes, 1)

    @property
    def inferences(self) -> int:
        return self.batch.size

    @property
    def nbytes(self) -> int:
        return self.batch.nbytes

    def start(self, server: Server, token: Token | None, timeout: float) -> Any:
        tensors = self.batch.tensors
        header = _header(self.spec, self.batch.job.names, tuple(tensor.shape for tensor in tensors))
        return server.infer(frame_request(header, tensors), token, timeout)

    def outputs(self, reply: Any) -> dict[str, NDArray[Any]]:
        spec = self.spec
        return read_outputs(
            reply,
            {tensor.name: tensor for tensor in spec.outputs},
            size=self.batch.size,
            batched=spec.max_batch_size > 0,
            model=spec.name,
        )


@functools.lru_cache(maxsize=512)
def _header(spec: ModelSpec, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]) -> bytes:
    """The encoded request without its tensors; few shapes occur, so it is made once for each."""
    from eaf_inference.inference import protocol

    datatypes = {tensor.name: tensor.datatype for tensor in spec.inputs}
    request = protocol.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    for name, shape in zip(names, shapes, strict=True):
        request.inputs.add(name=name, datatype=datatypes[name], shape=shape)
    for tensor in spec.outputs:
        request.outputs.add(name=tensor.name)
    encoded: bytes = request.SerializeToString()
    return encoded
