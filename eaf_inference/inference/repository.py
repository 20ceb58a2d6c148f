"""A server's models: a table of them, and why one of them cannot be used."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eaf_inference._html import dim, page
from eaf_inference._redact import redact
from eaf_inference._table import Cell, Table
from eaf_inference._text import did_you_mean, duration, file_size, number, printable
from eaf_inference.errors import BadReply, InferenceError, ModelNotFound, ModelNotReady
from eaf_inference.inference.failure_texts import without_internals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from eaf_inference.inference.deployment_facts import DeploymentFacts
    from eaf_inference.inference.queue_times import QueueTime
    from eaf_inference.inference.spec import ModelSpec

__all__ = [
    *("MOST_SHOWN", "ModelRow", "ModelTable", "config_of", "index_of", "metadata_of"),
    *("ready_versions", "reason_of", "why_not"),
]

_MOST_MODELS = 10_000  # versions of models
_LONGEST_NAME = 64 * 1024  # characters
_SHOWN = 200  # characters of a name in a message
_MOST_NAMED = 30  # in a message
MOST_SHOWN = 200  # rows shown; the table holds all
_NO_MODELS = "The server has no models."
_WIDTH = 120  # columns of a table as text


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One version of one model.

    Attributes
    ----------
    outputs : tuple of str
        Those that this client leaves out, such as strings, are in parentheses.
    queue_ms : float or None
        Mean queue time over the last minute; None if there were no requests, or before it is measured.
    requests : int or None
        Requests in the last minute; None before they are measured.
    since_start : int
        Requests since the model was loaded.
    used : bool
        Whether this connection has used it.
    ready : bool
        Whether it can be used: the server serves it, and this client supports it.
    state : str
        "ready", or why it is not.
    spec : ModelSpec or None
        None for a model that is not ready.
    last_used : float or None
        Time of the last inference of any user, in seconds since the epoch; 0 if there was none since the model was
        loaded, None if the server does not tell.
    deployed : DeploymentFacts or None
        What was written down when a user deployed it; None for a model of the facility, or one that is not ready.
    owner : str
        The user who deployed it, by the model's name; empty for a model of the facility, or without users.
    mine : bool
        Whether this connection's user deployed it.
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
    last_used: float | None = None
    deployed: DeploymentFacts | None = None
    owner: str = ""
    mine: bool = False

    @classmethod
    def of(
        cls,
        entry: Any,
        found: ModelSpec | InferenceError | None,
        queue: QueueTime,
        *,
        used: bool,
        last_used: float | None = None,
        deployed: DeploymentFacts | None = None,
    ) -> ModelRow:
        """Combine Triton's index, configuration and statistics; an error says why the model cannot be used."""
        why = "" if entry.state == "READY" else reason_of(entry) or redact(entry.state.lower()) or "not loaded"
        spec = None
        if isinstance(found, InferenceError):
            why = why or found.reason or str(found)
        else:
            spec = found
        return cls(
            name=entry.name,
            version=entry.version,
            inputs=tuple(map(str, spec.inputs)) if spec else (),
            outputs=(*map(str, spec.outputs), *(f"({each})" for each in spec.left_out)) if spec else (),
            ready=not why,
            state=why or "ready",
            queue_ms=queue.ms,
            requests=queue.requests,
            since_start=queue.since_start,
            used=used,
            spec=spec,
            last_used=last_used,
            deployed=deployed,
        )

    @property
    def queue(self) -> str:
        """The queue time in milliseconds, or why it is unknown."""
        if self.queue_ms is not None:
            return number(self.queue_ms)
        if self.requests is not None:
            return "no requests"
        return "not measured yet" if self.ready else "not reported"

    @property
    def last_use(self) -> str:
        """How long ago it was used, or why that is unknown."""
        if self.last_used is None:
            return "not reported"
        if not self.last_used:
            return "not since it was loaded"
        return f"{duration(max(0.0, time.time() - self.last_used))} ago"

    def cells(self, *, ownership: bool = False) -> tuple[Cell | str, ...]:
        """Return the row of the table, with owner, size and last use if wanted."""
        return (
            self.name,
            self.version,
            *(self._ownership() if ownership else ()),
            Cell(self.inputs, "code"),
            Cell(self.outputs, "code"),
            Cell(self.state, "good" if self.ready else "bad"),
            Cell(self.queue, "dim" if self.queue_ms is None else "plain"),
        )

    def _ownership(self) -> tuple[Cell | str, ...]:
        size = self.deployed.size if self.deployed else None
        unnamed = "the facility" if self.deployed is None else "not named"
        if not self.ready and self.deployed is None:  # only a loaded model says whether it was deployed
            unnamed = "not reported"
        return (
            "you" if self.mine else self.owner or Cell(unnamed, "dim"),
            Cell("not reported", "dim") if size is None else file_size(size),
            Cell(self.last_use, "plain" if self.last_used else "dim"),
        )


