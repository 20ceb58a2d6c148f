"""What a data set consists of, from the files' own lists of their contents: nothing of the columns is read.

Of a data set of very many files only some are opened, and the rest is known from the files' sizes.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from eaf_inference.dataset.contents import contents_of, stored_size
from eaf_inference.dataset.extrapolation import Quantity, total
from eaf_inference.dataset.parts import File, Part
from eaf_inference.dataset.sampling import places
from eaf_inference.errors import UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from eaf_inference.dataset.contents import Contents
    from eaf_inference.dataset.table import Column
    from eaf_inference.inference.model import Model

__all__ = ["Chunk", "Population", "Totals", "population_of"]

_OPENED = 256  # files at most
_OF_A_SIZE = 12  # opened files that stand for all of about their size
_AT_ONCE = 8  # files that are opened at the same time, as storage takes a while to answer


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """What the run will score at once.

    Attributes
    ----------
    part : Part
        With the entry after the last.
    data : Any
        The array, if it is one.
    contents : Contents
        Of its file.
    """

    part: Part
    data: Any
    contents: Contents

    @property
    def entries(self) -> int:
        return (self.part.stop or 0) - self.part.start

    @property
    def size(self) -> float:
        """Bytes of its needed columns in memory."""
        return self.contents.size_of(self.part)


class Totals(NamedTuple):
    """Of all files together: the number of chunks, and what `Contents` has."""

    parts: Quantity
    entries: Quantity
    size: Quantity
    stored: Quantity


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """A data set.

    Attributes
    ----------
    chunks : list of Chunk
        Of the files that were opened.
    files : int
        Without those that cannot be read.
    totals : Totals
    unreadable : list of UnreadableFile
        Of the files that were opened.
    """

    chunks: list[Chunk]
    files: int
    totals: Totals
    unreadable: list[UnreadableFile]

    def without(self, files: Collection[int]) -> Population:
        """Return the data set without some files, whose contents cannot be read."""
        out: dict[int, Contents] = {
            chunk.part.number: chunk.contents for chunk in self.chunks if chunk.part.number in files
        }
        less = np.array([each.totals for each in out.values()], float).reshape(-1, 4).sum(axis=0)
        left = (
            Quantity(each.value - float(minus), each.error) for each, minus in zip(self.totals, less, strict=True)
        )
        chunks = [chunk for chunk in self.chunks if chunk.part.number not in out]
        return Population(chunks, self.files - len(out), Totals(*left), self.unreadable)


def population_of(
    found: Sequence[File | Any],
    model: Model,
    select: Callable[[Any], Any] | None,
    *,
    schema: Any = None,
    most_bytes: int | None = None,
) -> Population:
    """Describe a data set.

    Parameters
    ----------
    found : sequence of File, or of arrays
    model, select, schema, most_bytes
        As `eaf_inference.dataset.reading.read` takes them.

    Raises
    ------
    UnreadableFile
        No file can be read.
    """

    needed: dict[tuple[str, ...], Sequence[Column] | None] = {}

    def contents(each: File | Any) -> Contents | UnreadableFile:
        try:
            return contents_of(each, model, select, needed, schema=schema, most_bytes=most_bytes)
        except UnreadableFile as error:
            return error

    sizes = np.ones(len(found))
    opened = list(range(len(found)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        if len(found) > _OPENED:
            sizes = np.array(list(pool.map(stored_size, found)), float)
            typical = sizes[sizes > 0].mean() if (sizes > 0).any() else 1.0
            sizes = np.where(sizes > 0, sizes, typical)
            drawn = (number for number, _ in islice(places(sizes), 4 * _OPENED))
            opened = sorted(islice(dict.fromkeys(drawn), _OPENED))
        first = contents(found[opened[0]])  # which finds the columns
        others = pool.map(contents, [found[number] for number in opened[1:]])
        looked = dict(zip(opened, [first, *others], strict=True))
    unreadable = [each for each in looked.values() if isinstance(each, UnreadableFile)]
    good = {number: each for number, each in looked.items() if not isinstance(each, UnreadableFile)}
    if not good:
        raise unreadable[0]
    chunks = [chunk for number, each in good.items() for chunk in _chunks(number, found[number], each)]
    rows = np.array([each.totals for each in good.values()], float)
    if len(opened) == len(found):
        return Population(
            chunks, len(good), Totals(*(Quantity(float(each)) for each in rows.sum(axis=0))), unreadable
        )
    readable = len(good) / len(opened)  # as many of the others will be
    files = len(good) + round((len(found) - len(opened)) * readable)
    totals = _by_size(sizes, list(good), rows, set(range(len(found))) - set(opened), readable)
    if (rows[:, 0] == 1).all():  # files are not cut, so there are as many chunks as files
        totals = totals._replace(parts=Quantity(float(files)))
    return Population(chunks, files, totals, unreadable)


def _by_size(
    sizes: NDArray[np.float64], known: list[int], rows: NDArray[np.float64], unknown: set[int], share: float
) -> Totals:
    """Return the totals of all files: those that were not opened are like those of about their size.

    Parameters
    ----------
    sizes : array of float, (files,)
    known : list of int
        The files that were opened.
    rows : array of float, (known files, 4)
        Their numbers.
    unknown : set of int
        The files that were not, of which this share can be read.
    """
    others, mine = sizes[sorted(unknown)], sizes[known]
    groups = np.array_split(np.sort(mine), max(len(known) // _OF_A_SIZE, 1))
    bounds = np.unique([group[0] for group in groups[1:]])
    level, others_level = (np.searchsorted(bounds, each, side="right") for each in (mine, others))
    found = np.zeros((4, 2))  # values and squared errors
    for each in np.unique(level):
        here = level == each
        end = mine[here].sum() + others[others_level == each].sum() * share
        for at in range(4):
            number, _ = total(mine[here, None], rows[here, at], [end], np.flatnonzero(here), [True] * here.sum())
            found[at] += number.value, number.error**2
    return Totals(*(Quantity(float(value), math.sqrt(squared)) for value, squared in found))


def _chunks(number: int, found: File | Any, contents: Contents) -> Iterator[Chunk]:
    file, data = (found, None) if isinstance(found, File) else (None, found)
    for start, stop in contents.ranges:
        yield Chunk(Part(number, file, start, stop), data, contents)
