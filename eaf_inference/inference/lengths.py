"""The lengths to which rows are padded: what a model declares, and the rule that batching follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Declared", "Lengths"]

_MULTIPLE = 8  # of padded lengths; few different lengths let the server merge more requests …
_COARSEST = 64  # … and up to this multiple, more padding is tried before any is used


@dataclass(frozen=True, slots=True)
class Declared:
    """The lengths that a model's recipe or shape declares for an input.

    Attributes
    ----------
    minimum : int
        Shorter rows are padded to it; 0 if nothing is declared, and then an empty row is sent with length 0.
    maximum : int or None
        Longer rows are cut.
    full : bool
        The model was trained on rows padded to the maximum (``var_length``), so its score at that length is right.
        Otherwise the score without padding is right.
    only : tuple of int
        The only padded lengths that the model takes, in order; empty if it takes any.
    """

    minimum: int = 0
    maximum: int | None = None
    full: bool = False
    only: tuple[int, ...] = ()

    @property
    def unpadded(self) -> Lengths:
        """The rule under which a row's score is right."""
        least = self.maximum if self.full and self.maximum is not None else self.minimum
        return Lengths(least, self.maximum, exact=True, only=self.only)

    @property
    def padded(self) -> Lengths:
        """The rule under which rows share batches, if padding changes nothing."""
        return Lengths(self.minimum, self.maximum, only=self.only)

    def within(self, only: tuple[int, ...]) -> Declared:
        """Return the same for a model that takes only these padded lengths."""
        if not only:
            return self
        most = only[-1] if self.maximum is None else min(self.maximum, only[-1])
        return replace(self, minimum=min(max(self.minimum, only[0]), most), maximum=most, only=only)

    @classmethod
    def of_all(cls, declared: Iterable[Declared]) -> Declared:
        """Combine what inputs that share their lengths declare."""
        several = tuple(declared)
        return cls(
            minimum=max((each.minimum for each in several), default=0),
            maximum=min((each.maximum for each in several if each.maximum is not None), default=None),
            full=any(each.full for each in several),
            only=next((each.only for each in several if each.only), ()),
        )


@dataclass(frozen=True, slots=True)
class Lengths:
    """The rule by which the rows of one collection are padded.

    Attributes
    ----------
    minimum, maximum : int, int or None
    exact : bool
        Pad nothing beyond `minimum`, so that only rows of one length share a batch. For models whose scores depend
        on padding.
    empty_apart : bool
        Send rows of length 0 with length 0, in batches of their own.
    single : bool
        Send each row alone. For models whose scores depend on the other rows of a batch.
    only : tuple of int
        Pad to these lengths and to no other; empty for any.
    multiple : int
        Pad to multiples of this.
    """

    minimum: int = 0
    maximum: int | None = None
    exact: bool = False
    empty_apart: bool = False
    single: bool = False
    only: tuple[int, ...] = ()
    multiple: int = _MULTIPLE

    def coarser(self, padding: float) -> Lengths:
        """Return a rule of fewer lengths, which adds this many constituents to a row on average, or fewer."""
        multiple = self.multiple
        while multiple < _COARSEST and multiple <= padding:  # a multiple adds half of it, so twice that adds it
            multiple *= 2
        return replace(self, multiple=multiple)

    def padded(self, longest: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return the padded length of a batch whose longest row has this many constituents."""
        least = np.maximum(longest, self.minimum)
        if self.only:
            at = np.minimum(np.searchsorted(self.only, least), len(self.only) - 1)
            return np.asarray(np.maximum(np.array(self.only)[at], longest))  # rows are cut elsewhere
        if self.exact:
            return least
        length = -(-least // self.multiple) * self.multiple
        if self.maximum is not None:
            length = np.maximum(np.minimum(length, self.maximum), longest)  # rows are cut elsewhere
        return np.where(longest == np.int64(0), 0, length) if self.empty_apart else length

    def apart(self, counts: NDArray[np.int64]) -> NDArray[Any]:
        """Return a number for each row; rows whose numbers differ never share a batch."""
        if self.single:
            return np.arange(len(counts))
        if self.exact:
            return self.padded(counts)
        return counts > 0 if self.empty_apart else np.zeros(len(counts), np.bool_)
