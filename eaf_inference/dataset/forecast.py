"""What a run over a data set will take, with its uncertainty; prints as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eaf_inference._html import dim, escape, page
from eaf_inference._table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from eaf_inference.dataset.extrapolation import Quantity

__all__ = ["Estimate"]

_DIGITS, _MOST_DIGITS = 3, 5
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_SECONDS = ((2 * 86400.0, 86400.0, "days"), (7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))


@dataclass(frozen=True, slots=True, repr=False)
class Estimate:
    """What a run over a data set will take, from a sample of it.

    Attributes
    ----------
    model : str
    files, chunks : int
        Of the data set, without those that cannot be read; a chunk is scored at once.
    events, jets, requests : Quantity
        Entries of the files, rows of the model's input, and requests to the server.
    bytes_to_read, bytes_to_send : Quantity
        Of the columns as the files store them, and of the tensors.
    seconds : Quantity
        Of the run.
    compute_seconds : Quantity or None
        Time that the server computes: the executions of all instances together. None if its counters do not tell.
    device : str
        ``GPU`` or ``CPU``, where the model's instances are; empty if the server does not say.
    threads : int
        Chunks that are scored at the same time.
    sampled : int
        Chunks and pieces of chunks in the sample.
    share : float
        The sample's part of the data set, by size.
    took : float
        Seconds that the sample took.
    remarks : tuple of str
        What to know besides, such as files that cannot be read.
    """

    model: str
    files: int
    chunks: int
    events: Quantity
    jets: Quantity
    requests: Quantity
    bytes_to_read: Quantity
    bytes_to_send: Quantity
    seconds: Quantity
    compute_seconds: Quantity | None
    device: str
    threads: int
    sampled: int
    share: float
    took: float
    remarks: tuple[str, ...] = field(default=())

    @property
    def headline(self) -> str:
        return (
            f"{self.model}: {self.files:,} files in {self.chunks:,} chunks; from {self.sampled:,} sampled chunks, "
            f"{self.share:.1%} of the data set, in {self.took:.0f} s"
        )

    def _table(self) -> Table:
        threads = f"{self.threads:,} thread" + ("s" if self.threads > 1 else "")
        rows = [
            _row("events", self.events, _count),
            _row("jets", self.jets, _count),
            _row("to read", self.bytes_to_read, _bytes),
            _row("to send", self.bytes_to_send, _bytes),
            _row("requests", self.requests, _count),
            _row(f"time with {threads}", self.seconds, _time),
        ]
        if self.compute_seconds is not None and self.device == "GPU":
            rows.append(_row("GPU-minutes (server compute time)", self.compute_seconds.times(1 / 60), _rounded))
        elif self.compute_seconds is not None:
            where = ", on CPUs" if self.device == "CPU" else ""
            rows.append(_row(f"server compute time{where}", self.compute_seconds, _time))
        else:
            rows.append(("server compute time", "not known", ""))
        return Table(("", "estimate", "68 % interval"), rows, numbers=(1, 2))

    def __str__(self) -> str:
        return "\n".join([self.headline, self._table().text(), *self.remarks])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        remarks = "".join(f"<div>{dim(each)}</div>" for each in self.remarks)
        return page(escape(self.headline) + self._table().html() + remarks)


def _row(name: str, quantity: Quantity, shown: Callable[[float, float, int], str]) -> tuple[str, str, str]:
    value = quantity.value
    if quantity.error == 0:
        return name, f"{value:,.0f}" if shown is _count else shown(value, value, _DIGITS), "known"
    if math.isinf(quantity.error) or not value:
        return name, shown(value, value, _DIGITS), "not known"
    wanted = math.floor(math.log10(value)) - math.floor(math.log10(quantity.error)) + 2  # two of the error
    digits = min(max(wanted, _DIGITS), _MOST_DIGITS)
    low, high = (shown(end, value, digits) for end in (quantity.low, quantity.high))
    return name, shown(value, value, digits), f"{low} to {high}"


def _rounded(value: float, scale: float, digits: int) -> str:
    """Round as a number like `scale` is rounded to this number of digits."""
    places = digits - 1 - math.floor(math.log10(scale)) if scale else 0
    return f"{round(value, places):,.{max(places, 0)}f}"


def _count(value: float, scale: float, digits: int) -> str:
    return _rounded(value, scale, digits) if scale >= 10**digits else f"{value:,.0f}"


def _bytes(value: float, scale: float, digits: int) -> str:
    unit, name = next((each for each in _BYTES if scale >= each[0]), _BYTES[-1])
    return f"{_rounded(value / unit, scale / unit, digits)} {name}"


def _time(value: float, scale: float, digits: int) -> str:
    _, unit, name = next(each for each in _SECONDS if scale >= each[0])
    return f"{_rounded(value / unit, scale / unit, digits)} {name}"
