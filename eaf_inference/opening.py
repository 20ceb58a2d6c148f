"""How a connection gets its server and credentials: by discovery, or on a Dask worker from its client."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from eaf_inference._html import code, dim, page, span
from eaf_inference.auth.credentials import Credentials
from eaf_inference.auth.sources import BearerDiscovery, NoToken, TokenFile
from eaf_inference.auth.tls import TlsFiles
from eaf_inference.auth.token import describe_expiry
from eaf_inference.auth.token_service import ANSWER_WITHIN, TokenService
from eaf_inference.auth.worker_session import worker_session
from eaf_inference.config import load_facility
from eaf_inference.discovery.attempts import Attempt, Attempts
from eaf_inference.discovery.discover import HUB_DOCUMENT, discover, given
from eaf_inference.discovery.hub_document import known_facility
from eaf_inference.discovery.probe import PROBE_TIMEOUT
from eaf_inference.errors import InferenceError
from eaf_inference.inference.pipeline import Limits
from eaf_inference.inference.transport import Channel
from eaf_inference.replicas import Replicas

if TYPE_CHECKING:
    from eaf_inference.auth.sources import TokenSource
    from eaf_inference.auth.worker_session import WorkerSession
    from eaf_inference.config import Facility
    from eaf_inference.discovery.endpoint import Endpoint
    from eaf_inference.registry import Options

__all__ = ["Opened", "find_server", "follow_client", "session_for"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A server that was found, with everything a connection needs of it."""

    facility: Facility
    endpoint: Endpoint
    attempts: Attempts
    credentials: Credentials
    tls: TlsFiles
    limits: Limits
    allow_insecure_token: bool
    replicas: Replicas

    @property
    def identity(self) -> str:
        """The user and the token's expiry, in words."""
        token = self.credentials.known
        if token is None:
            return "no token sent" if self.endpoint.withheld else "no token needed"
        expiry = describe_expiry(token.expires_at, renewed=self.credentials.renews)
        return f"{token.user or 'opaque token'}, {expiry}"

    def __str__(self) -> str:
        more = len(self.endpoint.addresses) - 1
        replicas = f" and {more} more" if more else ""
        restricted = f"; {self.endpoint.restricted}" if self.endpoint.restricted else ""
        return f"{self.endpoint.url}{replicas} ({self.endpoint.source}), {self.identity}{restricted}"

    def html(self) -> str:
        """Return the same for a notebook."""
        endpoint = self.endpoint
        now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")  # a saved output shows how old it is
        restricted = f" · {endpoint.restricted}" if endpoint.restricted else ""
        replicas = f"{len(endpoint.urls)} replicas · " if len(endpoint.urls) > 1 else ""
        return page(
            f"{span('title', 'Triton')} {code(endpoint.url, folds=True)} "
            + dim(f"· connected as of {now} · {replicas}found by {endpoint.source} · ")
            + dim(f"{self.identity}{restricted}")
        )


def find_server(options: Options, source: TokenSource | None, *, wait_for_all: bool = False) -> Opened:
    """Read the configuration and the user's token, and find a server by discovery.

    Parameters and errors are those of `eaf_inference.connect`.
    """
    answers_within = min(ANSWER_WITHIN, options.timeout / 2)  # for each of the token service's two replies
    known = known_facility(timeout=answers_within)
    facility = known.facility
    credentials = Credentials(source or _source_of(known.own, answers_within))
    try:
        credentials.token()  # a token that cannot be read is reported before any server is tried
    except InferenceError as error:
        if known.document is not None:
            outcome = known.document.error or "it could be read, but no server was tried"
            error.attempts = Attempts([Attempt(HUB_DOCUMENT, known.document.url, str(outcome))])
        raise
    tls = TlsFiles.find(
        ca=options.ca or facility.ca, certificate=facility.client_certificate, key=facility.client_key
    )
    if options.ca:
        _ = tls.authorities  # a wrong file is an error without TLS too
    insecure = options.allow_insecure_token
    insecure = facility.allow_insecure_token if insecure is None else insecure
    endpoint, attempts = discover(
        options.url,
        known=known,
        credentials=credentials,
        tls=tls,
        allow_insecure_token=insecure,
        timeout=min(PROBE_TIMEOUT, options.timeout / 2),  # without a token, then with it
        wait_for_all=wait_for_all,
    )
    if endpoint.withheld:
        credentials = Credentials(NoToken(endpoint.withheld))
    limits = Limits(
        time_budget=facility.time_budget,
        request_timeout=facility.request_timeout,
        max_in_flight=facility.max_in_flight,
    )
    replicas = _reach(endpoint, credentials, tls, allow_insecure_token=insecure, timeout=options.timeout)
    return Opened(facility, endpoint, attempts, credentials, tls, limits, insecure, replicas)


def session_for(options: Options, source: TokenSource | None) -> WorkerSession | None:
    """Return what this worker's Dask client pushed, if it is for the same server and user."""
    session = worker_session()
    if session is None or source is not None or not (options.url is None or session.names(options.url)):
        return None
    return session


def follow_client(session: WorkerSession, before: Opened | None) -> Opened:
    """Take the server and the credentials that the Dask client pushed to this worker; `before` if it is the same."""
    if before is not None and session.addresses in ((), before.endpoint.addresses):
        return before
    facility = load_facility() if before is None else before.facility
    values = session.wait(facility.time_budget)
    credentials = Credentials(session.token)
    tls = TlsFiles.find(ca=None, certificate=facility.client_certificate, key=facility.client_key)
    known = {each.name for each in fields(Limits)}  # the client may be of another version
    limits = Limits(**{name: value for name, value in values["settings"].items() if name in known})
    credentials.token()
    endpoint, attempts = given(session.addresses)
    tls, insecure = tls.with_authorities(values["ca"]), values["allow_insecure_token"]
    # no user waits at a prompt for a worker: questions may take as long as requests
    replicas = _reach(endpoint, credentials, tls, allow_insecure_token=insecure, timeout=limits.time_budget)
    return Opened(facility, endpoint, attempts, credentials, tls, limits, insecure, replicas)


def _reach(
    endpoint: Endpoint, credentials: Credentials, tls: TlsFiles, *, allow_insecure_token: bool, timeout: float
) -> Replicas:
    channels = [
        Channel(address, credentials, tls, allow_insecure_token=allow_insecure_token)
        for address in endpoint.addresses
    ]
    return Replicas(channels, endpoint.url, timeout=timeout)


def _source_of(own: Facility, timeout: float) -> TokenSource:
    """Return where this user's tokens come from by default."""
    if own.token_service:
        return TokenService(own.token_service, ca=own.ca or None, timeout=timeout)
    return TokenFile(own.token_file) if own.token_file else BearerDiscovery()
