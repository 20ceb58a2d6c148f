"""The parts of a data set that a run has sent, each in its place."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from eaf_inference.dataset.parts import File, Part

if TYPE_CHECKING:
    from eaf_inference.dataset.failures import Failure
    from eaf_inference.dataset.reading import Ranges
    from eaf_inference.dataset.results import Scored

__all__ = ["Group", "Sent", "Slot", "group_of"]

Group: TypeAlias = list[tuple[Part, Any]]  # the parts of a file in order, or an array with its data


def group_of(number: int, found: Any) -> Group:
    """Return the parts of a file, or one part with an array."""
    if not isinstance(found, File):
        return [(Part(number, None), found)]
    return [(Part(number, found, *step), None) for step in found.steps or ((0, None),)]


@dataclass(slots=True, eq=False)
class Sent:
    """A part that was sent, and what has become of it."""

    part: Part
    data: Any
    future: Any = None  # of Dask or of concurrent.futures, once it was sent
    tries: int = 0
    outcome: Scored | Failure | None = None

    @property
    def name(self) -> str:
        number, file = self.part.number, self.part.file
        entries = "" if self.part.stop is None else f", entries {self.part.start} to {self.part.stop}"
        return f"Chunk {number} ({file}{entries})" if file else f"Chunk {number}"


@dataclass(slots=True, eq=False)
class Slot:
    """A file or an array in its place: its parts that are to be sent, and those that were, each in order."""

    group: Group
    waiting: deque[Sent] = field(default_factory=deque)
    sent: deque[Sent] = field(default_factory=deque)
    failed: bool = False  # whether any of its parts did

    def __post_init__(self) -> None:
        self.waiting.extend(Sent(part, data) for part, data in self.group)

    @property
    def is_done(self) -> bool:
        return not self.waiting and not self.sent

    def split(self, whole: Sent, ranges: Ranges) -> None:
        """Replace a part that was too large by ranges of it."""
        self.sent.remove(whole)
        parts = [replace(whole.part, start=start, stop=stop) for start, stop in ranges.ranges]
        self.waiting.extendleft(Sent(part, None) for part in reversed(parts))
