"""Choose the chunks of a sample while it runs, and note what each took.

The first chunks warm up: connections are opened, and the size of requests is learned. What follows is measured while
all threads are busy, as in the run itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import TYPE_CHECKING

from eaf_inference.dataset.results import Scored
from eaf_inference.dataset.sampling import places, range_at
from eaf_inference.dataset.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eaf_inference.dataset.parts import Part
    from eaf_inference.dataset.population import Chunk
    from eaf_inference.dataset.results import Result
    from eaf_inference.dataset.slots import Group, Sent, Slot

__all__ = ["Measured", "Sampler", "Sampling"]

_WARM = 2.0  # seconds before anything is measured …
_FIRST_ONES = 2  # … and chunks for each thread that have come back, so that every worker has begun …
_LEARNED, _LEARNING = 100, 6.0  # … and requests, from which their best size is known, or seconds of them …
_LONG_WARM = 20.0  # … or this long, as some chunks may be bad
_FEWEST, _PER_THREAD = 8, 3  # chunks that are measured at least …
_SECONDS, _SHARE = 8.0, 0.3  # … and for such a time, or such a share of the data set …
_PRECISE = 0.05  # … if the mean over them is known so well, relative to itself; otherwise …
_MOST_SECONDS, _MOST_SHARE = 24.0, 0.5  # … for this time, or this share of it
_PIECE = 3.0  # seconds that a piece of a large chunk should take: long beside what any piece costs
_FIRST = 1 << 20  # bytes of the first pieces
_GROWTH = 4.0  # of pieces, at most, from one to the next
_WHOLE = 0.7  # of a chunk: such a piece is the whole of it
_MISSES = 20  # draws of what is in the sample already, after which a piece may come again
_LONGEST = 60.0  # seconds, the first chunks included
_SHORTEST = 1.0  # seconds that show how busy the threads are …
_LEAST_BUSY = 0.1  # … and what they are at least


@dataclass(frozen=True, slots=True)
class Measured:
    """A chunk of the sample, or a piece of one.

    Attributes
    ----------
    file : int
        The number of its file.
    whole : bool
        It is all of a chunk.
    entries, size : float
        Its part of the file's contents.
    jets, requests, sent, seconds : float
        Rows, requests and their bytes, and the time of the thread that scored it.
    ended : float
        By the monotonic clock.
    """

    file: int
    whole: bool
    entries: float
    size: float
    jets: int
    requests: int
    sent: int
    seconds: float
    ended: float


class Sampling(Submission):
    """A run over a sample, which notes what each chunk took."""

    scored: Scored

    def _take(self, slot: Slot, sent: Sent) -> Result | None:
        if isinstance(sent.outcome, Scored):
            self.scored = sent.outcome
        return super()._take(slot, sent)

    def _report(self) -> None:
        """Leave the warnings to the run."""

    def _stopped(self) -> str:
        return "Stopped while a sample was scored; there is no estimate."


class Sampler:
    """The chunks of a sample, drawn while earlier ones are scored.

    Parameters
    ----------
    chunks : sequence of Chunk
    threads : int
    clock : callable
        Returns seconds.

    Attributes
    ----------
    measured : list of Measured
    warm_at : float or None
        When measuring began.
    full_until : float
        Until when all threads had work.
    left : dict of int to None
        The chunks that are not in the sample as a whole.
    share : float
        The sample's size beside that of the data set, at most 1.
    """

    def __init__(self, chunks: Sequence[Chunk], threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._chunks = chunks
        self._threads = threads
        self._clock = clock
        self._places = places([chunk.size for chunk in chunks]) if any(chunk.size for chunk in chunks) else None
        self.left = dict.fromkeys(range(len(chunks)))
        self._drawn: dict[tuple[int, int], int] = {}
        self._parts: list[tuple[int, Part]] = []
        self._sent = 0
        self._cold: set[tuple[int, int]] = set()  # the first ones that have not come back
        self._piece = float(_FIRST)
        self._began = clock()
        self._total = sum(chunk.size for chunk in chunks)
        self.share = 0.0
        self.measured: list[Measured] = []
        self.warm_at: float | None = None
        self.full_until = self._began

    @property
    def fewest(self) -> int:
        """How many chunks are measured at least."""
        return max(_FEWEST, _PER_THREAD * self._threads)

    @property
    def covered(self) -> float:
        """The share of the data set, by size, that is in the sample. Pieces of a chunk may overlap."""
        size = 0.0
        reached: dict[int, int] = {}
        for number, part in sorted(self._parts, key=lambda each: each[1].start) if self._total else ():
            start = max(part.start, reached.get(number, 0))
            if part.stop is not None and part.stop > start:
                size += self._chunks[number].contents.size_of(replace(part, start=start))
                reached[number] = part.stop
        return min(size / self._total, 1.0) if self._total else 0.0

    def groups(self) -> Iterator[Group]:
        """Draw until enough is measured."""
        while not self._enough() and self.left:
            yield self.draw()
        self.full_until = self._clock()

    def few(self, number: int) -> Iterator[Group]:
        """Draw a number of chunks, or as many as are left."""
        while number > 0 and self.left:
            yield self.draw()
            number -= 1

    def _enough(self) -> bool:
        now = self._clock()
        if self.share >= 1 or now - self._began >= _LONGEST:
            return True
        timed = self.timed()
        coming = self._sent - len(self.measured)
        if self.warm_at is None or len(timed) + coming < self.fewest:
            return False
        seconds = now - self.warm_at + coming * mean(each.seconds for each in timed) / self._threads
        seconds_most, share_most = (_SECONDS, _SHARE) if self._is_precise() else (_MOST_SECONDS, _MOST_SHARE)
        return seconds >= seconds_most or self.share >= share_most

    def _is_precise(self) -> bool:
        """Return whether the mean over the chunks is known well."""
        for name in ("seconds", "jets"):
            found = [getattr(each, name) / each.size for each in self.timed() if each.size]
            if len(found) < 2 or stdev(found) > _PRECISE * mean(found) * len(found) ** 0.5:
                return False
        return True

    def draw(self) -> Group:
        """Return a chunk that is not in the sample, or a piece of one."""
        number, part = next(iter(self.left)), None
        for _ in range(_MISSES if self._places is not None else 0):
            assert self._places is not None  # noqa: S101  (for the type checker)
            drawn, where = next(self._places)
            if drawn in self.left:
                number, part = drawn, self._piece_of(self._chunks[drawn], where)
                if (part.number, part.start) not in self._drawn:
                    break
        chunk = self._chunks[number]
        part = part or chunk.part
        if part == chunk.part:
            del self.left[number]
        self._drawn[part.number, part.start] = number
        self._parts.append((number, part))
        self._sent += 1
        if self._sent <= _FIRST_ONES * self._threads:
            self._cold.add((part.number, part.start))
        if self._total:
            self.share = min(self.share + chunk.contents.size_of(part) / self._total, 1.0)
        return [(part, chunk.data)]

    def _piece_of(self, chunk: Chunk, where: float) -> Part:
        """Return the chunk, or a piece of it if it is large."""
        part, share = chunk.part, self._piece / max(chunk.size, 1.0)
        if part.file is None or part.stop is None or share >= _WHOLE:
            return part
        wanted = max(round(share * chunk.entries), 1)
        start, stop = range_at(part.start, part.stop, chunk.contents.cuts, where, wanted)
        return replace(part, start=start, stop=stop)

    def add(self, part: Part, scored: Scored) -> Measured:
        """Note what a chunk took, and return it."""
        now = self._clock()
        chunk = self._chunks[self._drawn[part.number, part.start]]
        size = chunk.contents.size_of(part)
        measured = Measured(
            file=part.number,
            whole=(part.start, part.stop) == (chunk.part.start, chunk.part.stop),
            entries=scored.entries,
            size=size,
            jets=scored.jets,
            requests=scored.requests,
            sent=scored.nbytes,
            seconds=scored.seconds,
            ended=now,
        )
        self.measured.append(measured)
        if size > self._piece / 2 and scored.seconds:  # a small piece takes long for its size
            wanted = size / scored.seconds * _PIECE
            self._piece = min(max(wanted, self._piece / _GROWTH), self._piece * _GROWTH)
        self._cold.discard((part.number, part.start))
        since = now - self._began
        learned = sum(each.requests for each in self.measured) >= _LEARNED or since >= _LEARNING
        if self.warm_at is None and since >= _WARM and ((learned and not self._cold) or since >= _LONG_WARM):
            self.warm_at = now
        return measured

    def timed(self) -> list[Measured]:
        """Return the chunks that began when all was warm; all of them if none did."""
        since = self.warm_at
        found = [each for each in self.measured if since is not None and each.ended - each.seconds >= since]
        return found or self.measured

    def busy(self) -> float:
        """Return the share of the threads' time in which they worked on chunks, while there were enough of them."""
        since, until = self.warm_at, self.full_until
        if since is None or until - since < _SHORTEST:
            return 1.0
        worked = sum(
            max(0.0, min(each.ended, until) - max(each.ended - each.seconds, since)) for each in self.measured
        )
        return min(max(worked / (until - since) / self._threads, _LEAST_BUSY), 1.0)
