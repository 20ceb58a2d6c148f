"""Learn how a model's service time grows with the size of a request, and choose the sizes that suit it.

A request costs some time whatever it holds, and more for each cell, which is a row times its padded length. Where the
first part is large, as on a GPU, few large requests are best; where it is small, many small ones with little padding.
Both parts are learned from the times between replies while the pipeline is full. These hold whatever limits the rate:
the accelerator, the number of its instances, the network or this process. Nothing here needs a connection.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol, TypeAlias

from eaf_inference._html import page
from eaf_inference._table import Table
from eaf_inference.inference.crowd import Crowd

if TYPE_CHECKING:
    from collections.abc import Callable

_Bound: TypeAlias = "tuple[float, str]"  # cells of a batch, and what bounds them
_cells_of = itemgetter(0)

__all__ = ["Learned", "Shape", "Sizes", "Tuning", "fixed_sizes"]

_FIRST = 8192  # cells of a batch before anything is known, and the fewest later: measured on a CPU
_REQUEST = 1 / 8  # of these: the cost of a request before it is known, in cells
_LARGEST_REQUEST = 8 << 20  # bytes: up to 16 are in flight, and each is copied once
_FIRST_DENSE = 4 << 20  # bytes of a request of rows of fixed shape, which need no padding, before its cost is known
_ENOUGH = 16.0  # a batch of 16 times a request's cost spends 6 % of its time on it
_LONGEST = 0.025  # seconds for the cells of one request, unless the request itself takes long: others wait
_CHEAP = 1.5  # a batch of twice the size that takes less than this is mostly the request's own cost
_DENSE = 10  # times the longest, for rows of fixed shape
_GROWTH, _SHRINK = 4.0, 0.7  # of a batch, from one window of rows to the next
_MEMORY = 0.98  # of earlier replies, at each reply
_RECOVERY = 1.002  # of the cells that fit, with each reply near them: memory may have been short for a moment
_STALL = 32.0  # times what a reply should take, twice what 16 that come together leave: a longer pause tells nothing
_KNOWN = 6  # replies before an estimate is used
_SPREAD = 0.05  # of the sizes, relative: with less, the two parts cannot be separated
_CERTAIN = 0.5  # standard errors added to a cell's time
_EXPLORE_EVERY, _SELDOM = 16, 64  # windows; the latter where batches have the fewest cells, as little is to be gained
_WORTH_KEEPING = 64  # replies; fewer are forgotten in a crowd
_BATCHES, _FIRST_BATCHES = 8, 2  # of a window; the latter until some replies have come


@dataclass(frozen=True, slots=True)
class Shape:
    """How to cut the next rows into batches.

    Attributes
    ----------
    request : float
        The cost of a request besides its cells, in cells.
    cells : int
        The most cells of a batch of several rows.
    batches : int
        About how many batches the rows that are sorted together give.
    first : bool
        Nothing is known yet, so that few rows are cut at a time.
    crowded : bool
        Many share the server, so that it should be able to merge their requests.
    """

    request: float
    cells: int
    batches: int = _BATCHES
    first: bool = False
    crowded: bool = False

    @classmethod
    def of(cls, cell_budget: int) -> Shape:
        """Return the shape for a fixed budget."""
        return cls(cell_budget * _REQUEST, cell_budget)


class Sizes(Protocol):
    """How to cut the next rows, asked again for every window of them."""

    def __call__(self, cell_bytes: float, *, dense: bool = False) -> Shape:
        """Return the shape of the next batches.

        Parameters
        ----------
        cell_bytes : float
            The bytes of a cell.
        dense : bool
            The rows have a fixed shape, so that they are cut one batch at a time.
        """


def fixed_sizes(cell_budget: int) -> Sizes:
    """Return a fixed size for jagged rows; that of rows of fixed shape is fixed too."""

    def shape(cell_bytes: float, *, dense: bool = False) -> Shape:
        return Shape.of(max(int(_FIRST_DENSE / cell_bytes), 1) if dense else cell_budget)

    return shape


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned, to hand on: weighted sums over replies, and the size of a batch.

    Attributes
    ----------
    replies : int
    n, x, xx, y, xy, yy : float
        Sums of 1, cells, cells², seconds, cells · seconds and seconds²; later replies weigh more.
    cells : float
        Of the latest batches.
    most : float
        The cells that the server has memory for; infinite if it never lacked any.
    """

    replies: int = 0
    n: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    y: float = 0.0
    xy: float = 0.0
    yy: float = 0.0
    cells: float = _FIRST
    most: float = float("inf")


