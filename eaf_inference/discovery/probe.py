"""Probe one server: whether it is ready, and whether it lists its models or at least describes them.

A server counts as healthy when it is ready and its repository index answers; one whose index fails is dead or
saturated (the contract of CMS SONIC). One that does not offer its index, or not to this user, is healthy if it
describes models: Triton can restrict calls (``--grpc-restricted-protocol``), as can an edge proxy.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import NoToken
from eaf_inference.errors import (
    ConfigurationError,
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    NotAuthorized,
)
from eaf_inference.inference.pipeline import Limits, Question, ask
from eaf_inference.inference.transport import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.address import Address
    from eaf_inference.auth.tls import TlsFiles
    from eaf_inference.auth.token import Token

__all__ = ["NOT_WAITED_FOR", "PROBE_TIMEOUT", "Answer", "Prober"]

PROBE_TIMEOUT = 2.0  # seconds for each server


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one probe."""

    healthy: bool
    text: str
    seconds: float | None = None
    error: InferenceError | None = None
    restricted: str = ""

    @property
    def wants_token(self) -> bool:
        return isinstance(self.error, NotAuthorized)


NOT_WAITED_FOR = Answer(healthy=False, text="not waited for")


class Prober:
    """Probes servers, without or with the user's token.

    Attributes
    ----------
    at_once : bool
        With the token from the first probe on, because only a server that may get it was named.
    has_token : bool
        Whether there is a token.
    ignored : mapping
        Token files that are not trusted, and why.
    """

    def __init__(
        self, credentials: Credentials, tls: TlsFiles, *, timeout: float, allow_insecure_token: bool
    ) -> None:
        self._credentials, self._tls, self._timeout = credentials, tls, timeout
        self._allow_insecure_token = allow_insecure_token
        self._nobody = Credentials(NoToken(credentials.trouble))
        self.at_once = False
        self.has_token = credentials.known is not None
        self.ignored = credentials.source.ignored

    def look(self, address: Address, *, follows: bool) -> Answer:
        """Probe without the token; not at all if the token is to follow but would be sent unencrypted."""
        if self.at_once:
            return self.authenticate(address)
        answer = self._ask(address, self._nobody, meant=self._credentials.known if follows else None)
        if self.has_token and answer.wants_token:
            return replace(answer, text="there, and wants a token")
        return answer

    def authenticate(self, address: Address) -> Answer:
        """Probe with the token."""
        return self._ask(address, self._credentials)

    def _ask(self, address: Address, credentials: Credentials, *, meant: Token | None = None) -> Answer:
        from eaf_inference.inference import protocol

        started = time.monotonic()

        def ask_for(method: str, message: Any) -> Any:
            left = self._timeout - (time.monotonic() - started)
            limits = Limits(time_budget=0, request_timeout=max(left, 0.001))
            return ask([channel], [Question(method, message)], limits)[0]

        def answer(*, healthy: bool, text: str, error: InferenceError | None = None, restricted: str = "") -> Answer:
            return Answer(healthy, text, time.monotonic() - started, error, restricted)

        try:
            channel = Channel(address, self._credentials, self._tls, allow_insecure_token=self._allow_insecure_token)
            channel.metadata(meant)
        except InferenceError as error:
            return answer(healthy=False, text=str(error), error=error)
        channel.credentials = credentials
        try:
            if not _is_ready(ask_for):
                return answer(healthy=False, text="not ready: it is starting, stopping, or a model failed to load")
            try:
                index = ask_for("RepositoryIndex", protocol.RepositoryIndexRequest())
            except InferenceError as error:
                if not error.restricted:
                    raise
                _check_that_it_describes_models(ask_for, address)
                why = f"it does not list its models ({error.reason})"
                return answer(healthy=True, text=f"ready, but {why}", restricted=why)
        except InferenceError as error:
            return answer(healthy=False, text=error.reason or str(error).splitlines()[0], error=error)
        finally:
            channel.close()
        number = len({model.name for model in index.models})
        return answer(healthy=True, text=f"ready, {number} model{'s' * (number != 1)}")


def _is_ready(ask_for: Callable[[str, Any], Any]) -> bool:
    """Return whether a server is ready; one that forbids the question counts as ready."""
    from eaf_inference.inference import protocol

    try:
        return bool(ask_for("ServerReady", protocol.ServerReadyRequest()).ready)
    except InferenceError as error:
        if error.restricted:
            return True
        raise


def _check_that_it_describes_models(ask_for: Callable[[str, Any], Any], address: Address) -> None:
    """Check that a server without an index describes models, if only by the error that a model does not exist.

    Raises
    ------
    InferenceError
        The server allows none of these calls.
    """
    from eaf_inference.inference import protocol

    name = address.model or "eaf-inference"
    refused: InferenceError | None = None
    for method, message in (
        ("ModelMetadata", protocol.ModelMetadataRequest(name=name)),
        ("ModelConfig", protocol.ModelConfigRequest(name=name)),
    ):
        try:
            ask_for(method, message)
        except (ModelNotFound, ModelNotReady, InvalidInput):
            return
        except InferenceError as error:
            if not error.restricted:
                raise
            refused = error
        else:
            return
    assert refused is not None  # noqa: S101  (both were refused)
    if isinstance(refused, NotAuthorized):
        raise refused
    raise ConfigurationError(
        f"{address.url} answers none of the calls by which models are looked up (ModelMetadata, ModelConfig): "
        f"{refused.reason}. Is it a Triton inference server? If so, ask its operators to allow these calls."
    )
