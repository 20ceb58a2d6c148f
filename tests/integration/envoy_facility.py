"""A real Envoy in front of real Tritons, configured by an operator's settings, and raw gRPC calls through it."""

from __future__ import annotations

import json
import secrets
import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from urllib.request import urlopen

import grpc
import numpy as np
import plain_client
import psutil
from waiting import until

from eaf_facility.envoy.configuration import configuration
from eaf_facility.envoy.settings import Envoy
from eaf_facility.servers.envoy import EnvoyServer
from eaf_facility.token_policy import TokenPolicy

SERVICE = "/inference.GRPCInferenceService"
MEBIBYTE = 1024 * 1024
NAP_MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.05)
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", value)]) for value in inputs]
"""
NAP_CONFIG = """
backend: "python"
max_batch_size: 10000000
input [{ name: "x", data_type: TYPE_FP32, dims: [2] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [2] }]
"""


def save_nap(repository, name: str = "nap"):
    """Write a model that returns its input after 50 ms, one request after the other."""
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(NAP_CONFIG)
    (directory / "1" / "model.py").write_text(NAP_MODEL)


@dataclass
class Answer:
    """The outcome of one call: name of the status, details, reply, and trailing metadata."""

    status: str
    details: str
    reply: bytes
    metadata: dict[str, str]


class Caller:
    """One raw gRPC connection to Envoy."""

    def __init__(self, server: EnvoyServer, target: str = "") -> None:
        credentials = grpc.ssl_channel_credentials(server.authority.encode())
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.secure_channel(target or server.url.removeprefix("grpcs://"), credentials, options)

    def ask(
        self,
        method: str,
        request: bytes = b"",
        token: str | None = None,
        compression: grpc.Compression | None = None,
        **headers: str,
    ) -> Answer:
        """Call a method of Triton's service, or any other method by its full path."""
        path = method if method.startswith("/") else f"{SERVICE}/{method}"
        metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if token is not None:
            metadata.append(("authorization", f"Bearer {token}"))
        try:
            ask = self._channel.unary_unary(path).with_call
            reply, call = ask(request, metadata=metadata, timeout=30, compression=compression)
        except grpc.RpcError as error:
            trailing = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
            return Answer(error.code().name, error.details() or "", b"", trailing)
        return Answer("OK", "", reply, dict(call.trailing_metadata() or ()))

    def begin(self, method: str, request: bytes, token: str):
        """Start a call and return gRPC's future."""
        metadata = [("authorization", f"Bearer {token}")]
        return self._channel.unary_unary(f"{SERVICE}/{method}").future(request, metadata=metadata, timeout=30)

    @contextmanager
    def parked(self, method: str, mebibytes: int, token: str | None = None):
        """Send part of a request without ending it, for the length of a `with` block; yield gRPC's future."""
        over, sent = threading.Event(), threading.Event()

        def parts():
            for _ in range(mebibytes):
                yield bytes(MEBIBYTE)
            sent.set()
            over.wait()

        metadata = [("authorization", f"Bearer {token}")] if token is not None else None
        call = self._channel.stream_unary(f"{SERVICE}/{method}").future(parts(), metadata=metadata, timeout=120)
        call.add_done_callback(lambda _: sent.set())
        try:
            yield call, sent
        finally:
            over.set()
            call.cancel()

    def infer(self, token: str | None, model: str = "nap", rows: int = 1, **headers: str) -> Answer:
        return self.ask("ModelInfer", inference(model, rows), token, **headers)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def inference(model: str = "nap", rows: int = 1, shape: tuple[int, ...] = ()) -> bytes:
    """Return a request for the scores of `rows` rows of two zeros, or of zeros of a shape."""
    zeros = np.zeros(shape or (rows, 2), np.float32)
    return plain_client.inference(model, {"x": zeros}).SerializeToString()


@contextmanager
def envoy(issuer, tritons, **settings):
    """Run an Envoy with these settings in front of these Tritons."""

    def configure(place):
        chosen = {"upstreams": [each.grpc for each in tritons], **asdict(place), **settings}
        return configuration(Envoy(**chosen), TokenPolicy(jwks_url=issuer.url))

    with EnvoyServer.start(configure) as server:
        yield server


class Log:
    """The lines of the access log from now on."""

    def __init__(self, server: EnvoyServer) -> None:
        self._file = server.access_log
        self._mark = f"/mark-{secrets.token_hex(4)}"
        with Caller(server) as caller:
            caller.ask(self._mark)

    def lines(self, number: int = 1) -> list[dict]:
        """Return the calls since then, once there are at least `number`."""

        def found():
            whole, _, _ = self._file.read_text().rpartition("\n")
            lines = [json.loads(line) for line in whole.splitlines()]
            places = [place for place, line in enumerate(lines) if line["method"] == self._mark]
            return lines[places[0] + 1 :] if places else []

        until(lambda: len(found()) >= number)
        return found()


def counters(server: EnvoyServer) -> dict[str, float]:
    """Return Envoy's counters by user and model, as Prometheus reads them."""
    with urlopen(server.metrics, timeout=10) as page:  # noqa: S310 - loopback
        lines = page.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("envoy_eaf_"))
    return {name: float(value) for name, value in pairs}


class Memory:
    """The peak resident size of a process during a `with` block, in MiB."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.peak = self._now()

    @property
    def growth(self) -> int:
        return self.peak - self.before

    def _now(self) -> int:
        return round(self._process.memory_info().rss / MEBIBYTE)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, self._now())

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def from_address(server: EnvoyServer, source: str):
    """Yield a loopback port whose connections reach Envoy from another loopback address."""
    target = ("127.0.0.1", int(server.url.rpartition(":")[2]))

    def copy(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(target, source_address=(source, 0)) as other:
                back = threading.Thread(target=copy, args=(other, self.request))
                back.start()
                copy(self.request, other)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        yield f"127.0.0.1:{relay.server_address[1]}"
        relay.shutdown()
        thread.join()
