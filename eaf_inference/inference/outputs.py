"""Read the outputs of a reply, and check them against what the model declares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import BadReply
from eaf_inference.inference.wire import MOST_STRINGS, decode, least_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import TensorSpec

__all__ = ["read_outputs"]

_LARGEST_EMPTY = 64 << 20  # bytes that an output without any would have if its empty axes had one element


def read_outputs(
    reply: Any, specs: Mapping[str, TensorSpec], *, size: int, batched: bool, model: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``ModelInferResponse``, each (size, *shape).

    Raises
    ------
    BadReply
        An output is missing, or its data type, shape or number of bytes differs from what the model declares.
    """
    found: dict[str, NDArray[Any]] = {}
    contents = reply.raw_output_contents
    if len(contents) != len(reply.outputs):
        raise BadReply(
            f"The reply of {model!r} has {len(reply.outputs)} outputs and the contents of {len(contents)}. "
            "The fault is the server's: tell the model's owner."
        )
    for raw, output in zip(contents, reply.outputs, strict=True):
        spec = specs.get(output.name)
        if spec is None:
            continue
        if output.name in found:
            raise BadReply(f"The reply of {model!r} has the output {output.name!r} twice. Tell the model's owner.")
        declared = (size, *spec.shape) if batched else spec.shape
        shape = tuple(output.shape[: len(declared) + 1])  # one more than declared shows that there are too many
        agree = len(shape) == len(declared) and all(
            got >= 0 and want in (got, -1) for got, want in zip(shape, declared, strict=True)
        )
        # an empty axis must not let the other axes claim any size
        agree &= math.prod(max(each, 1) for each in shape) * least_size(spec) <= max(len(raw), _LARGEST_EMPTY)
        agree &= output.datatype == spec.datatype
        values = decode(raw, spec, shape) if agree else None
        if values is None:
            raise BadReply(
                f"The reply of {model!r} is not what the model declares: output {output.name!r} came as "
                f"{output.datatype[:20]} {list(shape)} in {len(raw)} bytes. Expected {spec.datatype} "
                f"{list(declared)}{_in_bytes(spec, shape) if agree else ''}. The fault is the server's: tell the "
                "model's owner."
            )
        found[output.name] = values if batched else values[None]
    missing = [name for name in specs if name not in found]
    if missing:
        raise BadReply(f"The reply of {model!r} lacks the outputs {missing}. Tell the model's owner.")
    return found


def _in_bytes(spec: TensorSpec, shape: Sequence[int]) -> str:
    if spec.datatype == "BYTES":
        return f", each string after its length, and at most {MOST_STRINGS:,} of them"
    return f" in {math.prod(shape) * least_size(spec)} bytes"
