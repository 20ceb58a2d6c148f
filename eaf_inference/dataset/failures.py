"""The parts of a data set that were not scored, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eaf_inference._html import page
from eaf_inference._table import Table
from eaf_inference.errors import (
    ConfigurationError,
    InferenceError,
    ModelChanged,
    ModelNotFound,
    ModelNotReady,
    NoServerFound,
    NotAuthorized,
    ServerUnavailable,
    UnreadableFile,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eaf_inference.dataset.parts import Part

__all__ = ["Failure", "Failures", "concerns_every_part", "is_temporary"]

_LISTED = 10  # failures in a message
_SERVER = (ServerUnavailable, NoServerFound, ModelNotReady)
_EVERY_PART = (*_SERVER, NotAuthorized, ModelNotFound, ModelChanged, ConfigurationError)


@dataclass(frozen=True, slots=True)
class Failure:
    """A part that was not scored.

    Attributes
    ----------
    part : Part
    data : Any
        The array, if the part is one.
    error : InferenceError
        The last one.
    tries : int
    """

    part: Part
    data: Any
    error: InferenceError
    tries: int

    @property
    def dataset(self) -> str:
        return self.part.file.dataset if self.part.file else ""

    @property
    def file(self) -> str:
        return str(self.part.file) if self.part.file else f"array {self.part.number}"

    @property
    def entries(self) -> str:
        """The range of entries, such as ``0–1000``; ``all`` for a whole file."""
        if self.part.stop is None:
            return "all" if not self.part.start else f"{self.part.start}–"
        return f"{self.part.start}–{self.part.stop}"

    @property
    def reason(self) -> str:
        """The cause in a few words if it has any, else the whole message."""
        return self.error.reason or str(self.error)


class Failures(tuple[Failure, ...]):
    """Parts that were not scored, in the order of the data set; prints as a table."""

    __slots__ = ()

    @classmethod
    def of(cls, failures: Iterable[Failure]) -> Failures:
        return cls(sorted(failures, key=lambda each: each.part.place))

    def _table(self, failures: Sequence[Failure]) -> Table:
        rows = [(each.dataset, each.file, each.entries, each.reason, str(each.tries)) for each in failures]
        return Table(("data set", "file", "entries", "reason", "tries"), rows, numbers=(4,), folds=(1, 3))

    def __str__(self) -> str:
        return self._table(self).text() if self else "nothing failed"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return page(self._table(self).html() if self else "nothing failed")

    @property
    def message(self) -> str:
        """What the user reads if she did not look at the failures herself."""
        more = f"\n… and {len(self) - _LISTED:,} more" if len(self) > _LISTED else ""
        return self._table(self[:_LISTED]).text() + more


def is_temporary(error: InferenceError) -> bool:
    """Whether another try, later and elsewhere, may succeed."""
    return isinstance(error, _SERVER) or (isinstance(error, UnreadableFile) and error.temporary)


def concerns_every_part(error: InferenceError) -> bool:
    """Whether all other parts would fail in the same way, so that the run ends."""
    return isinstance(error, _EVERY_PART)
