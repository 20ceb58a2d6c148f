"""Triton's gRPC messages (KServe v2 with Triton's extensions) by name, such as ``protocol.ModelInferRequest``.

The classes are made from NVIDIA's description of the protocol, protocol.binpb, in a pool of their own. So they need
only protobuf, work with any version of it, and never clash with the copies that tritonclient and others keep in
protobuf's default pool. Messages of the same name from different pools have different types.

To update protocol.binpb from the protobuf directory of https://github.com/triton-inference-server/common (the current
one is from commit 83adf7cf, July 2026)::

    pip install grpcio-tools
    python -m grpc_tools.protoc -I common/protobuf --include_imports grpc_service.proto \
      --descriptor_set_out=eaf_inference/inference/protocol.binpb
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["DESCRIPTOR_SET"]  # and every message, see __getattr__

DESCRIPTOR_SET = Path(__file__).with_name("protocol.binpb").read_bytes()  # a serialised FileDescriptorSet

_PACKAGE = "inference"


def _classes(descriptors: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for each in descriptors:
        yield each.full_name, GetMessageClass(each)
        yield from _classes(each.nested_types)


def _make_classes() -> dict[str, Any]:
    """Make and keep every class, by full name; freeing one can crash protobuf (see `_grpc_workarounds`)."""
    pool = DescriptorPool()
    files = FileDescriptorSet.FromString(DESCRIPTOR_SET).file
    for each in files:
        pool.AddSerializedFile(each.SerializeToString())
    found = [pool.FindFileByName(each.name).message_types_by_name.values() for each in files]
    return dict(_classes(itertools.chain(*found)))


_CLASSES = _make_classes()


def __getattr__(name: str) -> Any:
    """Return the class of a message."""
    try:
        return _CLASSES[f"{_PACKAGE}.{name}"]
    except KeyError:
        raise AttributeError(f"Triton's protocol has no message {name!r}") from None
