"""What a server says that it has: its models as a table, and why one of them cannot be had."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eaf_inference._redact import redact
from eaf_inference.errors import BadReply, ConfigurationError, InferenceError, ModelNotFound, ModelNotReady
from eaf_inference.tables import aligned, did_you_mean, number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.queue_times import QueueTime

__all__ = [
    *("MOST_SHOWN", "ModelRow", "ModelTable", "config_of", "describe", "index_of", "metadata_of"),
    *("ready_versions", "why_not"),
]

_MOST_MODELS = 10_000  # versions of models
_LONGEST_NAME = 64 * 1024  # characters
_SHOWN = 200  # characters of a name in a message
_MOST_NAMED = 30  # in a message
MOST_SHOWN = 200  # rows of a table; the table itself holds all
_WIDTH = 120  # columns of a table as text


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One version of one model.

    Attributes
    ----------
    outputs : tuple of str
        In parentheses those that this client leaves out, such as strings.
    queue_ms : float or None
        That a mean request of the last minute has waited in the queue; None where there was none, or nothing was
        measured yet.
    requests : int or None
        In the last minute; None where nothing was measured yet.
    since_start : int
        Requests since the model was loaded.
    used : bool
        Whether this connection has used it.
    spec : ModelSpec or None
        None for a model that is not ready, or that this client does not serve.
    """

    name: str
    version: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ready: bool
    state: str
    queue_ms: float | None
    requests: int | None = None
    since_start: int = 0
    used: bool = False
    spec: ModelSpec | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, entry: Any, spec: ModelSpec | None, queue: QueueTime, *, used: bool) -> ModelRow:
        """Put together what Triton's index, configuration and statistics say."""
        ready = entry.state == "READY"
        return cls(
            name=entry.name,
            version=entry.version,
            inputs=tuple(map(str, spec.inputs)) if spec else (),
            outputs=(*map(str, spec.outputs), *(f"({each})" for each in spec.left_out)) if spec else (),
            ready=ready,
            state="ready" if ready else redact(entry.reason or entry.state.lower() or "not loaded"),
            queue_ms=queue.ms,
            requests=queue.requests,
            since_start=queue.since_start,
            used=used,
            spec=spec,
        )

    @property
    def queue(self) -> str:
        """The queue time in milliseconds, or why there is none."""
        if self.queue_ms is not None:
            return number(self.queue_ms)
        if self.requests is not None:
            return "no requests"
        return "not measured yet" if self.ready else "not reported"


class ModelTable(list[ModelRow]):
    """The models of a server; prints as a table.

    Attributes
    ----------
    remark : str
        What a reader has to know of the table; mostly nothing.
    window : str
        The time that its queue times are of.
    """

    remark: str = ""
    window: str = "last minute"

    @property
    def heads(self) -> tuple[str, ...]:
        """Of its columns."""
        return ("model", "version", "inputs", "outputs", "state", f"queue ms ({self.window})")

    def busiest(self) -> ModelTable:
        """The same, the busiest of the last minute first, then what this connection has used, then by name."""

        def place(row: ModelRow) -> tuple[int, bool, str, str]:
            return -(row.since_start if row.requests is None else row.requests), not row.used, row.name, row.version

        return self._with(sorted(self, key=place))

    def measured(self, loads: Mapping[tuple[str, str], tuple[int, float | None]], window: str) -> ModelTable:
        """The same with a server's figures, by name and version: requests of that time, and their mean wait in ms."""
        if not loads:
            return self
        unknown = (None, None)
        rows = ((row, loads.get((row.name, row.version), unknown)) for row in self)
        table = self._with(replace(row, requests=requests, queue_ms=ms) for row, (requests, ms) in rows)
        table.window = window
        return table

    def _with(self, rows: Iterable[ModelRow]) -> ModelTable:
        """Other rows, and the same remark and window."""
        table = ModelTable(rows)
        table.remark, table.window = self.remark, self.window
        return table

    def split(self, most: int = MOST_SHOWN, *, shown_by: str = "triton.models()") -> tuple[ModelTable, str]:
        """The first so many rows, and a remark on the others where there are any: what shows them."""
        more = len(self) - most
        where = f"{shown_by} shows all" if most < MOST_SHOWN else f"the list {shown_by} holds all"
        return self._with(self[:most]), f"and {more:,} more: {where}" if more > 0 else ""

    def text(self, most: int = MOST_SHOWN, *, width: int | None = _WIDTH, shown_by: str = "triton.models()") -> str:
        """The first so many rows as a table of so many columns of a terminal; of any width with None."""
        if not self:
            return self.remark or "The server has no models."
        shown, more = self.split(most, shown_by=shown_by)
        table = aligned(
            self.heads,
            (
                (row.name, row.version, "; ".join(row.inputs), "; ".join(row.outputs), row.state, row.queue)
                for row in shown
            ),
            width=width,
        )
        return "\n".join(part for part in (table, more, self.remark) if part)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from eaf_inference.notebook.display import models_html

        return models_html(self)


