"""Find a Triton that answers: a table of sources, whose servers are probed in parallel.

The first healthy server is taken (see `probe`). The result of every source is kept.

Servers are probed without the user's token first; that a server requires one is a result too. Only the chosen server
then gets the token, and only if the user, the operator or the same user's local facility named it. A variable that
other software reads too, or that Kubernetes sets for any service called triton, does not suffice.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from eaf_inference._proxies import unused_proxy
from eaf_inference.address import possible_addresses
from eaf_inference.discovery import local_facility
from eaf_inference.discovery.attempts import Attempt, Attempts
from eaf_inference.discovery.endpoint import Endpoint
from eaf_inference.discovery.probe import NOT_WAITED_FOR, PROBE_TIMEOUT, Answer, Prober
from eaf_inference.errors import ConfigurationError, InferenceError, NoServerFound, NotAuthorized, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from eaf_inference.address import Address
    from eaf_inference.auth.credentials import Credentials
    from eaf_inference.auth.tls import TlsFiles
    from eaf_inference.discovery.hub_document import Document, ResolvedFacility

__all__ = ["HUB_DOCUMENT", "discover", "given"]

log = logging.getLogger(__name__)


def _host_and_port(environment: Mapping[str, str], host: str, port: str, default: str) -> str:
    named = environment.get(host, "").strip()
    return f"grpc://{named}:{environment.get(port, '').strip() or default}" if named else ""


def _local_facilities() -> str:
    return ",".join(next((facility.urls for facility in local_facility.running()), ()))


def _hub_document(document: Document | None) -> str:
    """Return the URLs in the document; raise its error if it could never be read."""
    if document is None:
        return ""
    if document.error is not None and document.read_at is None:
        raise document.error
    return ",".join(document.settings.get("urls", ()))


HUB_DOCUMENT = "Hub facility document"

# The sources after an explicit URL, in order: name -> URLs, separated by commas, from environment and configuration.
_SOURCES: dict[str, Callable[[Mapping[str, str], ResolvedFacility], str]] = {
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

_EXPLICIT = "explicit URL"
_TOKEN_FILE = "token file"  # noqa: S105  (no password)
_NAMED_BY_OTHERS = ("TRITON_URL", "CMS SONIC", "Kubernetes service")  # not meant for this package alone


def given(addresses: tuple[Address, ...]) -> tuple[Endpoint, Attempts]:
    """Return what this worker's Dask client has found; workers do not probe it again."""
    source = "Dask client"
    attempts = (Attempt(source, address.url, "given by your notebook", chosen=True) for address in addresses)
    return Endpoint(addresses, source), Attempts(attempts)


def discover(
    url: str | Sequence[str] | None,
    *,
    known: ResolvedFacility,
    credentials: Credentials,
    tls: TlsFiles,
    allow_insecure_token: bool = False,
    timeout: float = PROBE_TIMEOUT,
    wait_for_all: bool = False,
) -> tuple[Endpoint, Attempts]:
    """Find the first healthy Triton in the order of the sources.

    Parameters
    ----------
    url : str or sequence of str, optional
        One or several replicas that the user named; no other source is tried then. A bare host name is tried on
        both usual ports, with and without TLS.
    known : ResolvedFacility
        The configuration from this machine's files and the Hub's facility document.
    timeout : float
        Seconds for each server's answers.
    wait_for_all : bool
        Wait for all servers, so that the table is complete.

    Returns
    -------
    endpoint : Endpoint
    attempts : Attempts
        The result of every source.

    Raises
    ------
    NoServerFound, NotAuthorized, ConfigurationError
        No server can be used; the message has the table of attempts.
    """
    pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="eaf-inference-probe")
    prober = Prober(credentials, tls, timeout=timeout, allow_insecure_token=allow_insecure_token)
    try:
        candidates: list[_Candidate] = []
        found = _candidates(url, known)
        named = [source for source, value in found if value and not isinstance(value, InferenceError)]
        guessed = any(len(each) > 1 for _, value in found if isinstance(value, tuple) for each in value)
        prober.at_once = len(named) == 1 and _may_follow(named[0]) and not guessed
        for source, value in found:
            if isinstance(value, InferenceError):
                candidates.append((source, value))
            else:
                follows = _may_follow(source)
                candidates.append(
                    (
                        source,
                        [{each: pool.submit(prober.look, each, follows=follows) for each in one} for one in value],
                    )
                )
        return _judge(candidates, prober, pool, wait_for_all=wait_for_all)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _candidates(
    url: str | Sequence[str] | None, known: ResolvedFacility
) -> list[tuple[str, tuple[tuple[Address, ...], ...] | InferenceError]]:
    """Return each source with the servers it names (each by its possible addresses), or with its error."""
    if url is not None:
        return [(_EXPLICIT, possible_addresses(url if isinstance(url, str) else list(url)))]
    found: list[tuple[str, tuple[tuple[Address, ...], ...] | InferenceError]] = []
    for source, read in _SOURCES.items():
        try:
            value = read(os.environ, known)
            found.append((source, possible_addresses(value) if value else ()))
        except InferenceError as error:
            found.append((source, error))
            continue
        if source == HUB_DOCUMENT and known.document is not None and known.document.error is not None:
            found.append((source, known.document.error))  # its addresses are from an earlier reading
    return found


# a source, and for each of its servers the pending probe of each possible address
_Candidate: TypeAlias = "tuple[str, list[dict[Address, Future[Answer]]] | InferenceError]"


