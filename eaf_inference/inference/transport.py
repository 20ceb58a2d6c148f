"""One gRPC call to one Triton: framing and metadata.

The request is framed by hand (https://protobuf.dev/programming-guides/encoding): protobuf encodes the small
part, names and shapes, and the tensors are joined to it as they lie in memory, where tritonclient would copy
them twice.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.reply import CHANNEL_OPTIONS, SERVICE, read_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import grpc
    import numpy as np

    from eaf_inference.config import Address
    from eaf_inference.credentials import Credentials, Token
    from eaf_inference.tls import TlsFiles

__all__ = ["CLOSED", "Server", "frame_request", "outcome"]

CLOSED = "This connection is closed. Make a new one: %triton_connect or connect()."
_RAW_INPUT_TAG = b"\x3a"  # ModelInferRequest.raw_input_contents: field 7, length-delimited
_LARGEST_KEPT = (32 << 20) - (64 << 10)  # bytes: glibc's bound, less what it adds
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # naming any option brings gRPC's 4 MB limit back
    *CHANNEL_OPTIONS,
    # a restarted server is found again at once; retries are ours, on the server of our choice
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
    # a peer that is gone without a word is noticed while a call waits for it
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # a connection made anew shares nothing with an older one
    ("grpc.use_local_subchannel_pool", 1),
    # a proxy of the environment would read the token, where there is no TLS
    ("grpc.enable_http_proxy", 0),
)


class Server:
    """One replica: its channel, and what is known of its health.

    Parameters
    ----------
    address : Address
    credentials : Credentials
    tls : TlsFiles
    allow_insecure_token : bool
        Send the token over an unencrypted channel to another machine too.
    """

    def __init__(
        self, address: Address, credentials: Credentials, tls: TlsFiles, *, allow_insecure_token: bool = False
    ) -> None:
        import grpc

        keep_freed_memory()
        self.address = address
        self.credentials = credentials
        self.resting_until = 0.0  # time.monotonic()
        self._may_send_token = address.tls or address.is_loopback or allow_insecure_token
        if address.tls:
            self._channel = grpc.secure_channel(address.target, tls.channel_credentials(), _CHANNEL_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address.target, _CHANNEL_OPTIONS)
        self._infer = self._stub("ModelInfer", b"".join)

    def __repr__(self) -> str:
        return f"<Server {self.address.url}>"

    def metadata(self, token: Token | None) -> list[tuple[str, str]]:
        """The call's metadata.

        Raises
        ------
        ConfigurationError
            There is a token, and the channel would show it to the network.
        """
        if token is None:
            return []
        if not self._may_send_token:
            raise ConfigurationError(
                f"Your token ({self.credentials.source!r}) would travel unencrypted to {self.address.url}. "
                "Use the server's TLS address (grpcs://…), or allow it on a network you trust: "
                "allow_insecure_token=True, or --allow-insecure-token."
            )
        return [("authorization", token.authorization)]

    def infer(self, frames: Sequence[bytes | memoryview], token: Token | None, timeout: float) -> Any:
        """Start one inference; gives gRPC's future."""
        return self._start(self._infer, frames, token, timeout)

    def ask(self, method: str, request: Any, token: Token | None, timeout: float) -> Any:
        """Start one other call of Triton's service (``ServerReady``, …); gives gRPC's future."""
        return self._start(self._stub(method, type(request).SerializeToString), request, token, timeout)

    def _stub(self, method: str, serializer: Callable[[Any], bytes]) -> Any:
        from eaf_inference.inference import protocol

        return self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=serializer,
            response_deserializer=read_with(getattr(protocol, f"{method}Response"), self.address.url),
        )

    def _start(self, stub: Any, request: Any, token: Token | None, timeout: float) -> Any:
        try:
            return stub.future(request, timeout=timeout, metadata=self.metadata(token))
        except ValueError as error:  # gRPC's word for a closed channel
            raise ConfigurationError(CLOSED) from error

    def close(self) -> None:
        self._channel.close()


def outcome(future: Any) -> tuple[Any, grpc.RpcError | None]:
    """The reply of a finished call, or its error."""
    import grpc

    try:  # one call of gRPC's where all is well: each takes its lock
        return future.result(), None
    except grpc.RpcError as error:
        return None, error.with_traceback(None)  # its frames hold the request


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc keep freed memory of up to 64 MB for the next requests, once a process.

    Otherwise it may give a request's memory back to the system each time, and get it anew page by page: a quarter of
    the client's processor time. Its threshold rises by itself to the largest block that was freed, up to 32 MB
    (mallopt(3), M_MMAP_THRESHOLD): one such block, of which no page is touched, does it.
    """
    import numpy as np

    np.empty(_LARGEST_KEPT, np.uint8)


def frame_request(header: bytes, tensors: Iterable[np.ndarray[Any, Any]]) -> list[bytes | memoryview]:
    """Pieces that, joined, are an encoded ``ModelInferRequest``.

    Parameters
    ----------
    header : bytes
        The request without tensors, encoded by protobuf.
    tensors : iterable of numpy.ndarray
        C-contiguous little-endian arrays in the order of the header's inputs.
    """
    pieces: list[bytes | memoryview] = [header]
    for tensor in tensors:
        pieces.append(_RAW_INPUT_TAG + _varint(tensor.nbytes))
        pieces.append(tensor.reshape(-1).view("u1").data)
    return pieces


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
