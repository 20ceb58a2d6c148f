"""A gRPC server that answers like Triton, or with anything else that a test sets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from edge_proxy import UNLIMITED

from eaf_inference.inference import protocol


class Hostile(grpc.GenericRpcHandler):
    """Serves the model `jets`: `x` [2, -1] -> `y` [2], always 0.

    Attributes
    ----------
    answers : dict of str to callable
        By method: (request, context) -> the bytes of an answer, instead of the usual one.
    calls : list of str
        The methods that were called.
    """

    def __init__(self):
        self.answers = {}
        self.calls = []

    def service(self, details):
        method = details.method.rpartition("/")[2]
        request_type = getattr(protocol, f"{method}Request")

        def handle(data, context):
            self.calls.append(method)
            request = request_type.FromString(data)
            if method in self.answers:
                return self.answers[method](request, context)
            return getattr(self, method)(request).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    def ServerReady(self, _request):  # noqa: N802  (gRPC's names, here and below)
        return protocol.ServerReadyResponse(ready=True)

    def RepositoryIndex(self, _request):  # noqa: N802
        answer = protocol.RepositoryIndexResponse()
        answer.models.add(name="jets", version="1", state="READY")
        return answer

    def ModelStatistics(self, _request):  # noqa: N802
        return protocol.ModelStatisticsResponse()

    def ModelConfig(self, request):  # noqa: N802
        answer = protocol.ModelConfigResponse()
        answer.config.name, answer.config.max_batch_size = request.name, 64
        answer.config.input.add(name="x", data_type="TYPE_FP32", dims=[2, -1])
        answer.config.output.add(name="y", data_type="TYPE_FP32", dims=[2])
        return answer

    def ModelInfer(self, request):  # noqa: N802
        rows = request.inputs[0].shape[0]
        answer = protocol.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="y", datatype="FP32", shape=[rows, 2])
        answer.raw_output_contents.append(b"\0" * (8 * rows))
        return answer


@contextmanager
def hostile():
    """Run a hostile server on a free loopback port, and give it and its URL."""
    handler = Hostile()
    server = grpc.server(ThreadPoolExecutor(max_workers=32), handlers=[handler], options=UNLIMITED)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield handler, f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def field(number, content):
    """Encode a length-delimited field of protobuf."""
    return varint(number << 3 | 2) + varint(len(content)) + content