class ModelTable(list[ModelRow]):
    """The models of a server; prints as a table.

    Attributes
    ----------
    remark : str
        What the reader should know about the table; mostly empty.
    window : str
        The time span of its queue times.
    """

    remark: str = ""
    window: str = "last minute"

    def busiest(self) -> ModelTable:
        """Sort by requests in the last minute, then models this connection has used, then by name."""

        def place(row: ModelRow) -> tuple[int, bool, str, str]:
            return -(row.since_start if row.requests is None else row.requests), not row.used, row.name, row.version

        return self._with(sorted(self, key=place))

    def owned(self, owner_of: Callable[[ModelRow], tuple[str, bool]]) -> ModelTable:
        """Return the table with each model's owner and whether it is this user's, whose models then come first."""
        owners = ((row, owner_of(row)) for row in self)
        rows = [replace(row, owner=owner, mine=mine) for row, (owner, mine) in owners]
        return self._with(sorted(rows, key=lambda row: not row.mine))

    def measured(self, loads: Mapping[tuple[str, str], tuple[int, float | None]], window: str) -> ModelTable:
        """Return the table with a server's measurements, by name and version: requests, and their mean wait in ms."""
        if not loads:
            return self
        unknown = (None, None)
        rows = ((row, loads.get((row.name, row.version), unknown)) for row in self)
        table = self._with(replace(row, requests=requests, queue_ms=ms) for row, (requests, ms) in rows)
        table.window = window
        return table

    def _with(self, rows: Iterable[ModelRow]) -> ModelTable:
        """Return a table of other rows, with the same remark and window."""
        table = ModelTable(rows)
        table.remark, table.window = self.remark, self.window
        return table

    def split(self, most: int = MOST_SHOWN, *, shown_by: str = "triton.models()") -> tuple[ModelTable, str]:
        """Return the first `most` rows, and a remark about the others, if any: what shows them."""
        more = len(self) - most
        where = f"{shown_by} shows all" if most < MOST_SHOWN else f"the list {shown_by} holds all"
        return self._with(self[:most]), f"and {more:,} more: {where}" if more > 0 else ""

    def text(self, most: int = MOST_SHOWN, *, width: int | None = _WIDTH, shown_by: str = "triton.models()") -> str:
        """Format the first `most` rows as a text of at most `width` columns; None for any width."""
        if not self:
            return self.remark or _NO_MODELS
        shown, more = self.split(most, shown_by=shown_by)
        return "\n".join(part for part in (shown.table().text(width=width), more, self.remark) if part)

    def html(self, most: int = MOST_SHOWN) -> str:
        """Return the first rows in HTML, and how many more there are."""
        if not self:
            return page(dim(self.remark or _NO_MODELS))
        shown, more = self.split(most)
        remarks = "".join(f"<div>{dim(each)}</div>" for each in (more, self.remark) if each)
        return page(shown.table().html() + remarks)

    def table(self) -> Table:
        """Return all rows as a table, for `text` and `html`."""
        with_owners = any(row.deployed or row.mine for row in self)  # a facility without users' models needs no more
        more = ("owner", "size", "last used") if with_owners else ()
        heads = ("model", "version", *more, "inputs", "outputs", "state", f"queue ms ({self.window})")
        after = 2 + len(more)
        rows = [row.cells(ownership=with_owners) for row in self]
        return Table(heads, rows, numbers=(after + 3,), folds=(0, *range(2, after + 3)))

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.html()


def index_of(reply: Any, server: str) -> list[Any]:
    """Return the rows of a server's repository index.

    Raises
    ------
    BadReply
        It has more models or longer names than this client reads.
    """
    number = len(reply.models)
    if number > _MOST_MODELS:
        raise _unreadable(server, f"{number:,} versions of models; at most {_MOST_MODELS:,} are read")
    rows = list(reply.models)
    longest = max((len(text) for row in rows for text in (row.name, row.version, row.state)), default=0)
    if longest > _LONGEST_NAME:
        raise _unreadable(server, f"a name of {longest:,} characters; at most {_LONGEST_NAME:,} are read")
    return rows


def config_of(reply: Any, name: str, server: str) -> Any:
    """Return the configuration in a server's answer.

    Raises
    ------
    BadReply
        It belongs to another model, as its scores would.
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
    """Return the ready versions of a model in a repository index, oldest first; only `version` if not empty."""
    found = {row.version for row in index if row.name == name and row.state == "READY"}
    return sorted((each for each in found if version in ("", each)), key=lambda each: (len(each), each))


def metadata_of(reply: Any, name: str, server: str) -> Any:
    """Return a model's metadata in a server's answer.

    Raises
    ------
    BadReply
        It belongs to another model, as its scores would.
    """
    if reply.name != name:
        raise BadReply(
            f"{server} was asked for the metadata of model {name!r} and sent that of {reply.name[:_SHOWN]!r}. "
            "The fault is the server's: tell its operators."
        )
    return reply


def why_not(index: Sequence[Any], name: str, version: str, *, unlisted: str = "") -> InferenceError:
    """Make the error for a model that cannot be used: unknown, of unknown version, or not ready.

    Parameters
    ----------
    unlisted : str
        Why the server does not list its models; the index then covers only this one. Empty if it lists them.
    """
    rows = [row for row in index if row.name == name]
    matching = [row for row in rows if version in ("", row.version)]
    if matching:
        reason = reason_of(matching[0]) or redact(matching[0].state) or "it is not loaded"
        return ModelNotReady(
            f"The server has {name!r} but cannot serve it: {reason.rstrip('.')}. Tell the model's owner, or choose "
            "another model of triton.models()."
        )
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


def reason_of(entry: Any) -> str:
    """Return why the server does not serve a model, without its stack."""
    return redact(without_internals(printable(entry.reason)))


def _listed(names: Collection[str]) -> str:
    """List the first names, and count the others."""
    first = ", ".join(name[:_SHOWN] for name in sorted(names)[:_MOST_NAMED]) or "none"
    more = len(names) - _MOST_NAMED
    return f"{first} and {more:,} more" if more > 0 else first
