"""One look at the facility: where Triton is, as whom it is reached and what it serves, or why nothing is known.

It blocks, so it runs in a thread, one look at a time. The connection is this server's own: the kernels have theirs,
and nothing of it (the process's current connection, Dask's configuration) is changed here.
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

    from eaf_inference.catalogue import ModelRow
    from eaf_inference.connection import Connection
    from eaf_inference.metrics.http import Fetch
    from eaf_inference.metrics.sampler import MetricsSource

__all__ = ["Findings", "Inquiry"]

log = logging.getLogger(__name__)

_PATIENCE = 3.0  # seconds for one question
_MOST_MODELS = 1000
_MOST_TENSORS = 32  # of one model


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What one look found.

    Attributes
    ----------
    reply : dict
        For the browser; without what only the sampler knows.
    sources : sequence of MetricsSource
        Where its metrics are.
    settings : object
        Equal to that of an earlier look if the sources are the same.
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
    """Asks, and keeps the connection for the next time."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._urls: tuple[str, ...] = ()  # of the last server that answered

    def ask(self) -> Findings:
        """What is known now; says in the reply what went wrong, and raises nothing."""
        try:
            return self._ask()
        except (Exception, SystemExit) as error:  # a configuration file is a program, and Jupyter must survive it
            log.warning("the facility cannot be looked for", exc_info=True)
            problem = f"The facility cannot be looked for ({type(error).__name__}: {error}). See Jupyter's log."
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
                return self._seen_from(self._connection)
            except InferenceError as error:
                log.debug("the facility is looked for again: %s", error)
                self.close()
        connection = Connection(Options(url=None, ca=None, allow_insecure_token=None, timeout=_PATIENCE))
        try:
            connection.open()
            findings = self._seen_from(connection)
        except InferenceError as error:
            connection.close()
            return self._in_vain(connection, error)
        self._connection = connection
        return findings

    def _seen_from(self, connection: Connection) -> Findings:
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

    def _in_vain(self, connection: Connection, error: InferenceError) -> Findings:
        attempts = error.attempts or connection.attempts
        unreadable = next((each for each in attempts if not each.value and each.outcome != "not set"), None)
        state, problem = _said_of(error)
        if state == "no-facility" and unreadable is not None:
            state, problem = "misconfigured", f"{unreadable.source}: {unreadable.outcome}"
        elif state == "unreachable":
            named = "; ".join(f"{each.value}: {each.outcome}" for each in attempts if each.value)
            problem = f"{problem} Last answers: {named}." if named else problem
        reply = _reply(state, problem, attempts=_attempts(attempts))
        try:
            return self._with_sources(connection, reply, {})
        except ConfigurationError:  # that of the facility, which is what the reply says already
            return Findings(reply)

    def _with_sources(self, connection: Connection, reply: dict[str, Any], max_batch: Mapping[str, int]) -> Findings:
        facility = connection.facility
        if facility.documentation_url:
            reply["documentation"] = facility.documentation_url
        sources: list[MetricsSource]
        try:
            from eaf_inference.metrics.targets import sources_of

            sources = sources_of(facility, self._urls)
        except (InferenceError, ImportError, OSError) as error:  # scores can be had without metrics
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
            "cell": cell_for(row.name, row.version if versions[row.name] > 1 else None, row.spec),
        }
        for row in rows
    ]


class _Unusable:
    """Stands where metrics would be, and says why there are none."""

    kind = "configuration"
    name = "metrics"
    every = 60.0

    def __init__(self, why: str) -> None:
        self._why = why

    async def read(self, fetch: Fetch) -> Reading:  # noqa: ARG002  (the sampler's)
        """Say why."""
        raise ConfigurationError(self._why)

    def down(self) -> Reading:
        """Tell nothing."""
        return Reading()


def _said_of(error: InferenceError) -> tuple[str, str]:
    """The state that an error means, and a sentence."""
    if isinstance(error, NoServerFound):
        if error.named:
            return (
                "unreachable",
                "No Triton inference server answers where one is named; it is tried again by itself.",
            )
        return "no-facility", (
            "Nothing names a Triton inference server: set EAF_TRITON_URL, ask your facility's operators for its "
            "configuration, or start one on this machine with `eaf-inference up`."
        )
    said = str(error).partition("\n")[0]
    if isinstance(error, NotAuthorized):
        return "not-authorised", said
    if isinstance(error, ConfigurationError):
        return "misconfigured", said
    return "unreachable", said


def _reply(state: str, problem: str | None, **known: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "endpoint": None,
        "user": None,
        "identity": "",
        "token_expires_at": None,
        "token_renews": False,
        "models": [],
        "attempts": [],
        "documentation": _documentation_of_the_project(),
    }
    return {"state": state, "problem": None if problem is None else redact(problem), **nothing, **known}


@functools.cache
def _documentation_of_the_project() -> str:
    """Where the package's metadata says that it is documented; empty where they do not."""
    try:
        labelled = [each.partition(",") for each in metadata("eaf-inference").get_all("Project-URL", [])]
    except PackageNotFoundError:  # not installed: a checkout on Python's path
        return ""
    return next((url.strip() for label, _, url in labelled if label.strip().lower() == "documentation"), "")


def _attempts(attempts: Iterable[Any]) -> list[dict[str, Any]]:
    return [{**asdict(each), "value": clip(each.value), "outcome": redact(each.outcome)} for each in attempts]