class Tuning:
    """What is known about one model on one server.

    All copies of a model in a process share it. It prints as a table.

    Parameters
    ----------
    learned : Learned, optional
        By an earlier session, or another process.
    keep : callable, optional
        Keeps what is learned for the next session.

    Attributes
    ----------
    request_seconds, cell_seconds : float or None
        The time that a request takes besides its cells, and the time for each cell; None before they are known.
    crowd : Crowd
        Whether many share the server.
    cell_budget : int or None
        The size that the user has set, for the table.
    full : str
        What bounds the rows of a batch, if it did so in the latest one: max_batch_size or preferred_batch_size.
    """

    def __init__(self, learned: Learned | None = None, *, keep: Callable[[Learned], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._learned = learned or Learned()
        self._keep = keep
        self._kept = self._learned.replies
        self._windows = 0
        self.crowd = Crowd()
        self.cell_budget: int | None = None
        self.full = ""
        self._bound: _Bound = float("inf"), "nothing is known yet"
        self._may_grow = False  # in a crowd, at the next reading
        self._grown_at = 0, 0.0  # the crowd's reading at which a batch grew, and the server's time for a request
        self._first_latency: float | None = None  # seconds a cell
        self.request_seconds: float | None = None
        self.cell_seconds: float | None = None
        self._estimate()

    @property
    def learned(self) -> Learned:
        return self._learned

    def with_budget(self, cells: int) -> Tuning:
        """Return what is known now, for a table of a model whose size the user has set."""
        other = Tuning(self._learned)
        other.crowd, other.cell_budget, other.full = self.crowd, cells, self.full
        return other

    def __str__(self) -> str:
        return self._table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return page(self._table().html())

    def _table(self) -> Table:
        known, rows = self._learned, []
        if self.request_seconds is None or self.cell_seconds is None:
            times = "not known yet; learned while several requests are in flight"
            rows.append(("time of a request", times))
        else:
            request, cell = self.request_seconds, self.cell_seconds
            rows += [
                ("time of a request besides its cells", f"{request * 1e3:.2f} ms"),
                ("time of a cell", f"{cell * 1e9:.1f} ns"),
                ("a request costs as much as", f"{request / cell:,.0f} cells"),
            ]
        budget = self.cell_budget
        cells, bound = (
            (known.cells, self.full or self._why()) if budget is None else (budget, f"cell_budget={budget}")
        )
        rows.append(("most cells of a batch (rows × padded length)", f"{cells:,.0f}"))
        rows.append(("that is bounded by", bound))
        if self.crowd.long:
            rows.append(("requests in flight", "one for each replica: many users share the server"))
        if known.most < float("inf"):
            rows.append(("cells that fit the server's memory", f"{known.most:,.0f}"))
        rows.append(("learned from", f"{known.replies:,} replies"))
        return Table(("tuning", ""), rows)

    def adopt(self, learned: Learned) -> None:
        """Take over what another process learned, if that is more."""
        with self._lock:
            if learned.replies > self._learned.replies:
                self._learned = learned
                self._estimate()

    def answered(self, cells: float, seconds: float) -> None:
        """Note a request's latency, which bounds its cost before anything else is known."""
        if self._first_latency is None:
            self._first_latency = seconds / cells

    def followed(self, cells: float, seconds: float) -> None:
        """Learn from a reply of the full pipeline, `seconds` after the reply before it."""
        with self._lock:
            known = self._learned
            if self.request_seconds is not None and self.cell_seconds is not None:
                expected = self.request_seconds + self.cell_seconds * cells
                seconds = min(seconds, _STALL * expected) if expected > 0 else seconds
            self._learned = replace(
                known,
                most=known.most * (_RECOVERY if 2 * cells >= known.most else 1.0),
                replies=known.replies + 1,
                n=known.n * _MEMORY + 1,
                x=known.x * _MEMORY + cells,
                xx=known.xx * _MEMORY + cells * cells,
                y=known.y * _MEMORY + seconds,
                xy=known.xy * _MEMORY + cells * seconds,
                yy=known.yy * _MEMORY + seconds * seconds,
            )
            self._estimate()

    def call_ended(self) -> None:
        """Keep what is known, if much of it is new."""
        learned = self._learned
        if self._keep is not None and learned.replies >= self._kept + _WORTH_KEEPING:
            self._kept = learned.replies
            self._keep(learned)

    def refused(self, cells: float) -> None:
        """Send at most half as many cells for long: the server had too little memory for them."""
        with self._lock:
            most = min(max(cells / 2, 1.0), self._learned.most)
            self._learned = replace(self._learned, most=most, cells=min(self._learned.cells, most))

    def _estimate(self) -> None:
        """Fit request_seconds + cell_seconds · cells to the times between replies."""
        known = self._learned
        if known.replies < _KNOWN:
            return
        n, mean, time = known.n, known.x / known.n, known.y / known.n
        variance = known.xx / n - mean * mean
        if variance < (_SPREAD * mean) ** 2:
            return
        slope = (known.xy / n - mean * time) / variance
        unexplained = max(known.yy / n - time * time - slope * slope * variance, 0.0)
        error = math.sqrt(unexplained / variance / max(n - 2.0, 1.0))
        # a cell costs at most this, almost surely: requests grow only if that leaves much for the request itself
        cell = max(slope, 0.0) + _CERTAIN * error
        self.cell_seconds = min(max(cell, 1e-3 * time / mean), time / mean)
        self.request_seconds = max(time - self.cell_seconds * mean, 0.0)

    def shape(self, cell_bytes: float, *, dense: bool = False) -> Shape:
        """Return how to cut the next window of rows; see `Sizes`."""
        with self._lock:
            self._windows += 1
            before, crowded = self._learned.cells, self.crowd.long
            if crowded and self._learned.replies < _WORTH_KEEPING:  # learned while others came between the replies
                self._learned = Learned(cells=before, most=self._learned.most)
                self.request_seconds = self.cell_seconds = None
            if dense:
                before = max(before, _FIRST_DENSE / cell_bytes)
            wanted = self._in_a_crowd(before, dense=dense) if crowded else self._alone(before, dense=dense)
            self._bound = min(
                max(wanted, (_FIRST, "the fewest cells that are worth a request"), key=_cells_of),
                (before * _GROWTH, f"its growth, at most ×{_GROWTH:.0f} at a time"),
                (_LARGEST_REQUEST / cell_bytes, f"{_LARGEST_REQUEST >> 20} MiB for a request"),
                (self._learned.most, "the server's memory"),
                key=_cells_of,
            )
            cells = self._bound[0]
            if cells != self._learned.cells:
                self._learned = replace(self._learned, cells=cells)
            request = self._request_cells(cells)
            most = min(_LARGEST_REQUEST / cell_bytes, self._learned.most)
            growing = self._may_grow and cells < most if crowded else self._learned.replies < _KNOWN
            # if it still grows, learn from a few first
            batches = _FIRST_BATCHES if growing or cells > 2 * before else _BATCHES
            is_settled = cells <= _FIRST and self.request_seconds is not None
            if batches == _BATCHES and self._windows % (_SELDOM if is_settled else _EXPLORE_EVERY) == 0:
                cells /= 4
            return Shape(request, max(int(cells), 1), batches, first=batches == _FIRST_BATCHES, crowded=crowded)

    def _request_cells(self, cells: float) -> float:
        """Return the cost of a request besides its cells, in cells, for batches of this size."""
        if cells <= _FIRST:
            return _FIRST * _REQUEST  # so slow that little is to be gained; an estimate is noise
        if self.request_seconds is None or self.cell_seconds is None:
            return (cells if self.crowd.long else _FIRST) * _REQUEST
        return self.request_seconds / self.cell_seconds

    def _why(self) -> str:
        """Return what bounds a batch, with the present times."""
        request, server = self.request_seconds or 0.0, self.crowd.request_seconds
        return self._bound[1].format(longest=max(_LONGEST, 2 * request) * 1e3, server=server * 1e3)

    def _alone(self, before: float, *, dense: bool) -> _Bound:
        """Return the cells that a batch should have, and what bounds it."""
        if self.request_seconds is not None and self.cell_seconds is not None:
            request, cell = self.request_seconds, self.cell_seconds
            seconds = max(_LONGEST, 2 * request)
            longest = seconds / cell, "{longest:.0f} ms for the cells of a request: others wait"
            if dense:  # larger ones cost no padding, so they stay as they are unless they take very long
                return max(
                    longest,
                    (min(before, _DENSE * longest[0]), "4 MiB, or 250 ms if that takes longer"),
                    key=_cells_of,
                )
            enough = max(request / cell * _ENOUGH, before * _SHRINK)
            return min((enough, f"{_ENOUGH:.0f} × the cost of a request: more gains little"), longest, key=_cells_of)
        if not dense and (per_cell := self._seconds_per_cell()):
            return max(_LONGEST / per_cell, before), "what is known so far"
        return before, "nothing is known yet"

    def _in_a_crowd(self, before: float, *, dense: bool) -> _Bound:
        """Return the same while others' requests come between the replies to ours.

        Only the server's mean time for a request is known then: while it is short, larger requests carry more.
        """
        seconds, readings = self.crowd.request_seconds, self.crowd.readings
        why = "the server's {server:.0f} ms for a request: many share it"
        known = self._alone(before, dense=dense) if self.request_seconds is not None else (before, why)
        reading, earlier = self._grown_at
        unknown = self.request_seconds is None and seconds <= 2 * _LONGEST
        self._may_grow = unknown and (seconds < _LONGEST or seconds < _CHEAP * earlier or not reading)
        if seconds > 2 * _LONGEST:
            return min(known, (before * (_SHRINK if seconds > 4 * _LONGEST else 1.0), why), key=_cells_of)
        # of the first reading after it has grown, some requests are older
        if self._may_grow and (readings >= reading + 2 or not reading):
            self._grown_at = readings, seconds
            return before * (_GROWTH if seconds < _LONGEST / 2 else 2.0), why
        return known

    def _seconds_per_cell(self) -> float | None:
        if self._learned.x:
            return self._learned.y / self._learned.x
        return self._first_latency
