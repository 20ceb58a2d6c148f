"""From nothing typed to a Triton that answers: a table of sources, probed side by side.

A server counts as healthy when it is ready and its repository index answers; one whose index fails is dead or
saturated (the contract of CMS SONIC) and is passed over. What every source said is kept.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from eaf_inference import local
from eaf_inference.config import parse_urls
from eaf_inference.errors import ConfigurationError, InferenceError, NoServerFound, NotAuthorized
from eaf_inference.inference.pipeline import Limits, Question, ask
from eaf_inference.inference.transport import Server
from eaf_inference.tables import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from eaf_inference.config import Address
    from eaf_inference.credentials import Credentials
    from eaf_inference.document import Document, Known
    from eaf_inference.tls import TlsFiles

__all__ = ["HUB_DOCUMENT", "Attempt", "Attempts", "Endpoint", "discover", "given"]

log = logging.getLogger(__name__)

PROBE_TIMEOUT = 2.0  # seconds for each server


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a healthy Triton was found.

    Attributes
    ----------
    url : str
        Of the first healthy replica.
    addresses : tuple of Address
        All replicas, the healthy ones first.
    source : str
        What named it.
    """

    addresses: tuple[Address, ...]
    source: str

    @property
    def url(self) -> str:
        return self.addresses[0].url

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(address.url for address in self.addresses)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one source: its name, what it named, how that went, and how long it took."""

    source: str
    value: str
    outcome: str
    seconds: float | None = None
    chosen: bool = False

    @property
    def time(self) -> str:
        return "" if self.seconds is None else f"{1000 * self.seconds:.0f} ms"


class Attempts(list[Attempt]):
    """All sources, in order; prints as a table."""

    def __str__(self) -> str:
        return aligned(
            ("", "source", "value", "outcome", "time"),
            (("→" if each.chosen else "", each.source, each.value, each.outcome, each.time) for each in self),
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from eaf_inference.notebook.display import attempts_html

        return attempts_html(self)


def _host_and_port(environment: Mapping[str, str], host: str, port: str, default: str) -> str:
    named = environment.get(host, "").strip()
    return f"grpc://{named}:{environment.get(port, '').strip() or default}" if named else ""


def _local_facilities() -> str:
    try:
        return ",".join(next((facility.urls for facility in local.running()), ()))
    except OSError as error:  # a runtime directory that is not ours to use
        raise ConfigurationError(f"The note of a local facility cannot be read: {error}") from error


def _hub_document(document: Document | None) -> str:
    """What it names; where it cannot be read and nothing of it is known, that is raised."""
    if document is None:
        return ""
    if document.error is not None and document.read_at is None:
        raise document.error
    return ",".join(document.settings.get("urls", ()))


HUB_DOCUMENT = "Hub facility document"

# The sources after an explicit URL, in order: name -> URLs, separated by commas, from environment and configuration.
_SOURCES: dict[str, Callable[[Mapping[str, str], Known], str]] = {
    "EAF_TRITON_URL": lambda env, _: env.get("EAF_TRITON_URL", "").strip(),
    "TRITON_URL": lambda env, _: env.get("TRITON_URL", "").strip(),
    "facility configuration": lambda _, known: ",".join(known.own.urls),
    HUB_DOCUMENT: lambda _, known: _hub_document(known.document),
    "CMS SONIC": lambda env, _: _host_and_port(env, "SONIC_LOCAL_BALANCER_HOST", "SONIC_LOCAL_BALANCER_PORT", "8001"),
    "Kubernetes service": lambda env, _: _host_and_port(
        env, "TRITON_SERVICE_HOST", "TRITON_SERVICE_PORT_GRPC", "8001"
    ),
    "local facility": lambda _env, _known: _local_facilities(),
}


def given(addresses: tuple[Address, ...]) -> tuple[Endpoint, Attempts]:
    """What the Dask client of this worker has found already; nothing is probed again on each worker."""
    source = "Dask client"
    attempts = (Attempt(source, address.url, "given by your notebook", chosen=True) for address in addresses)
    return Endpoint(addresses, source), Attempts(attempts)


def discover(
    url: str | Sequence[str] | None,
    *,
    known: Known,
    credentials: Credentials,
    tls: TlsFiles,
    allow_insecure_token: bool = False,
    timeout: float = PROBE_TIMEOUT,
    wait_for_all: bool = False,
) -> tuple[Endpoint, Attempts]:
    """Find the first healthy Triton, by the order of the sources.

    Parameters
    ----------
    url : str or sequence of str, optional
        An explicit URL, or several replicas'. No other source is tried then: whoever names a server wants it.
    known : Known
        What this machine's files and the Hub's facility document say.
    timeout : float
        Seconds that each server has for its answers.
    wait_for_all : bool
        Wait for the servers after the chosen one too, so that the table is complete.

    Returns
    -------
    endpoint : Endpoint
    attempts : Attempts
        What every source said.

    Raises
    ------
    NoServerFound, NotAuthorized, ConfigurationError
        There is none; the message holds the table of attempts.
    """
    pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="eaf-inference-probe")

    def probe(address: Address) -> _Answer:
        return _probe(address, credentials, tls, timeout=timeout, allow_insecure_token=allow_insecure_token)

    try:
        candidates: list[_Candidate] = []
        for source, value in _candidates(url, known):
            if isinstance(value, InferenceError):
                candidates.append((source, value))
            else:
                candidates.append((source, [(address, pool.submit(probe, address)) for address in value]))
        return _judge(candidates, wait_for_all=wait_for_all)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _candidates(
    url: str | Sequence[str] | None, known: Known
) -> list[tuple[str, tuple[Address, ...] | InferenceError]]:
    """Every source, with the addresses that it names or why it cannot be read."""
    if url is not None:
        return [("explicit URL", parse_urls(url if isinstance(url, str) else list(url)))]
    found: list[tuple[str, tuple[Address, ...] | InferenceError]] = []
    for source, read in _SOURCES.items():
        try:
            value = read(os.environ, known)
            found.append((source, parse_urls(value) if value else ()))
        except InferenceError as error:
            found.append((source, error))
            continue
        if source == HUB_DOCUMENT and known.document is not None and known.document.error is not None:
            found.append((source, known.document.error))  # and the addresses are those of an earlier time
    return found


_Candidate: TypeAlias = "tuple[str, list[tuple[Address, Future[_Answer]]] | InferenceError]"


def _judge(candidates: Sequence[_Candidate], *, wait_for_all: bool) -> tuple[Endpoint, Attempts]:
    """Wait for the answers, in order, and choose."""
    attempts = Attempts()
    endpoint: Endpoint | None = None
    errors: list[InferenceError] = []
    for source, candidate in candidates:
        if isinstance(candidate, InferenceError):
            attempts.append(Attempt(source, "", str(candidate)))
            continue
        if not candidate:
            attempts.append(Attempt(source, "", "not set"))
            continue
        healthy: list[Address] = []
        first = len(attempts)
        for address, future in candidate:
            if endpoint is not None and not wait_for_all and not future.done():
                attempts.append(Attempt(source, address.url, "not waited for"))
                continue
            answer = future.result()
            attempts.append(Attempt(source, address.url, answer.text, answer.seconds))
            if answer.healthy:
                healthy.append(address)
            if answer.error is not None:
                errors.append(answer.error)
        if healthy and endpoint is None:
            others = [address for address, _ in candidate if address not in healthy]
            endpoint = Endpoint((*healthy, *others), source)
            attempts[first:] = [replace(each, chosen=each.value in endpoint.urls) for each in attempts[first:]]
    log.debug("discovery:\n%s", attempts)
    if endpoint is not None:
        return endpoint, attempts
    named = [each for each in attempts if each.value]
    for error in errors:  # of more use than "none answered": one is there and refuses, or our own files are wrong
        if isinstance(error, NotAuthorized) or (len(named) == 1 and isinstance(error, ConfigurationError)):
            refused = type(error)(f"{error}\n{attempts}")
            refused.attempts = attempts
            raise refused
    nothing = NoServerFound(
        "No Triton inference server answered. Give its address (%triton_connect grpc://host:port), set "
        "EAF_TRITON_URL, or start one on this machine with `eaf-inference up`. What was tried:\n"
        f"{attempts}"
    )
    nothing.attempts, nothing.named = attempts, bool(named)
    nothing.reason = "no server answers where one is named" if named else "nothing names a server"
    raise nothing


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one server said when it was asked whether it is ready and what it serves."""

    healthy: bool
    text: str
    seconds: float
    error: InferenceError | None = None


