"""A connection: the facility's Triton, this user's credentials, and the models behind them."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from eaf_inference import lookup
from eaf_inference._text import printable
from eaf_inference.catalogue import ready_versions, why_not
from eaf_inference.config import load_facility
from eaf_inference.credentials import (
    BearerDiscovery,
    Credentials,
    NoToken,
    SecretText,
    StaticToken,
    TokenFile,
    TokenSource,
    describe_expiry,
)
from eaf_inference.discovery import HUB_DOCUMENT, Attempt, Attempts, Endpoint, discover, given
from eaf_inference.document import Known, known_facility
from eaf_inference.errors import ConfigurationError, InferenceError, InvalidInput, ServerUnavailable
from eaf_inference.inference.interrupts import stopping
from eaf_inference.inference.pipeline import Limits, Question, ask
from eaf_inference.inference.traffic import Traffic
from eaf_inference.inference.transport import CLOSED, Server
from eaf_inference.injected import Injected, injected
from eaf_inference.probe import PROBE_TIMEOUT
from eaf_inference.queue_times import QueueTimes
from eaf_inference.registry import NOTHING_SAID, Follower, Options, followers, made, shared
from eaf_inference.tls import TlsFiles
from eaf_inference.token_service import ANSWER_WITHIN, TokenService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from distributed import Client

    from eaf_inference.catalogue import ModelTable
    from eaf_inference.config import Facility
    from eaf_inference.dask.clusters import ClusterTable
    from eaf_inference.dask.submit import Submission
    from eaf_inference.inference.model import Model
    from eaf_inference.inference.padding import PaddingCheck
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.notebook.monitor import Monitor

__all__ = ["Connection", "connect"]

Found = TypeVar("Found")

_STOPPED = "Stopped while the server was asked; nothing is returned."


def connect(
    url: str | Sequence[str] | None = None,
    *,
    token: str | TokenSource | None = None,
    ca: str | os.PathLike[str] | None = None,
    allow_insecure_token: bool | None = None,
    timeout: float = 10.0,
    explain: bool = False,
) -> Connection:
    """Find the facility's Triton and connect to it as this user.

    On a Dask worker that was configured by its client, ``connect()`` gives the one connection of that process, with
    the client's endpoint and credentials.

    Parameters
    ----------
    url : str or sequence of str, optional
        ``grpc://host:port``, ``grpcs://host:port`` (TLS) or coffea's ``triton+grpc://host:port/model/version``;
        several are replicas. By default it is found: environment, facility configuration, CMS SONIC,
        Kubernetes, a facility on this machine.
    token : str or TokenSource, optional
        By default the facility's token file, else WLCG bearer token discovery.
    ca : path, optional
        PEM file of the certificate authorities to trust; by default the facility's, else the system's.
    allow_insecure_token : bool, optional
        Send the token over an unencrypted channel to another machine too.
    timeout : float
        Seconds for finding the server, and for each look at its models as a whole (not for inference).
    explain : bool
        Wait for every source's answer, so that `Connection.attempts` is complete.

    Returns
    -------
    Connection

    Raises
    ------
    NoServerFound
        No server answered; the message holds the table of what was tried.
    NotAuthorized
        One is there and refuses the credentials.
    ConfigurationError
        A URL, file or setting is wrong.
    """
    if isinstance(token, str):
        token = StaticToken(token)  # from here on, no traceback that shows variables shows its text
    with stopping("Stopped before a connection was made."):  # no decorator: it would hold the token
        options = Options(
            url=url if url is None or isinstance(url, str) else tuple(url),
            ca=None if ca is None else os.fspath(ca),
            allow_insecure_token=allow_insecure_token,
            timeout=timeout,
        )
        if options == NOTHING_SAID and token is None and injected() is not None:
            connection = _arrived(options)
            connection.open()
            return connection
        connection = Connection(options, token)
        connection.open(wait_for_all=explain)
        made(connection)
        if find_spec("distributed") is not None:
            from eaf_inference.dask.config import bring_clusters_up_connected

            bring_clusters_up_connected(connection)
        return connection


class Connection:
    """One Triton, or several replicas of it, reached as one user.

    Made by `connect`. Pickles without channels or credentials: where it arrives it connects on first use, with
    what that machine has.

    Attributes
    ----------
    attempts : Attempts
        What every source of discovery said.
    limits : Limits
        Time budget and window of inference calls.
    traffic : Traffic
        What its models have sent and got back.
    """

    def __init__(self, options: Options, source: TokenSource | None = None) -> None:
        self._options = options
        self._source = source
        self._servers: list[Server] = []
        self._serving: dict[tuple[str, str], list[Server]] = {}
        self._endpoint: Endpoint | None = None
        self._closed = False
        self._given: Injected | None = None
        self._facility: Facility | None = None
        self._patience = options.timeout
        self._opening = threading.Lock()
        self._queue_times = QueueTimes()
        self.attempts = Attempts()
        self.limits = Limits()
        self.traffic = Traffic()
        self.paddings: dict[ModelSpec, PaddingCheck] = {}  # shared by all copies of a model in this process

    @property
    def closed(self) -> bool:
        return self._closed

    def open(self, *, wait_for_all: bool = False) -> None:
        """Find the server, if that is not done yet."""
        if self._closed:
            raise ConfigurationError(CLOSED)
        with self._opening:  # a connection that arrived in a task is opened by the first thread that needs it
            if self._endpoint is None:
                self._given = self._what_was_given()
                if self._given is None:
                    known = known_facility(timeout=self._answers_within)
                    self._facility = known.facility
                    self._find_server(known, wait_for_all=wait_for_all)
                else:
                    self._facility = load_facility()
            if self._given is not None:
                self._take_what_was_given(self._given)

    def _find_server(self, known: Known, *, wait_for_all: bool) -> None:
        options, facility = self._options, known.facility
        self._credentials = Credentials(self._source or _source_of(known.own, self._answers_within))
        try:
            self._credentials.token()  # a token that cannot be read is said before anything is tried
        except InferenceError as error:
            if known.document is not None:
                said = known.document.error or "it names what is to be connected to"
                error.attempts = Attempts([Attempt(HUB_DOCUMENT, known.document.url, str(said))])
            raise
        self.tls = TlsFiles.find(
            ca=options.ca or facility.ca,
            certificate=facility.client_certificate,
            key=facility.client_key,
        )
        insecure = self.may_send_token_unencrypted
        endpoint, self.attempts = discover(
            options.url,
            known=known,
            credentials=self._credentials,
            tls=self.tls,
            allow_insecure_token=insecure,
            timeout=min(PROBE_TIMEOUT, options.timeout / 2),  # without a token, then with it
            wait_for_all=wait_for_all,
        )
        if endpoint.withheld:
            self._credentials = Credentials(NoToken(endpoint.withheld))
        self.limits = Limits(
            time_budget=facility.time_budget,
            request_timeout=facility.request_timeout,
            max_in_flight=facility.max_in_flight,
        )
        self._reach(endpoint, allow_insecure_token=insecure)

    def _what_was_given(self) -> Injected | None:
        """What this worker's client gave, where that is the server meant."""
        there = injected()
        url = self._options.url
        if there is None or self._source is not None or not (url is None or there.names(url)):
            return None
        return there

    def _take_what_was_given(self, there: Injected) -> None:
        """Follow the worker's client: at first, and where it has named other servers since."""
        if self._endpoint is not None and there.addresses in ((), self._endpoint.addresses):
            return
        facility = self.facility
        values = there.wait(facility.time_budget)
        self._credentials = Credentials(there.token)
        self.tls = TlsFiles.find(
            ca=None, certificate=facility.client_certificate, key=facility.client_key
        ).with_authorities(values["ca"])
        known = {each.name for each in fields(Limits)}  # the client may be of another version
        self.limits = Limits(**{name: value for name, value in values["settings"].items() if name in known})
        self._credentials.token()
        endpoint, self.attempts = given(there.addresses)
        there.count_with(self.traffic.totals)
        self._patience = self.limits.time_budget  # nobody waits at a prompt here
        self._reach(endpoint, allow_insecure_token=values["allow_insecure_token"])

    def _reach(self, endpoint: Endpoint, *, allow_insecure_token: bool) -> None:
        self._serving.clear()
        self._servers = [
            Server(address, self._credentials, self.tls, allow_insecure_token=allow_insecure_token)
            for address in endpoint.addresses
        ]
        self._endpoint = endpoint

    @property
    def _answers_within(self) -> float:
        """Seconds for each of the token service's two answers: the facility document, then a token."""
        return min(ANSWER_WITHIN, self._options.timeout / 2)

    @property
    def followers(self) -> list[Follower]:
        """The Dask clusters that were configured with it, each with its state in words."""
        return [follower for follower in followers if follower.connection is self]

    @property
    def facility(self) -> Facility:
        """The facility's configuration, as it was when the connection was opened."""
        if self._facility is None:
            self._facility = load_facility() if self._given else known_facility().facility
        return self._facility

    @property
    def credentials(self) -> Credentials:
        """As whom; shows no secret."""
        self.open()
        return self._credentials

    @property
    def may_send_token_unencrypted(self) -> bool:
        """Whether the token may travel to another machine without TLS."""
        said = self._options.allow_insecure_token
        return self.facility.allow_insecure_token if said is None else said

    @property
    def endpoint(self) -> Endpoint:
        """Where: ``endpoint.url``, all replicas, and which source named them."""
        self.open()
        assert self._endpoint is not None  # noqa: S101  (open() raises otherwise)
        return self._endpoint

    @property
    def user(self) -> str | None:
        """As whom: the token's ``sub``; None without a token, or for an opaque one."""
        self.open()
        token = self._credentials.known
        return token.user if token else None

    @property
    def identity(self) -> str:
        """As whom and for how long, in words."""
        self.open()
        token = self._credentials.known
        if token is None:  # and yet the server has answered
            return "no token sent" if self.endpoint.withheld else "no token needed"
        expiry = describe_expiry(token.expires_at, renewed=self._credentials.renews)
        return f"{token.user or 'opaque token'}, {expiry}"

    @property
    def where(self) -> str:
        """The server in words, without connecting."""
        return self._endpoint.url if self._endpoint else "no server yet"

    def __repr__(self) -> str:
        if self._closed:
            return "<Connection, closed>"
        if self._endpoint is None:
            return "<Connection, opened on first use>"
        more = len(self._endpoint.addresses) - 1
        replicas = f" and {more} more" if more else ""
        restricted = f"; {self._endpoint.restricted}" if self._endpoint.restricted else ""
        clusters = "".join(f"; {follower}" for follower in self.followers)
        return printable(
            f"<Connection to {self.where}{replicas} ({self._endpoint.source}), {self.identity}{restricted}{clusters}>"
        )

    def _repr_html_(self) -> str:
        from eaf_inference.notebook.display import connection_html

        return connection_html(self)

    @stopping(_STOPPED)
    def models(self) -> ModelTable:
        """The models on the server, with inputs, outputs, readiness and mean queue time of the last minute.

        The queue time is that of the requests since the oldest look at the server in the last minute. Before a
        second look it is not known.

        Raises
        ------
        ServerUnavailable, NotAuthorized
            The server does not answer, or not this user.
        """
        left = self._countdown()
        self._read_statistics(left)
        return lookup.table(self._asking(left), self.where, self._serving, self._queue_times)

    @stopping(_STOPPED)
    def measure(self) -> None:
        """Read the counters of each replica, so that `models` tells the queue times since then."""
        self._read_statistics(self._countdown())

    @stopping(_STOPPED)
    def names(self) -> list[str]:
        """The names of the models on the server."""
        rows, _ = lookup.index(self._asking(self._countdown()), self.where, self._serving)
        return sorted({row.name for row in rows})

    @stopping(_STOPPED)
    def model(
        self,
        name: str | None = None,
        version: str | int | None = None,
        *,
        preprocess: str | os.PathLike[str] | None = None,
        cell_budget: int | None = None,
    ) -> Model:
        """One model, to be called with arrays.

        Parameters
        ----------
        name : str, optional
            By default the one that the connection's URL names.
        version : str or int, optional
            By default the newest that is ready. The model keeps to it: scores of two versions never mix.
        preprocess : path, optional
            A ``preprocess.json`` that replaces the recipe in the model's configuration.
        cell_budget : int, optional
            Rows × padded length of one batch of jagged input: larger for a GPU, see the model's documentation.

        Raises
        ------
        ModelNotFound
            The server has none of that name, or no such version; the message lists what there is.
        ModelNotReady
            It is known and cannot be served; the message holds the server's reason.
        ConfigurationError
            Its recipe or labels cannot be used, or it is of a kind that this client does not serve.
        """
        from eaf_inference.inference.model import CELL_BUDGET, Model

        address = self.endpoint.addresses[0]
        if name is None:
            name, version = address.model, version if version is not None else address.version
        if name is None:
            raise InvalidInput(f"No model is named. Expected one of {', '.join(self.names()) or 'none'}.")
        left = self._countdown()
        version = self._find(name, "" if version is None else str(version), left)
        text = None
        if preprocess is not None:
            try:
                text = Path(preprocess).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"The recipe {preprocess} cannot be read: {error}") from error
        serving = self._serving[name, version]
        spec = lookup.spec_of(self._asking(left, serving), self.where, name, version, preprocess=text)
        if self._given is None:  # whoever asks again may have changed the model in place; a worker's tasks have not
            self.paddings.pop(spec, None)
        return Model(self, spec, cell_budget=CELL_BUDGET if cell_budget is None else cell_budget)

    def configure(self, client: Client, *, hub_token: str | None = None) -> Any:
        """Give a Dask cluster this connection: any cluster, also one that does not come up configured by itself.

        With an asynchronous client, something to await.

        Parameters
        ----------
        client : distributed.Client
        hub_token : str, optional
            A JupyterHub token whose only scope is the token service. With it the cluster's scheduler renews the
            workers' token by itself, for `distributed.fire_and_forget` work that outlives this process.

        Raises
        ------
        ConfigurationError
            The token would travel unencrypted, or the workers are threads of this process.
        """
        if hub_token is not None:
            hub_token = SecretText(hub_token)  # from here on, no traceback that shows variables shows its text
        from eaf_inference.dask.preload import configure

        return configure(client, self, hub_token)

    def submit(
        self,
        model: Model,
        chunks: Iterable[Any],
        *,
        client: Client | None = None,
        select: Callable[[Any], Any] | None = None,
        in_flight: int | None = None,
        retries: int = 2,
        progress: bool | None = None,
    ) -> Submission:
        """Scores of a data set, computed by a Dask cluster; see `eaf_inference.dask.submit.submit`."""
        from eaf_inference.dask.submit import submit

        return submit(
            model, chunks, client=client, select=select, in_flight=in_flight, retries=retries, progress=progress
        )

    @stopping(_STOPPED)
    def clusters(self) -> ClusterTable:
        """The Dask clusters that use this connection: workers, how many of them are configured, jets/s, tokens."""
        from eaf_inference.dask.clusters import clusters_of

        return clusters_of(self)

    def monitor(self) -> Monitor:
        """A live picture for a notebook: GPUs, queue, and this kernel's own jets/s and progress.

        Raises
        ------
        ConfigurationError
            The connection is closed, or what the widget needs is not installed.
        """
        self.open()
        try:
            from eaf_inference.notebook.monitor import Monitor
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"The widget needs {error.name}, which is missing: pip install 'eaf-inference[notebook]'."
            ) from error
        return Monitor(self)

    def servers_of(self, model: Model) -> list[Server]:
        """The replicas that serve a model."""
        self.open()
        key = (model.spec.name, model.spec.version)
        if key not in self._serving:
            self._find(*key, self._countdown())
        return self._serving[key]

    def close(self) -> None:
        """Close the channels; what is in flight fails, and clusters forget the credentials.

        The connection of a Dask worker, which all its tasks share, stays open.
        """
        if self._given is not None:
            return
        self._closed = True
        for follower in self.followers:
            follower.connection_closed()
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._serving.clear()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        options = self._options
        if options.url is not None and self._endpoint is not None:
            options = replace(options, url=self._endpoint.urls)  # without the model that a coffea URL names
        return _arrived, (options,)

    def _countdown(self) -> Callable[[], float]:
        """Begin to count: gives how many seconds are left for one look at the server."""
        self.open()
        ends = time.monotonic() + self._patience
        return lambda: max(ends - time.monotonic(), 0.0)

    def _asking(self, left: Callable[[], float], servers: Sequence[Server] = ()) -> Callable[..., list[Any]]:
        """What asks questions: the answers come from whichever replica gives them, within the time that is left."""

        def answers(*questions: Question) -> list[Any]:
            within = left()
            return ask(servers or self._servers, questions, Limits(time_budget=within, request_timeout=within))

        return answers

    def _of_each(
        self, look: Callable[[Callable[..., list[Any]], str], Found], left: Callable[[], float]
    ) -> dict[Server, Found]:
        """What is seen of each replica that answers soon; `look` gets what asks it, and its URL."""
        found = {}
        for number, server in enumerate(self._servers):
            share = left() / (len(self._servers) - number + 1)  # a silent replica leaves time for the others
            limits = Limits(time_budget=0, request_timeout=min(PROBE_TIMEOUT, share))

            def answers(*questions: Question, server: Server = server, limits: Limits = limits) -> list[Any]:
                return ask([server], questions, limits)

            try:
                found[server] = look(answers, server.address.url)
            except ServerUnavailable:
                continue
        return found

    def _read_statistics(self, left: Callable[[], float]) -> None:
        """Keep the counters of each replica that gives them."""
        for server, reply in self._of_each(lambda answers, _: lookup.statistics(answers), left).items():
            if reply is not None:
                self._queue_times.add(server.address.url, reply)

    def _find(self, name: str, version: str, left: Callable[[], float]) -> str:
        """Note which replicas serve the model, and give its version: the newest where none is asked for."""
        about = self._of_each(lambda answers, where: lookup.about(answers, where, name, version), left)
        answered = {server: rows for server, (rows, _) in about.items()}
        index = [row for rows in answered.values() for row in rows]
        unlisted = next((why for _, why in about.values() if why), "")
        if not answered:  # takes the time that is left, or says why nobody answers
            index, unlisted = lookup.about(self._asking(left), self.where, name, version)
        versions = ready_versions(index, name, version)
        if not versions:
            raise why_not(index, name, version, unlisted=unlisted)
        newest = versions[-1]
        serving = [each for each in answered if ready_versions(answered[each], name, newest)]
        silent = [each for each in self._servers if each not in answered]  # they may come back
        self._serving[name, newest] = [*serving, *silent]
        return newest


def _arrived(options: Options) -> Connection:
    """What a pickled connection becomes."""
    return shared(options, Connection)


def _source_of(own: Facility, timeout: float) -> TokenSource:
    """Where this user's tokens come from, when nobody says otherwise."""
    if own.token_service:
        return TokenService(own.token_service, ca=own.ca or None, timeout=timeout)
    return TokenFile(own.token_file) if own.token_file else BearerDiscovery()
