"""Send a batch as an inference request, and read its reply."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from eaf_inference.errors import ModelChanged
from eaf_inference.inference.outputs import read_outputs
from eaf_inference.inference.transport import frame_request
from eaf_inference.inference.wire import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eaf_inference.auth.token import Token
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel

__all__ = ["Inference", "Sendable", "same_version"]


class Sendable(Protocol):
    """What a request is made of: a batch of rows, or a union of graphs."""

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' names, in the order of the tensors."""

    @property
    def tensors(self) -> Sequence[NDArray[Any]]:
        """The inputs."""

    @property
    def size(self) -> int:
        """The number of rows or graphs."""

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors."""

    @property
    def remark(self) -> str:
        """What a message says besides the model's name."""

    @property
    def cells(self) -> float:
        """Its size, in the unit in which the model's tuning counts."""

    def halves(self) -> Sequence[Sendable]:
        """Return two batches with half of it each; none if it cannot be divided."""


_MOST_MEMBERS = 10  # shown in a message


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """One batch as a request of the pipeline."""

    spec: ModelSpec
    batch: Sendable

    @property
    def subject(self) -> str:
        members = self.spec.members[:_MOST_MEMBERS]  # a server names the ensemble, but not the member that failed
        ensemble = f" (an ensemble of {', '.join(members)})" if members else ""
        return f"model {self.spec.name!r}{ensemble}{self.batch.remark}"

    @property
    def work(self) -> float:
        return max(self.batch.nbytes, 1)

    @property
    def inferences(self) -> int:
        return self.batch.size

    @property
    def nbytes(self) -> int:
        return self.batch.nbytes

    def start(self, channel: Channel, token: Token | None, timeout: float) -> Any:
        datatypes = {tensor.name: tensor.datatype for tensor in self.spec.inputs}
        names, tensors = self.batch.names, self.batch.tensors
        header = _header(self.spec, names, tuple(tensor.shape for tensor in tensors))
        encoded = [encode(tensor, datatypes[name]) for tensor, name in zip(tensors, names, strict=True)]
        return channel.infer(frame_request(header, encoded), token, timeout)

    def halves(self) -> Sequence[Any]:
        """Return two requests with half the rows each; none if it must be sent as it is."""
        return ()

    def read(self, reply: Any) -> dict[str, NDArray[Any]]:
        """Return the outputs of a reply, (size, *shape) each.

        Raises
        ------
        BadReply
            They are not what the model declares.
        ModelChanged
            They are those of another version.
        """
        same_version(self.spec.name, self.spec.version, reply)
        spec, batched = self.spec, self.spec.largest_batch > 0
        sent = len(self.batch.tensors[0]) if batched else self.batch.size  # with copies that fill the batch
        outputs = read_outputs(
            reply,
            {tensor.name: tensor for tensor in spec.outputs},
            size=sent,
            batched=batched,
            model=spec.name,
        )
        return {name: values[: self.batch.size] for name, values in outputs.items()} if batched else outputs


def same_version(model: str, expected: str, reply: Any) -> str:
    """Return the version of the model that gave a reply; the expected one if the server does not tell.

    Parameters
    ----------
    expected : str
        The requested version, or that of earlier replies; empty if neither is known.

    Raises
    ------
    ModelChanged
        It is another version.
    """
    version: str = reply.model_version or expected
    if expected and version != expected:
        raise ModelChanged(
            f"Version {version[:20]} of model {model!r} answered. Expected {expected}: scores of two versions "
            f"must not mix. Write model = triton.model({model!r}) again, and repeat what one version is to score."
        )
    return version


@functools.lru_cache(maxsize=512)
def _header(spec: ModelSpec, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]) -> bytes:
    """Encode the request without its tensors; few shapes occur, so each header is cached."""
    from eaf_inference.inference import protocol

    datatypes = {tensor.name: tensor.datatype for tensor in spec.inputs}
    request = protocol.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    for name, shape in zip(names, shapes, strict=True):
        request.inputs.add(name=name, datatype=datatypes[name], shape=shape)
    for tensor in spec.outputs:
        request.outputs.add(name=tensor.name)
    encoded: bytes = request.SerializeToString()
    return encoded