def _judge(
    candidates: Sequence[_Candidate], prober: Prober, pool: ThreadPoolExecutor, *, wait_for_all: bool
) -> tuple[Endpoint, Attempts]:
    """Wait for the answers in order, and choose a server."""
    attempts = Attempts()
    endpoint: Endpoint | None = None
    said: dict[Address, Answer] = {}
    for source, candidate in candidates:
        if isinstance(candidate, InferenceError):
            attempts.append(Attempt(source, "", str(candidate)))
            continue
        if not candidate:
            attempts.append(Attempt(source, "", "not set"))
            continue
        asked = {address: future for each in candidate for address, future in each.items()}
        known = {
            address: future.result()
            for address, future in asked.items()
            if endpoint is None or wait_for_all or future.done()
        }
        if endpoint is None:
            known |= _introduced(source, [list(each) for each in candidate], known, prober, pool)
        healthy = [first for each in candidate if (first := _first_healthy(each, known)) is not None]
        chosen = endpoint is None and bool(healthy)
        if chosen:
            others = [address for each in candidate if len(each) == 1 for address in each if address not in healthy]
            endpoint = Endpoint(
                (*healthy, *others),
                source,
                withheld=_withheld(source, healthy[0]),
                restricted=known[healthy[0]].restricted,
            )
        for address in (address for each in candidate for address in each):
            answer = known.get(address, NOT_WAITED_FOR)
            said[address] = answer
            used = chosen and endpoint is not None and address in endpoint.addresses
            attempts.append(Attempt(source, address.url, answer.text, answer.seconds, chosen=used))
    attempts += [Attempt(_TOKEN_FILE, path, f"ignored: {why}") for path, why in prober.ignored.items()]
    log.debug("discovery:\n%s", attempts)
    if endpoint is not None:
        return endpoint, attempts
    raise _none_found(attempts, said)


def _may_follow(source: str) -> bool:
    """Return whether the user's token may be sent to a server that this source names."""
    return source not in _NAMED_BY_OTHERS


def _first_healthy(addresses: Iterable[Address], known: Mapping[Address, Answer]) -> Address | None:
    """Return the first of a server's possible addresses that is healthy."""
    return next((each for each in addresses if each in known and known[each].healthy), None)


def _introduced(
    source: str,
    servers: Iterable[Iterable[Address]],
    known: Mapping[Address, Answer],
    prober: Prober,
    pool: ThreadPoolExecutor,
) -> dict[Address, Answer]:
    """Probe a source's servers again with the user's token; if it may not be sent there, explain how to allow it.

    Of a server's possible addresses, the first that answers gets the token.
    """
    answering = ([each for each in server if known[each].healthy or known[each].wants_token] for server in servers)
    there = {each[0]: known[each[0]] for each in answering if each}
    if not prober.has_token or prober.at_once:
        return {}
    if _may_follow(source):
        return dict(zip(there, pool.map(prober.authenticate, there), strict=True))
    return {address: _unintroduced(source, address, answer) for address, answer in there.items()}


def _unintroduced(source: str, address: Address, answer: Answer) -> Answer:
    """Return the answer of a server to which the user's token is not sent."""
    if answer.healthy:
        return replace(answer, text=f"{answer.text}; your token is not sent there")
    error = NotAuthorized(
        f"A Triton that requires a token was found at {address.url}. Your token was not sent, because only {source} "
        f"names it. {_consent(address)}."
    )
    return replace(answer, text=f"{answer.text}; yours is not sent. {_consent(address)}", error=error)


def _withheld(source: str, address: Address) -> str:
    """Explain why the chosen server does not get the user's token; empty if it does."""
    if _may_follow(source):
        return ""
    return f"No token is sent there, because only {source} names it. {_consent(address)}."


def _consent(address: Address) -> str:
    return f'If you trust this server, name it yourself: %triton_connect {address.url} or connect("{address.url}")'


def _none_found(attempts: Attempts, said: Mapping[Address, Answer]) -> InferenceError:
    """Return the error if no server can be used."""
    errors = [answer.error for answer in said.values() if answer.error is not None]
    unreached = {address.host for address, answer in said.items() if isinstance(answer.error, ServerUnavailable)}
    named = [each for each in attempts if each.value and each.source != _TOKEN_FILE]
    table = "" if len(named) == 1 and named[0].source == _EXPLICIT else f"\n{attempts}"  # it would repeat the message
    for error in errors:  # more useful than "none answered": a server refused, or our own files are wrong
        if isinstance(error, NotAuthorized) or (len(named) == 1 and isinstance(error, ConfigurationError)):
            refused = type(error)(f"{error}{table}")
            refused.attempts = attempts
            return refused
    sentences = [_what_to_do(named), *filter(None, map(unused_proxy, sorted(unreached)))]
    nothing = NoServerFound(" ".join(sentences) + (f" What was tried:{table}" if table else ""))
    nothing.attempts, nothing.named = attempts, bool(named)
    nothing.reason = "no server answers where one is named" if named else "nothing names a server"
    return nothing


def _what_to_do(named: Sequence[Attempt]) -> str:
    if not named:
        return (
            "Nothing names a Triton inference server. Give its address (%triton_connect grpc://host:port), set "
            "EAF_TRITON_URL, or start one on this machine with `eaf-inference up`."
        )
    check = (
        "Check host and port (Triton's gRPC port is usually 8001, or 443 with TLS; 8000 is its HTTP port, 8002 its "
        "metrics), that the server runs, and that this machine reaches it."
    )
    if named[0].source != _EXPLICIT:
        return (
            f"No Triton inference server answers where one is named. {check} Another one can be named with "
            "%triton_connect grpc://host:port."
        )
    if len(named) == 1:
        return f"No Triton inference server answers at {named[0].value}: {named[0].outcome}. {check}"
    return f"No Triton inference server answers at any of these addresses. {check}"
