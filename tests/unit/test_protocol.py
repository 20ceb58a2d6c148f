"""The classes of Triton's messages, in a descriptor pool of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eaf_inference.inference import protocol

SERVICE = protocol.ModelInferRequest.DESCRIPTOR.file.services_by_name["GRPCInferenceService"]
# Adds another version of Triton's messages to protobuf's default pool.
ANOTHER_COPY = """
from google.protobuf import descriptor_pb2, descriptor_pool
files = descriptor_pb2.FileDescriptorSet.FromString(open({path!r}, "rb").read()).file
for each in files:
    for message in each.message_type:
        message.reserved_name.append("of_another_version")
    descriptor_pool.Default().AddSerializedFile(each.SerializeToString())
"""
OURS = """
from eaf_inference.inference import protocol
request = protocol.ModelInferRequest(model_name="jets")
assert protocol.ModelInferRequest.FromString(request.SerializeToString()) == request
"""


@pytest.mark.parametrize("method", SERVICE.methods_by_name)
def test_every_message_of_the_service_is_found_by_its_name(method):
    if method == "ModelStreamInfer":
        answers = protocol.ModelStreamInferResponse(infer_response=protocol.ModelInferResponse(model_name="jets"))
        assert answers.infer_response.model_name == "jets"
        return
    for name in (f"{method}Request", f"{method}Response"):
        kind = getattr(protocol, name)
        assert kind.DESCRIPTOR.full_name == f"inference.{name}"
        assert kind.FromString(kind().SerializeToString()) == kind()
        assert getattr(protocol, name) is kind


def test_an_unknown_message_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no message 'ModelGuessRequest'"):
        _ = protocol.ModelGuessRequest
    assert not hasattr(protocol, "__path__")


@pytest.mark.parametrize("order", ["before", "after"])
def test_another_copy_of_the_messages_in_the_process_is_harmless(order, tmp_path):
    path = tmp_path / "protocol.binpb"
    path.write_bytes(protocol.DESCRIPTOR_SET)
    steps = [ANOTHER_COPY.format(path=str(path)), OURS]
    code = "".join(steps if order == "before" else reversed(steps))
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
