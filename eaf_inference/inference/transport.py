"""A gRPC channel to one Triton: framing of requests, and metadata.

Requests are framed by hand (https://protobuf.dev/programming-guides/encoding): protobuf encodes the small part, names
and shapes, and the tensors are appended as they lie in memory. tritonclient copies them twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference._grpc_workarounds import CHANNEL_OPTIONS, UNFORKED, hold_forks_back, keep_freed_memory
from eaf_inference.inference.reply import LIMIT_OPTIONS, SERVICE, read_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np

    from eaf_inference.address import Address
    from eaf_inference.auth.credentials import Credentials
    from eaf_inference.auth.tls import TlsFiles
    from eaf_inference.auth.token import Token

__all__ = ["CLOSED", "Channel", "frame_request"]

CLOSED = "This connection is closed. Make a new one: %triton_connect or connect()."
_RAW_INPUT_TAG = b"\x3a"  # ModelInferRequest.raw_input_contents: field 7, length-delimited
_OPTIONS = (
    *CHANNEL_OPTIONS,
    *LIMIT_OPTIONS,
    ("grpc.max_send_message_length", -1),  # the cell budget bounds requests
    ("grpc.enable_retries", 0),  # the pipeline retries, on a replica of its choice
)


class Channel:
    """A channel to one replica, and what is known about its health.

    Parameters
    ----------
    address : Address
    credentials : Credentials
    tls : TlsFiles
    allow_insecure_token : bool
        Send the token over an unencrypted channel even to another machine.
    """

    def __init__(
        self, address: Address, credentials: Credentials, tls: TlsFiles, *, allow_insecure_token: bool = False
    ) -> None:
        import grpc

        keep_freed_memory()
        self.address = address
        self.credentials = credentials
        self.resting_until = 0.0  # time.monotonic()
        self._closed = False
        self._may_send_token = address.tls or address.is_loopback or allow_insecure_token
        with UNFORKED:
            if address.tls:
                self._channel = grpc.secure_channel(address.target, tls.channel_credentials(), _OPTIONS)
            else:
                self._channel = grpc.insecure_channel(address.target, _OPTIONS)
        hold_forks_back()
        self._infer = self._stub("ModelInfer", b"".join)

    def __repr__(self) -> str:
        return f"<Channel {self.address.url}>"

    def metadata(self, token: Token | None) -> list[tuple[str, str]]:
        """Return a call's metadata.

        Raises
        ------
        ConfigurationError
            The token would travel unencrypted.
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
        """Start one inference and return gRPC's future."""
        return self._start(self._infer, frames, token, timeout)

    def ask(self, method: str, request: Any, token: Token | None, timeout: float) -> Any:
        """Start another call of Triton's service (``ServerReady``, …) and return gRPC's future."""
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
        except ValueError as error:  # how gRPC reports a closed channel
            raise ConfigurationError(CLOSED) from error

    def check_open(self) -> None:
        """Raise if this channel was closed here; gRPC cancels the calls of a closed channel.

        Raises
        ------
        ConfigurationError
            It was closed.
        """
        if self._closed:
            raise ConfigurationError(CLOSED)

    def close(self) -> None:
        self._closed = True  # before the calls in flight are cancelled
        with UNFORKED:
            self._channel.close()


def frame_request(header: bytes, tensors: Iterable[np.ndarray[Any, Any]]) -> list[bytes | memoryview]:
    """Return pieces that, joined, are an encoded ``ModelInferRequest``.

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
