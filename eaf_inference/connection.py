"""The connection to a facility's Triton as one user, and the models it serves."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from eaf_inference._html import dim, page
from eaf_inference._redact import SecretText
from eaf_inference._text import printable
from eaf_inference.deploy.methods import OwnModels
from eaf_inference.discovery.attempts import Attempts
from eaf_inference.discovery.hub_document import known_facility
from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.inference.interrupts import stopping
from eaf_inference.inference.pipeline import Limits
from eaf_inference.inference.traffic import Traffic
from eaf_inference.inference.transport import CLOSED
from eaf_inference.opening import find_server, follow_client, session_for
from eaf_inference.registry import Options, Registry, linked_clusters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor
    from types import TracebackType

    from distributed import Client

    from eaf_inference.auth.credentials import Credentials
    from eaf_inference.auth.sources import TokenSource
    from eaf_inference.auth.tls import TlsFiles
    from eaf_inference.auth.worker_session import WorkerSession
    from eaf_inference.config import Facility
    from eaf_inference.dask.clusters import ClusterTable
    from eaf_inference.dataset.forecast import Estimate
    from eaf_inference.dataset.options import OnError
    from eaf_inference.dataset.submission import Submission
    from eaf_inference.discovery.endpoint import Endpoint
    from eaf_inference.inference.checks import Checks
    from eaf_inference.inference.model import Model
    from eaf_inference.inference.repository import ModelTable
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.transport import Channel
    from eaf_inference.inference.tuning import Tuning
    from eaf_inference.notebook.monitor import Monitor
    from eaf_inference.opening import Opened
    from eaf_inference.registry import Key, LinkedCluster

__all__ = ["Connection", "arrived", "connections"]

_STOPPED = "Stopped while the server was asked; nothing is returned."


class Connection(OwnModels):
    """One Triton, or several replicas of it, and the user's credentials for it.

    Made by `connect`. It is pickled without channels or credentials: where it arrives, it connects on first use with
    what that machine has.

    Attributes
    ----------
    attempts : Attempts
        The result of every source of discovery.
    limits : Limits
        Time budget and window of inference calls.
    traffic : Traffic
        What its models have sent and received.
    """

    def __init__(self, options: Options, source: TokenSource | None = None) -> None:
        self._options = options
        self._source = source
        self._opened: Opened | None = None
        self._process = os.getpid()  # that opened it
        self._closed = False
        self._session: WorkerSession | None = None
        self._opening = threading.Lock()
        self.attempts = Attempts()
        self.limits = Limits()
        self.traffic = Traffic()
        self.checks: dict[ModelSpec, Checks] = {}  # shared by all copies of a model in this process
        self.tunings: dict[ModelSpec, Tuning] = {}  # likewise

    @property
    def closed(self) -> bool:
        return self._closed

    def open(self, *, wait_for_all: bool = False) -> Opened:
        """Find the server, unless it is already found; on a Dask worker, follow the client to a new one."""
        if self._closed:
            raise ConfigurationError(CLOSED)
        with self._opening:  # the first thread that needs a connection from a task opens it
            if self._process != os.getpid():  # gRPC's channels do not survive a fork
                self._opened, self._process = None, os.getpid()
            if self._opened is None:
                self._session = session_for(self._options, self._source)
            if self._session is not None:
                opened = follow_client(self._session, self._opened)
            else:
                opened = self._opened or find_server(self._options, self._source, wait_for_all=wait_for_all)
            if opened is not self._opened:
                self._opened, self.limits, self.attempts = opened, opened.limits, opened.attempts
                if self._session is not None:
                    self._session.count_with(self.traffic.totals)
            return opened

    @property
    def linked_clusters(self) -> list[LinkedCluster]:
        """The Dask clusters that use this connection; each prints its state."""
        return [cluster for cluster in linked_clusters if cluster.connection is self]

    @property
    def facility(self) -> Facility:
        """The facility's configuration, as it was when the connection was opened."""
        return self._opened.facility if self._opened else known_facility().facility

    @property
    def credentials(self) -> Credentials:
        """The user's credentials; they show no secret."""
        return self.open().credentials

    @property
    def tls(self) -> TlsFiles:
        """The certificates of the channels."""
        return (self._opened or self.open()).tls

    @property
    def may_send_token_unencrypted(self) -> bool:
        """Whether the token may be sent to another machine without TLS."""
        return (self._opened or self.open()).allow_insecure_token

    @property
    def endpoint(self) -> Endpoint:
        """The server: ``endpoint.url``, all replicas, and the source that named them."""
        return self.open().endpoint

    @property
    def user(self) -> str | None:
        """The user: the token's ``sub``; None without a token, or with an opaque one."""
        token = self.credentials.known
        return token.user if token else None

    @property
    def identity(self) -> str:
        """The user and the token's expiry, in words."""
        return self.open().identity

    @property
    def where(self) -> str:
        """The server's URL, without connecting."""
        return self._opened.endpoint.url if self._opened else "no server yet"

    def __repr__(self) -> str:
        if self._closed:
            return "<Connection, closed>"
        if self._opened is None:
            return "<Connection, opened on first use>"
        clusters = "".join(f"; {cluster}" for cluster in self.linked_clusters)
        return printable(f"<Connection to {self._opened}{clusters}>")

    def _repr_html_(self) -> str:
        return page(dim("Connection closed.")) if self._closed else self.open().html()

    @stopping(_STOPPED)
    def models(self) -> ModelTable:
        """Return the table of models: inputs, outputs, readiness, and mean queue time of the last minute.

        The queue time needs two calls of `models` or `measure` in that minute. If there are models that users
        deployed, the table has their owner, size and last use, and those of this user come first.

        Raises
        ------
        ServerUnavailable, NotAuthorized
            The server did not answer, or refused this user.
        """
        from eaf_inference.deploy.owners import owner_as_seen_by

        opened = self.open()
        has_users = self.credentials.known is not None or bool(opened.endpoint.withheld)
        is_local = opened.endpoint.source == "local facility"
        owner = owner_as_seen_by(self.user, has_users=has_users, is_local=is_local)
        return opened.replicas.models().owned(owner)

    @stopping(_STOPPED)
    def measure(self) -> None:
        """Read the counters of each replica, from which `models` computes queue times."""
        self.open().replicas.measure()

    @stopping(_STOPPED)
    def names(self) -> list[str]:
        """Return the names of the models on the server."""
        return self.open().replicas.names()

    @stopping(_STOPPED)
    def model(
        self,
        name: str | None = None,
        version: str | int | None = None,
        *,
        preprocess: str | os.PathLike[str] | None = None,
        outputs: Sequence[str] | None = None,
        batch_axis: int | None = None,
        lengths: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        cell_budget: int | None = None,
    ) -> Model:
        """Return a model, which can be called with arrays.

        Parameters
        ----------
        name : str, optional
            By default the model in the connection's URL.
        version : str or int, optional
            By default the newest ready version. It stays the same, so scores of two versions never mix.
        preprocess : path, optional
            A ``preprocess.json`` that replaces the recipe in the model's configuration.
        outputs : sequence of str, optional
            The outputs to return; the others are not sent. By default all but strings.
        batch_axis : int, optional
            0 if the first axis of all inputs and outputs of a model with ``max_batch_size: 0`` counts rows. Arrays
            are then split into batches; by default each array is one request, unless the model's parameter
            ``batch_axis`` says the same.
        lengths : sequence of int, or mapping of str to sequence of int, optional
            The only lengths to which jagged inputs are padded, such as ``[64, 128]``, of all or by collection or
            input; longer rows are cut to the last. By default the model's parameter ``lengths``, else any length.
        cell_budget : int, optional
            Rows × padded length of one batch of jagged input. By default it is learned; see `Model.tuning`.

        Raises
        ------
        ModelNotFound
            The server has no such model or version; the message lists those it has.
        ModelNotReady
            The server cannot serve the model; the message holds the server's reason.
        ConfigurationError
            The recipe, the labels or an argument cannot be used, or this client does not support such a model.
        """
        from eaf_inference.inference.checks import Checks
        from eaf_inference.inference.model import Model
        from eaf_inference.inference.parameters import Chosen
        from eaf_inference.inference.tuning import Tuning
        from eaf_inference.inference.tuning_store import load, save

        address = self.endpoint.addresses[0]
        if name is None:
            name, version = address.model, version if version is not None else address.version
        if name is None:
            raise InvalidInput(f"No model was given. Expected one of {', '.join(self.names()) or 'none'}.")
        chosen = Chosen.of(preprocess=preprocess, outputs=outputs, batch_axis=batch_axis, lengths=lengths)
        spec = self.open().replicas.spec(name, "" if version is None else str(version), chosen)
        if self._session is not None:  # a task, of which there are many
            Checks.recognise(self.checks, spec, self.open().replicas.serving(spec.name, spec.version), self.limits)
        else:  # a user may have changed the model in place since the last call
            self.checks.pop(spec, None)
            if spec not in self.tunings:
                urls = self.endpoint.urls
                self.tunings[spec] = Tuning(load(urls, spec), keep=partial(save, urls, spec))
        return Model(self, spec, cell_budget=cell_budget)

    def configure(self, client: Client, *, hub_token: str | None = None) -> Any:
        """Give any Dask cluster this connection; returns an awaitable if the client is asynchronous.

        Parameters
        ----------
        client : distributed.Client
        hub_token : str, optional
            A JupyterHub token whose only scope is the token service. The cluster's scheduler uses it to renew the
            workers' token when this process has ended, for `distributed.fire_and_forget`.

        Raises
        ------
        ConfigurationError
            It is no client, the token would be sent unencrypted, or the workers are threads of this process.
        """
        if hub_token is not None:
            hub_token = SecretText(hub_token)  # so that no traceback that shows variables shows the text
        from eaf_inference.dask.preload import configure

        return configure(client, self, hub_token)

    def submit(
        self,
        model: Model,
        chunks: Any,
        *,
        client: Client | Executor | None = None,
        select: Callable[[Any], Any] | None = None,
        schema: Any = None,
        on_error: OnError = "collect",
        in_flight: int | None = None,
        retries: int = 2,
        progress: bool | None = None,
    ) -> Submission:
        """Score a data set on a Dask cluster or in a local pool; see `eaf_inference.dask.submit.submit`."""
        from eaf_inference.dask.submit import submit

        return submit(
            model,
            chunks,
            client=client,
            select=select,
            schema=schema,
            on_error=on_error,
            in_flight=in_flight,
            retries=retries,
            progress=progress,
        )

    def estimate(
        self,
        model: Model,
        chunks: Any,
        *,
        client: Client | Executor | None = None,
        select: Callable[[Any], Any] | None = None,
        schema: Any = None,
        progress: bool | None = None,
    ) -> Estimate:
        """Estimate what a run takes, before it; see `eaf_inference.dask.submit.estimate`."""
        from eaf_inference.dask.submit import checked, estimate

        channels = self.channels_of(checked(model))
        return estimate(model, chunks, channels, client=client, select=select, schema=schema, progress=progress)

    @stopping(_STOPPED)
    def clusters(self) -> ClusterTable:
        """Return the table of Dask clusters with this connection: workers, configured workers, jets/s, tokens."""
        from eaf_inference.dask.clusters import clusters_of

        return clusters_of(self)

    def monitor(self) -> Monitor:
        """Return a live widget: GPUs, queue, and this kernel's own jets/s and progress.

        Raises
        ------
        ConfigurationError
            The connection is closed, or a package that the widget needs is not installed.
        """
        self.open()
        try:
            from eaf_inference.notebook.monitor import Monitor
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"The widget needs {error.name}, which is missing: pip install 'eaf-inference[notebook]'."
            ) from error
        return Monitor(self)

    def channels_of(self, model: Model) -> list[Channel]:
        """Return the replicas that serve a model."""
        return self.open().replicas.serving(model.spec.name, model.spec.version)

    def close(self) -> None:
        """Close the channels: requests in flight fail, and clusters forget the credentials.

        The connection of a Dask worker stays open, because all of its tasks share it.
        """
        if self._session is not None:
            return
        self._closed = True
        for cluster in self.linked_clusters:
            cluster.connection_closed()
        if self._opened is not None:
            self._opened.replicas.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        options = self._options
        if options.url is not None and self._opened is not None:
            options = replace(options, url=self._opened.endpoint.urls)  # without the model that a coffea URL names
        return arrived, (options, connections.key(self))


connections: Registry[Connection] = Registry()  # of this process, latest last


def arrived(options: Options, key: Key) -> Connection:
    """Return the connection that a pickled one becomes in this process."""
    return connections.unpickled(key, options, Connection)
