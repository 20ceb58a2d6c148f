"""From nothing typed to a Triton that answers: a table of sources, probed side by side.

A server counts as healthy when it is ready and its repository index answers; one whose index fails is dead or
saturated (the contract of CMS SONIC) and is passed over. What every source said is kept.

Servers are asked without the user's token first: that a server wants one is an answer too. Then the chosen one gets
it, and only where it was named for that: by the user, by the operator, or by a facility of the same user. A variable
that other software reads too, or that Kubernetes sets for whatever service is called triton, is not enough.
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
from eaf_inference.credentials import Credentials, NoToken
from eaf_inference.errors import ConfigurationError, InferenceError, NoServerFound, NotAuthorized
from eaf_inference.inference.pipeline import Limits, Question, ask
from eaf_inference.inference.transport import Server
from eaf_inference.tables import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from eaf_inference.config import Address
    from eaf_inference.credentials import Token
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
    withheld : str
        Why the user's token is not sent there; empty where it is.
    """

    addresses: tuple[Address, ...]
    source: str
    withheld: str = ""

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
    return ",".join(next((facility.urls for facility in local.running()), ()))


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

_TOKEN_FILE = "token file"  # noqa: S105  (no password)
_NAMED_BY_OTHERS = ("TRITON_URL", "CMS SONIC", "Kubernetes service")  # not for this package's users


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
    prober = _Prober(credentials, tls, timeout=timeout, allow_insecure_token=allow_insecure_token)
    try:
        candidates: list[_Candidate] = []
        found = _candidates(url, known)
        named = [source for source, value in found if value and not isinstance(value, InferenceError)]
        prober.at_once = len(named) == 1 and _may_follow(named[0])
        for source, value in found:
            if isinstance(value, InferenceError):
                candidates.append((source, value))
            else:
                answers = [(each, pool.submit(prober.look, each, follows=_may_follow(source))) for each in value]
                candidates.append((source, answers))
        return _judge(candidates, prober, pool, wait_for_all=wait_for_all)
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


def _judge(
    candidates: Sequence[_Candidate], prober: _Prober, pool: ThreadPoolExecutor, *, wait_for_all: bool
) -> tuple[Endpoint, Attempts]:
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
        known = {
            address: future.result()
            for address, future in candidate
            if endpoint is None or wait_for_all or future.done()
        }
        if endpoint is None:
            known |= _introduced(source, known, prober, pool)
        healthy = [address for address, answer in known.items() if answer.healthy]
        chosen = endpoint is None and bool(healthy)
        if chosen:
            others = [address for address, _ in candidate if address not in healthy]
            endpoint = Endpoint((*healthy, *others), source, withheld=_withheld(source, healthy[0]))
        for address, _ in candidate:
            answer = known.get(address, _NOT_WAITED_FOR)
            attempts.append(Attempt(source, address.url, answer.text, answer.seconds, chosen=chosen))
            if answer.error is not None:
                errors.append(answer.error)
    attempts += [Attempt(_TOKEN_FILE, path, f"passed over: {why}") for path, why in prober.passed_over.items()]
    log.debug("discovery:\n%s", attempts)
    if endpoint is not None:
        return endpoint, attempts
    raise _none_found(attempts, errors)


def _may_follow(source: str) -> bool:
    """Whether the user's token may follow the first look at a server that this source names."""
    return source not in _NAMED_BY_OTHERS


def _introduced(
    source: str, known: Mapping[Address, _Answer], prober: _Prober, pool: ThreadPoolExecutor
) -> dict[Address, _Answer]:
    """What the servers of a source say to the user's token, where it is sent; how she can send it, where not."""
    there = {address: answer for address, answer in known.items() if answer.healthy or answer.wants_token}
    if not prober.has_token or prober.at_once:
        return {}
    if _may_follow(source):
        return dict(zip(there, pool.map(prober.authenticate, there), strict=True))
    return {address: _unintroduced(source, address, answer) for address, answer in there.items()}


def _unintroduced(source: str, address: Address, answer: _Answer) -> _Answer:
    """The answer of a server that does not get the token, for a user who has one."""
    if answer.healthy:
        return replace(answer, text=f"{answer.text}; your token is not sent there")
    error = NotAuthorized(
        f"A Triton that wants a token was found at {address.url}. Your token was not sent, because {source} alone "
        f"names it. {_consent(address)}."
    )
    return replace(answer, text=f"{answer.text}; yours is not sent. {_consent(address)}", error=error)


