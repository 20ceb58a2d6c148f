"""A plain gRPC client of Triton, which uses the protocol's messages and nothing else of the client under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from eaf_inference.inference import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DATATYPES = {"bool": "BOOL", "object": "BYTES"} | {
    f"{kind}{bits}": f"{triton}{bits}"
    for kind, triton, sizes in (
        ("int", "INT", (8, 16, 32, 64)),
        ("uint", "UINT", (8, 16, 32, 64)),
        ("float", "FP", (16, 32, 64)),
    )
    for bits in sizes
}
_DTYPES = {datatype: name for name, datatype in _DATATYPES.items()}
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


def datatype_of(dtype: np.dtype) -> str:
    """Return Triton's name of a numpy type."""
    return _DATATYPES[dtype.name]


def channel_to(url: str) -> grpc.Channel:
    """Make a channel to ``grpc://host:port``."""
    return grpc.insecure_channel(url.removeprefix("grpc://"), _OPTIONS)


def call(server: str | grpc.Channel, method: str, request: Any = None, *, timeout: float = 20, **fields: Any) -> Any:
    """Send one request, by default made of the fields, to a URL or through a channel, and return the answer."""
    if isinstance(server, str):
        with channel_to(server) as channel:
            return call(channel, method, request, timeout=timeout, **fields)
    request = getattr(protocol, f"{method}Request")(**fields) if request is None else request
    stub = server.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=getattr(protocol, f"{method}Response").FromString,
    )
    return stub(request, timeout=timeout)


def inference(model: str, arrays: Mapping[str, np.ndarray], outputs: Sequence[str] = ()) -> Any:
    """Make a request with these inputs for these outputs, by default for all."""
    request = protocol.ModelInferRequest(model_name=model)
    for name, value in arrays.items():
        request.inputs.add(name=name, datatype=datatype_of(value.dtype), shape=value.shape)
        request.raw_input_contents.append(_packed(value) if value.dtype == object else value.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    return request


def infer(
    server: str | grpc.Channel, model: str, arrays: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Send these inputs to a URL or through a channel, and return the outputs by name."""
    reply = call(server, "ModelInfer", inference(model, arrays, outputs))
    return {
        each.name: _array(each.datatype, each.shape, content)
        for each, content in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def _array(datatype: str, shape: Sequence[int], content: bytes) -> np.ndarray:
    flat = np.array(_unpacked(content), object) if datatype == "BYTES" else np.frombuffer(content, _DTYPES[datatype])
    return flat.reshape(shape)


def _packed(strings: np.ndarray) -> bytes:
    """Encode strings as Triton does, each after its length in four bytes."""
    return b"".join(len(each).to_bytes(4, "little") + each for each in strings.flat)


def _unpacked(content: bytes) -> list[bytes]:
    strings = []
    while content:
        end = 4 + int.from_bytes(content[:4], "little")
        strings.append(content[4:end])
        content = content[end:]
    return strings
