"""Fake gRPC servers: two refuse all users, one is never ready, one has models that Triton would not load."""

from __future__ import annotations

from concurrent import futures
from contextlib import contextmanager

import grpc

from eaf_inference.inference import protocol


@contextmanager
def serving(answer):
    """Run a server that answers each request with `answer(method, request)`; yields its URL."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            method = details.method.rpartition("/")[2]
            parse = getattr(protocol, f"{method}Request").FromString
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: answer(method, request, context),
                request_deserializer=parse,
                response_serializer=lambda reply: reply.SerializeToString(),
            )

    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"grpc://127.0.0.1:{port}"
        server.stop(None).wait()


def refusing():
    """Run a server that refuses all users; yields its URL."""

    def refuse(method, request, context):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    return serving(refuse)


def repeating():
    """Run a server that refuses all users and quotes their credentials; yields its URL."""

    def refuse(method, request, context):
        shown = dict(context.invocation_metadata())["authorization"]
        context.abort(grpc.StatusCode.PERMISSION_DENIED, f"who is {shown}?" + "x" * 3000)

    return serving(refuse)


def starting():
    """Run a server that is not ready; yields its URL."""
    return serving(lambda method, *_: getattr(protocol, f"{method}Response")())


def models_called(*names):
    """Run a server with models of these names, whose inputs have the same names; yields its URL."""

    def answer(method, request, context):
        reply = getattr(protocol, f"{method}Response")()
        if method == "ServerReady":
            reply.ready = True
        elif method == "RepositoryIndex":
            for name in names:
                reply.models.add(name=name, version="1", state="READY")
        elif method == "ModelConfig":
            reply.config.name = request.name
            for tensors in (reply.config.input, reply.config.output):
                tensors.add(name=request.name, data_type="TYPE_FP32", dims=[2])
        return reply

    return serving(answer)
