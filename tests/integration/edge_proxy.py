"""A gRPC edge proxy in front of a real Triton: checks tokens, and misbehaves on demand."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

UNLIMITED = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # tests set a proxy in the environment
]


class EdgeProxy(grpc.GenericRpcHandler):
    """Forwards every call as bytes.

    Attributes
    ----------
    tokens : dict of str to float
        Valid tokens and their expiry times; empty: no token is required.
    faults : list
        One is consumed by each inference: a (status, details, trailing metadata) to answer with, or the number of
        seconds to stay silent.
    cancelled : int
        Calls that their client cancelled.
    changes : dict of str to callable
        Method -> function from the reply's bytes to the bytes sent instead.
    """

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, UNLIMITED)
        self.tokens: dict[str, float] = {}
        self.faults: list = []
        self.changes: dict = {}
        self.calls = 0
        self.inferences = 0
        self.refused = 0
        self.seen: set[str] = set()
        self.closing = threading.Event()
        self.cancelled = 0
        self._open = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition()

    def service(self, details):
        call = self._channel.unary_unary(details.method)
        method = details.method.rpartition("/")[2]
        is_inference = method == "ModelInfer"

        def handle(request, context):
            with self._idle:
                self._open += 1
            context.add_callback(self._leave)
            try:
                return answer(request, context)
            finally:
                if not context.is_active():
                    self.cancelled += 1

        def answer(request, context):
            fault = self._enter(context, is_inference)
            if isinstance(fault, tuple):
                status, text, trailing = fault
                context.set_trailing_metadata(trailing)
                context.abort(status, text)
            elif fault:
                self.closing.wait(fault)
            try:
                reply = call(request, timeout=60)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            return self.changes.get(method, bytes)(reply)

        return grpc.unary_unary_rpc_method_handler(handle)

    def _enter(self, context, is_inference):
        token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            self.calls += 1
            self.inferences += is_inference
            self.seen.add(token)
            if self.tokens and self.tokens.get(token, 0) < time.time():
                self.refused += 1
                return grpc.StatusCode.UNAUTHENTICATED, "Jwt is expired", ()
            return self.faults.pop(0) if is_inference and self.faults else None

    def _leave(self):
        with self._idle:
            self._open -= 1
            self._idle.notify_all()

    def wait_until_idle(self):
        """Return once no call is in progress."""
        with self._idle:
            assert self._idle.wait_for(lambda: self._open == 0, timeout=30)

    def close(self):
        self.closing.set()
        self._channel.close()


@contextmanager
def edge_proxy(
    target: str, *, credentials: grpc.ServerCredentials | None = None, handler: type[EdgeProxy] = EdgeProxy
):
    """Run an edge proxy on a free loopback port, with TLS if given `credentials`; yield its handler and port."""
    handler = handler(target)
    server = grpc.server(ThreadPoolExecutor(max_workers=32), handlers=[handler], options=UNLIMITED)
    address = "127.0.0.1:0"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield handler, bound
    finally:
        handler.close()
        server.stop(0).wait()
