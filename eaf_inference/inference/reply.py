"""Limit what a server may send back, and refuse what is not a reply.

gRPC ends a call whose answer exceeds its method's limit. A protobuf message of many small parts takes up to 45 times
its length in memory (measured with protobuf 6.33). Answers to questions are short enough for that; the parts of a
reply to an inference are counted before it is parsed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import BadReply

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LARGEST_ANSWER", "LARGEST_REPLY", "LIMIT_OPTIONS", "SERVICE", "read_with"]

SERVICE = "inference.GRPCInferenceService"
LARGEST_ANSWER = 8 << 20  # bytes
LARGEST_REPLY = 256 << 20  # bytes, of the scores of one request
_LARGEST_HEADER = 1 << 20  # bytes of a reply besides its tensors
_MOST_PARTS = 4096
_TENSORS = 6  # ModelInferResponse.raw_output_contents
_FIXED = {1: 8, 5: 4}  # protobuf's wire types of fixed size -> bytes

# https://github.com/grpc/grpc/blob/master/doc/service_config.md
_LIMITS = {
    "methodConfig": [
        {"name": [{"service": SERVICE}], "maxResponseMessageBytes": LARGEST_ANSWER},
        {"name": [{"service": SERVICE, "method": "ModelInfer"}], "maxResponseMessageBytes": LARGEST_REPLY},
    ]
}
LIMIT_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # each method has its own limit
    ("grpc.service_config", json.dumps(_LIMITS)),
    ("grpc.service_config_disable_resolution", 1),  # DNS must not replace the limits
)


def read_with(kind: Any, server: str) -> Callable[[bytes], Any]:
    """Return a deserializer that gives a message, or a `BadReply` in its place; it never raises.

    Parameters
    ----------
    kind : type
        The expected protobuf message.
    server : str
        The server's URL, for the error.
    """
    name = kind.DESCRIPTOR.name

    def read(data: bytes) -> Any:
        from google.protobuf.message import DecodeError

        if name == "ModelInferResponse" and not _is_reasonable(data):
            return BadReply(
                f"{server} sent something that is not an inference reply. Expected at most {_MOST_PARTS:,} parts "
                f"and {_LARGEST_HEADER >> 20} MiB besides the tensors. The fault is the server's: tell its operators."
            )
        try:
            return kind.FromString(data)
        except DecodeError:
            return BadReply(
                f"{server} sent {len(data)} bytes that are not a {name}. Is it a Triton inference server?"
            )

    return read


def _is_reasonable(data: bytes) -> bool:
    """Whether a ``ModelInferResponse`` has few parts, and is small apart from its tensors."""
    position = parts = header = 0
    try:
        while position < len(data):
            parts += 1
            start = position
            tag, position = _varint(data, position)
            if tag & 7 == 2:
                length, position = _varint(data, position)
                position += length
            elif tag & 7 == 0:
                _, position = _varint(data, position)
            else:
                position += _FIXED[tag & 7]
            header += 0 if tag >> 3 == _TENSORS else position - start
            if parts > _MOST_PARTS or header > _LARGEST_HEADER:
                return False
    except LookupError:  # truncated, or an unknown wire type
        return False
    return True


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise LookupError
