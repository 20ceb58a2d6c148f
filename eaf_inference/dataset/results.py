"""What scoring a part of a data set gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from eaf_inference.dataset.parts import Part
    from eaf_inference.inference.truncation import Truncation

__all__ = ["Result", "Scored"]


@dataclass(frozen=True, slots=True)
class Result:
    """The scores of one part of a data set.

    Attributes
    ----------
    part : Part
        Where the entries are. Its `stop` is the entry after the last.
    scores : array, or dict of arrays by name
        One for each entry, as the model returns them; of variations, a dict.
    entries : int
        How many entries were read. There are fewer scores if `select` drops entries.
    ids : mapping of str to numpy.ndarray
        The columns run, luminosityBlock and event of the entries, if the file has them and they were asked for.
    last : bool
        Whether all parts of this file have come now. Never true if any of them failed.
    aligned : bool
        Whether `select` makes one element of each entry, in their order; only found out for writing.
    """

    part: Part
    scores: Any
    entries: int
    ids: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    last: bool = True
    aligned: bool = True


@dataclass(frozen=True, slots=True)
class Scored:
    """A part's scores, as they come from where it was scored; the counts are those of `Traffic`."""

    scores: Any
    entries: int
    ids: Mapping[str, NDArray[Any]]
    aligned: bool
    jets: int
    requests: int
    nbytes: int
    retries: int
    truncations: Mapping[Truncation, int]
    not_finite: int
    seconds: float
    worker: str
    process: int
