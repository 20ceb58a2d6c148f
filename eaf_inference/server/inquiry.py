"""Determine the state of the facility: endpoint, user and models, or why there is no connection.

It blocks, so it runs in a thread, one inquiry at a time. The connection belongs to the Jupyter server alone: kernels
have their own, and neither the process's current connection nor Dask's configuration is changed.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING, Any

from eaf_inference._redact import redact
from eaf_inference.errors import ConfigurationError, InferenceError, NoServerFound, NotAuthorized
from eaf_inference.metrics.reading import Reading, clip
from eaf_inference.server.cells import cell_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from eaf_inference.connection import Connection
    from eaf_inference.inference.repository import ModelRow
    from eaf_inference.metrics.http import Fetch
    from eaf_inference.metrics.sampler import MetricsSource

__all__ = ["Findings", "Inquiry"]

log = logging.getLogger(__name__)

_TIMEOUT = 3.0  # seconds for one request
_MOST_MODELS = 1000
_MOST_TENSORS = 32  # inputs or outputs of one model


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """The result of one inquiry.

    Attributes
    ----------
    reply : dict
        For the browser, without what only the sampler knows.
    sources : sequence of MetricsSource
        The sources of metrics.
    settings : object
        Equal to that of an earlier inquiry if the sources are the same.
    max_batch : mapping
        Model name → ``max_batch_size``.
    """

    reply: dict[str, Any]
    sources: Sequence[MetricsSource] = ()
    settings: object = None
    max_batch: Mapping[str, int] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        return bool(self.reply["state"] == "connected")


class Inquiry:
    """Asks for the facility's state, and keeps the connection for the next time."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._urls: tuple[str, ...] = ()  # of the last server that answered

    def ask(self) -> Findings:
        """Return the current state; errors are described in the reply, not raised."""
        try:
            return self._ask()
        except (Exception, SystemExit) as error:  # a configuration file is a program, and Jupyter must survive it
            log.warning("discovery of the facility failed", exc_info=True)
            problem = f"Discovery of the facility failed ({type(error).__name__}: {error}). See Jupyter's log."
            return Findings(_reply("misconfigured", problem))

    def close(self) -> None:
        """Close the channels."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self) -> Findings:
        from eaf_inference.connection import Connection
        from eaf_inference.registry import Options

        if self._connection is not None:
            try:
                return self._connected(self._connection)
            except InferenceError as error:
                log.debug("discovery starts again: %s", error)
                self.close()
        connection = Connection(Options(url=None, ca=None, allow_insecure_token=None, timeout=_TIMEOUT))
        try:
            connection.open()
            findings = self._connected(connection)
        except InferenceError as error:
            connection.close()
            return self._failed(connection, error)
        self._connection = connection
        return findings

    def _connected(self, connection: Connection) -> Findings:
        rows = connection.models()[:_MOST_MODELS]
        endpoint, token = connection.endpoint, connection.credentials.known
        self._urls = endpoint.urls
        reply = _reply(
            "connected",
            None,
            endpoint={"url": endpoint.url, "urls": list(endpoint.urls), "source": endpoint.source},
            user=None if connection.user is None else clip(connection.user),
            identity=clip(connection.identity),
            token_expires_at=token.expires_at if token else None,
            token_renews=connection.credentials.renews,
            models=_described(rows),
            attempts=_attempts(connection.attempts),
        )
        max_batch = {row.name: row.spec.max_batch_size for row in rows if row.spec and row.spec.max_batch_size}
        return self._with_sources(connection, reply, max_batch)

    def _failed(self, connection: Connection, error: InferenceError) -> Findings:
        attempts = error.attempts or connection.attempts
        unreadable = next((each for each in attempts if not each.value and each.outcome != "not set"), None)
        state, problem = _state_of(error)
        if state == "no-facility" and unreadable is not None:
            state, problem = "misconfigured", f"{unreadable.source}: {unreadable.outcome}"
        elif state == "unreachable":
            named = "; ".join(f"{each.value}: {each.outcome}" for each in attempts if each.value)
            problem = f"{problem} Last answers: {named}." if named else problem
        reply = _reply(state, problem, attempts=_attempts(attempts))
        try:
            return self._with_sources(connection, reply, {})
        except ConfigurationError:  # the facility's configuration; the reply has this error already
            return Findings(reply)

    def _with_sources(self, connection: Connection, reply: dict[str, Any], max_batch: Mapping[str, int]) -> Findings:
        facility = connection.facility
        if facility.documentation_url:
            reply["documentation"] = facility.documentation_url
        sources: list[MetricsSource]
        try:
            from eaf_inference.metrics.targets import sources_of

            sources = sources_of(facility, self._urls)
        except (InferenceError, ImportError, OSError) as error:  # inference works without metrics
            sources = [_Unusable(str(error))]
        settings = ([(source.kind, source.name) for source in sources], facility.trait_values(config=True))
        return Findings(reply, sources, settings, max_batch)


def _described(rows: Sequence[ModelRow]) -> list[dict[str, Any]]:
    versions = Counter(row.name for row in rows if row.ready)
    return [
        {
            "name": clip(row.name),
            "version": clip(row.version),
            "ready": row.ready,
            "state": clip(row.state),
            "inputs": [clip(each) for each in row.inputs[:_MOST_TENSORS]],
            "outputs": [clip(each) for each in row.outputs[:_MOST_TENSORS]],
            "queue_ms": row.queue_ms,
            "owner": clip(row.owner),
            "mine": row.mine,
            "deployed": None
            if row.deployed is None
            else {"size": row.deployed.size, "time": row.deployed.time, "source": row.deployed.source},
            "last_used": row.last_used,
            "cell": cell_for(row.name, row.version if versions[row.name] > 1 else None, row.spec),
        }
        for row in rows
    ]


class _Unusable:
    """A source that reports why there are no metrics."""

    kind = "configuration"
    name = "metrics"
    every = 60.0

    def __init__(self, why: str) -> None:
        self._why = why

    async def read(self, fetch: Fetch) -> Reading:  # noqa: ARG002  (the sampler's)
        """Raise the reason."""
        raise ConfigurationError(self._why)

    def down(self) -> Reading:
        """Return an empty reading."""
        return Reading()


def _state_of(error: InferenceError) -> tuple[str, str]:
    """Return the state and the sentence for an error."""
    if isinstance(error, NoServerFound):
        if error.named:
            return (
                "unreachable",
                "The configured Triton inference server does not answer. Retrying automatically.",
            )
        return "no-facility", (
            "No Triton inference server is configured. Set EAF_TRITON_URL, ask your facility's operators for the "
            "configuration, or start a server on this machine with `eaf-inference up`."
        )
    message = str(error).partition("\n")[0]
    if isinstance(error, NotAuthorized):
        return "not-authorised", message
    if isinstance(error, ConfigurationError):
        return "misconfigured", message
    return "unreachable", message


def _reply(state: str, problem: str | None, **known: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "endpoint": None,
        "user": None,
        "identity": "",
        "token_expires_at": None,
        "token_renews": False,
        "models": [],
        "attempts": [],
        "documentation": _documentation_of_the_project(),
    }
    return {"state": state, "problem": None if problem is None else redact(problem), **defaults, **known}


@functools.cache
def _documentation_of_the_project() -> str:
    """Return the documentation URL in the package's metadata, or an empty string."""
    try:
        labelled = [each.partition(",") for each in metadata("eaf-inference").get_all("Project-URL", [])]
    except PackageNotFoundError:  # a checkout on Python's path that is not installed
        return ""
    return next((url.strip() for label, _, url in labelled if label.strip().lower() == "documentation"), "")


def _attempts(attempts: Iterable[Any]) -> list[dict[str, Any]]:
    return [{**asdict(each), "value": clip(each.value), "outcome": redact(each.outcome)} for each in attempts]