def _probe(
    address: Address, credentials: Credentials, tls: TlsFiles, *, timeout: float, allow_insecure_token: bool
) -> _Answer:
    from tritonclient.grpc import service_pb2

    started = time.monotonic()

    def ask_for(method: str, message: Any) -> Any:
        left = timeout - (time.monotonic() - started)
        limits = Limits(time_budget=0, request_timeout=max(left, 0.001))
        return ask([server], [Question(method, message)], limits)[0]

    def answer(*, healthy: bool, text: str, error: InferenceError | None = None) -> _Answer:
        return _Answer(healthy, text, time.monotonic() - started, error)

    try:
        server = Server(address, credentials, tls, allow_insecure_token=allow_insecure_token)
    except InferenceError as error:
        return answer(healthy=False, text=str(error), error=error)
    try:
        if not ask_for("ServerReady", service_pb2.ServerReadyRequest()).ready:
            return answer(healthy=False, text="not ready: it is starting, stopping, or a model failed to load")
        index = ask_for("RepositoryIndex", service_pb2.RepositoryIndexRequest())
    except InferenceError as error:
        return answer(healthy=False, text=error.reason or str(error).splitlines()[0], error=error)
    finally:
        server.close()
    number = len({model.name for model in index.models})
    return answer(healthy=True, text=f"ready, {number} model{'s' * (number != 1)}")