def _withheld(source: str, address: Address) -> str:
    """What a user reads whose chosen server wants a token after all; empty where it gets hers."""
    if _may_follow(source):
        return ""
    return f"No token is sent there, because {source} alone names it. {_consent(address)}."


def _consent(address: Address) -> str:
    return f'If you trust this server, name it yourself: %triton_connect {address.url} or connect("{address.url}")'


def _none_found(attempts: Attempts, errors: Sequence[InferenceError]) -> InferenceError:
    """The error where no server can be used."""
    named = [each for each in attempts if each.value and each.source != _TOKEN_FILE]
    for error in errors:  # of more use than "none answered": one is there and refuses, or our own files are wrong
        if isinstance(error, NotAuthorized) or (len(named) == 1 and isinstance(error, ConfigurationError)):
            refused = type(error)(f"{error}\n{attempts}")
            refused.attempts = attempts
            return refused
    nothing = NoServerFound(
        "No Triton inference server answered. Give its address (%triton_connect grpc://host:port), set "
        "EAF_TRITON_URL, or start one on this machine with `eaf-inference up`. What was tried:\n"
        f"{attempts}"
    )
    nothing.attempts, nothing.named = attempts, bool(named)
    nothing.reason = "no server answers where one is named" if named else "nothing names a server"
    return nothing


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one server said when it was asked whether it is ready and what it serves."""

    healthy: bool
    text: str
    seconds: float | None = None
    error: InferenceError | None = None

    @property
    def wants_token(self) -> bool:
        return isinstance(self.error, NotAuthorized)


_NOT_WAITED_FOR = _Answer(healthy=False, text="not waited for")


class _Prober:
    """Asks servers, without the user's token or with it.

    Attributes
    ----------
    at_once : bool
        With it from the first look on: nothing but what is to get it was named.
    has_token : bool
        Whether there is one.
    passed_over : mapping
        Token files that are not believed, and why.
    """

    def __init__(
        self, credentials: Credentials, tls: TlsFiles, *, timeout: float, allow_insecure_token: bool
    ) -> None:
        self._credentials, self._tls, self._timeout = credentials, tls, timeout
        self._allow_insecure_token = allow_insecure_token
        self._nobody = Credentials(NoToken(credentials.trouble))
        self.at_once = False
        self.has_token = credentials.known is not None
        self.passed_over = credentials.source.passed_over

    def look(self, address: Address, *, follows: bool) -> _Answer:
        """Ask without the token; nothing at all where it is to follow and would travel unencrypted."""
        if self.at_once:
            return self.authenticate(address)
        answer = self._ask(address, self._nobody, meant=self._credentials.known if follows else None)
        if self.has_token and answer.wants_token:
            return replace(answer, text=f"there, and wants a token ({answer.text})")
        return answer

    def authenticate(self, address: Address) -> _Answer:
        """Ask with the token."""
        return self._ask(address, self._credentials)

    def _ask(self, address: Address, credentials: Credentials, *, meant: Token | None = None) -> _Answer:
        from eaf_inference.inference import protocol

        started = time.monotonic()

        def ask_for(method: str, message: Any) -> Any:
            left = self._timeout - (time.monotonic() - started)
            limits = Limits(time_budget=0, request_timeout=max(left, 0.001))
            return ask([server], [Question(method, message)], limits)[0]

        def answer(*, healthy: bool, text: str, error: InferenceError | None = None) -> _Answer:
            return _Answer(healthy, text, time.monotonic() - started, error)

        try:
            server = Server(address, self._credentials, self._tls, allow_insecure_token=self._allow_insecure_token)
            server.metadata(meant)
        except InferenceError as error:
            return answer(healthy=False, text=str(error), error=error)
        server.credentials = credentials
        try:
            if not ask_for("ServerReady", protocol.ServerReadyRequest()).ready:
                return answer(healthy=False, text="not ready: it is starting, stopping, or a model failed to load")
            index = ask_for("RepositoryIndex", protocol.RepositoryIndexRequest())
        except InferenceError as error:
            return answer(healthy=False, text=error.reason or str(error).splitlines()[0], error=error)
        finally:
            server.close()
        number = len({model.name for model in index.models})
        return answer(healthy=True, text=f"ready, {number} model{'s' * (number != 1)}")
