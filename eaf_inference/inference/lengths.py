"""To which length the rows of a collection are padded: what a model declares, and the rule that batching follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Declared", "Lengths"]

_MULTIPLE = 8  # padded lengths: a server merges only requests of equal length


@dataclass(frozen=True, slots=True)
class Declared:
    """The lengths that a model's recipe or shape declares for an input.

    Attributes
    ----------
    minimum : int
        Shorter rows are padded to it; 0 where nothing is declared: an empty row is then sent with length 0.
    maximum : int or None
        Longer rows are cut.
    full : bool
        The model was trained on rows that are all padded to the maximum (``var_length``), so that its score at that
        length is the right one. Otherwise the score without padding is.
    """

    minimum: int = 0
    maximum: int | None = None
    full: bool = False

    @property
    def unpadded(self) -> Lengths:
        """The rule under which a row's score is the right one."""
        least = self.maximum if self.full and self.maximum is not None else self.minimum
        return Lengths(least, self.maximum, exact=True)

    @classmethod
    def of_all(cls, declared: Iterable[Declared]) -> Declared:
        """What holds for inputs that share their lengths."""
        several = tuple(declared)
        return cls(
            minimum=max((each.minimum for each in several), default=0),
            maximum=min((each.maximum for each in several if each.maximum is not None), default=None),
            full=any(each.full for each in several),
        )


@dataclass(frozen=True, slots=True)
class Lengths:
    """The rule by which the rows of one collection are padded.

    Attributes
    ----------
    minimum, maximum : int, int or None
    exact : bool
        Pad nothing beyond `minimum`: only rows of one length share a batch. For models whose scores depend on
        padding.
    empty_apart : bool
        The same for rows of length 0 alone: they are sent with length 0, in batches of their own.
    """

    minimum: int = 0
    maximum: int | None = None
    exact: bool = False
    empty_apart: bool = False

    def padded(self, longest: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """The length of a batch whose longest row has this many constituents."""
        least = np.maximum(longest, self.minimum)
        if self.exact:
            return least
        length = -(-least // _MULTIPLE) * _MULTIPLE
        if self.maximum is not None:
            length = np.maximum(np.minimum(length, self.maximum), longest)  # never cut here
        return np.where(longest == np.int64(0), 0, length) if self.empty_apart else length

    def apart(self, counts: NDArray[np.int64]) -> NDArray[Any]:
        """A number for each row; rows whose numbers differ never share a batch."""
        if self.exact:
            return np.maximum(counts, self.minimum)
        return counts > 0 if self.empty_apart else np.zeros(len(counts), np.bool_)