def index_of(reply: Any, server: str) -> list[Any]:
    """The rows of a server's repository index.

    Raises
    ------
    BadReply
        It has more models, or longer names, than are read.
    """
    number = len(reply.models)
    if number > _MOST_MODELS:
        raise _unreadable(server, f"{number:,} versions of models, at most {_MOST_MODELS:,} are read")
    rows = list(reply.models)
    longest = max((len(text) for row in rows for text in (row.name, row.version, row.state)), default=0)
    if longest > _LONGEST_NAME:
        raise _unreadable(server, f"a name of {longest:,} characters, at most {_LONGEST_NAME:,} are read")
    return rows


def config_of(reply: Any, name: str, server: str) -> Any:
    """The configuration in a server's answer, if it is that of the model asked for.

    Raises
    ------
    BadReply
        It is another model's: scores would be too.
    """
    if reply.config.name != name:
        raise BadReply(
            f"{server} was asked for the configuration of model {name!r} and sent that of "
            f"{reply.config.name[:_SHOWN]!r}. The fault is the server's: tell its operators."
        )
    return reply.config


def _unreadable(server: str, what: str) -> BadReply:
    return BadReply(f"The repository index of {server} cannot be used: it has {what}. Tell the server's operators.")


def ready_versions(index: Sequence[Any], name: str, version: str) -> list[str]:
    """The versions of a model that a server with this repository index serves, oldest first.

    Only `version`, where that is not empty.
    """
    found = {row.version for row in index if row.name == name and row.state == "READY"}
    return sorted((each for each in found if version in ("", each)), key=lambda each: (len(each), each))


def metadata_of(reply: Any, name: str, server: str) -> Any:
    """A model's metadata in a server's answer, if it is that of the model asked for.

    Raises
    ------
    BadReply
        It is another model's: scores would be too.
    """
    if reply.name != name:
        raise BadReply(
            f"{server} was asked for the metadata of model {name!r} and sent that of {reply.name[:_SHOWN]!r}. "
            "The fault is the server's: tell its operators."
        )
    return reply


def describe(config: Any, version: str) -> ModelSpec | None:
    """A model's inputs and outputs; None for one that this client does not serve."""
    from eaf_inference.inference.spec import ModelSpec

    try:
        return ModelSpec.from_config(config, version)
    except ConfigurationError:
        return None


def why_not(index: Sequence[Any], name: str, version: str, *, unlisted: str = "") -> InferenceError:
    """Why the model cannot be used: not there, no such version, or not ready.

    Parameters
    ----------
    unlisted : str
        Why the server does not list its models, where it does not: then the index is about this one alone.
    """
    rows = [row for row in index if row.name == name]
    matching = [row for row in rows if version in ("", row.version)]
    if matching:
        reason = redact(matching[0].reason or matching[0].state or "it is not loaded")
        return ModelNotReady(f"The server has {name!r} but cannot serve it: {reason}.")
    if rows:
        versions = _listed({row.version for row in rows})
        return ModelNotFound(f"{name!r} has no version {version}. Expected one of {versions}.")
    if unlisted:
        which = f"version {version} of model {name!r}" if version else f"model {name!r}"
        return ModelNotFound(
            f"The server has no {which}, and does not list those that it has ({unlisted}). Ask its operators for the "
            "name."
        )
    names = {row.name for row in index}
    return ModelNotFound(
        f"The server has no model {name!r}.{did_you_mean(name, sorted(names))} It has {_listed(names)}."
    )


def _listed(names: Collection[str]) -> str:
    """The first of the names, and how many there are besides."""
    first = ", ".join(name[:_SHOWN] for name in sorted(names)[:_MOST_NAMED]) or "none"
    more = len(names) - _MOST_NAMED
    return f"{first} and {more:,} more" if more > 0 else first
