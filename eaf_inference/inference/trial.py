"""One trial of how padding changes a model's scores: some rows alone, the same rows padded, and what differs.

The server's part is a function that sends batches; nothing here knows a connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eaf_inference.inference.batching import DenseInput, Job, RaggedInput
from eaf_inference.inference.layout import Outer
from eaf_inference.inference.lengths import Lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.errors import InferenceError
    from eaf_inference.inference.batching import Batch
    from eaf_inference.inference.lengths import Declared

    Outputs: TypeAlias = Mapping[str, NDArray[Any]]
    Send: TypeAlias = Callable[[Sequence[Batch]], Sequence["Outputs | InferenceError"]]

__all__ = ["Trial", "chosen", "made", "part"]

_TOLERANCE = 1e-5  # float32 noise stays below 4e-7
_NOISE = 4.0  # times what a row's scores change with the batch's size alone, as on a GPU that computes in TF32 …
_LARGEST_NOISE = 1e-2  # … up to here: beyond, a model cannot be told from one that depends on padding
_SPREAD = 4  # rows between the shortest and the longest
_MORE = 64  # constituents of padding that are tried beyond the longest row
_FIRST = 8  # the first padded length of a row that is refused without padding
_LARGEST_LEAST = 1024  # constituents, where rows are short: beyond, no model is expected to have its least length
_CELLS = 1 << 18  # rows × length of a batch that is tried


class Trial:
    """The rows of a job, all of them, sent alone and padded.

    Parameters
    ----------
    job : Job
        Of a few rows.
    declared : sequence of Declared
        Of each collection.
    send : callable
        Sends batches and gives, for each, its outputs or the error with which the model refuses it.

    Attributes
    ----------
    alone : array of int64, shape (collections, rows)
        The lengths at which each row's score is the right one: its own, or the least that the model takes.
    accepted : array of bool, shape (rows,)
        Which rows the model takes at any length.
    finite : array of bool, shape (rows,)
        Which rows' right scores have a finite number.
    refused : str
        Why the model refuses rows as they are; empty where it takes them all.
    followers : list of set of (str, int)
        Of each collection, the outputs and axes that had its length whenever something was sent.
    tolerance : float
        By how much scores may differ and be called equal, absolute and relative.
    """

    def __init__(self, job: Job, declared: Sequence[Declared], send: Send) -> None:
        self.job = job
        self._send = send
        self._declared = declared
        self.counts = np.stack([each.counts for each in job.collections])
        self._longest = self.counts.max(axis=1, initial=0)
        self.alone = np.stack([each.unpadded.padded(own) for each, own in zip(declared, self.counts, strict=True)])
        self._right: list[Outputs | None] = [None] * job.rows
        self.accepted = np.zeros(job.rows, np.bool_)
        self.finite = np.zeros(job.rows, np.bool_)
        self.refused = ""
        self.tolerance = _TOLERANCE
        self._variable = {(spec.name, axis) for spec in job.outputs for axis in spec.variable_axes}
        self.followers = [set(self._variable) for _ in job.collections]

    def score_alone(self) -> None:
        """Send every row at the lengths in `alone`."""
        self._score_at(np.arange(self.job.rows))

    def find_least(self) -> NDArray[np.bool_]:
        """Send the rows that were refused at longer lengths, until they are taken; which of them are.

        A recipe need not say how many neighbours its network looks for; with fewer points than that it fails.
        """
        refused = ~self.accepted
        limits = self._within_maximum(np.maximum(self._longest + _MORE, _LARGEST_LEAST))[:, None]
        length = _FIRST
        while (rows := np.flatnonzero(~self.accepted)).size:
            before = self.alone[:, rows]
            longer = np.minimum(np.maximum(-(-before // _FIRST) * _FIRST, length), np.maximum(limits, before))
            if np.array_equal(longer, before):
                break
            self.alone[:, rows] = longer
            self._score_at(rows)
            length *= 2
        return refused & self.accepted

    def measure_noise(self) -> None:
        """Send every row again beside copies of itself: what changes then is no padding's doing."""
        size = max(self.job.max_batch_size, 1)
        parts = [np.repeat(rows, 3)[:size] for rows in _alike(self.alone, np.flatnonzero(self.accepted))]
        outcomes = self._send([self.job.batch(rows, self._at(self.alone[:, rows[0]])) for rows in parts])
        noise = 0.0
        for rows, outcome in zip(parts, outcomes, strict=True):
            if not isinstance(outcome, Exception):
                noise = max([noise, *(self._change(row, outcome, place) for place, row in enumerate(rows))])
        self.tolerance = max(_TOLERANCE, min(_NOISE * noise, _LARGEST_NOISE))

    def _change(self, row: int, outputs: Outputs, place: int) -> float:
        """The largest relative difference of a row's scores from the right ones."""
        right = self._right[row]
        assert right is not None  # noqa: S101  (it was accepted)
        largest = 0.0
        for name, values in right.items():
            other = outputs[name][place]
            if values.dtype.kind == "f" and other.shape == values.shape:
                both = np.isfinite(values) & np.isfinite(other)
                scale = max(1.0, float(np.abs(values[both]).max(initial=0.0)))
                largest = max(largest, float(np.abs(values[both] - other[both]).max(initial=0.0)) / scale)
        return largest

    def differing(self, rules: Sequence[Lengths]) -> NDArray[np.bool_]:
        """Which rows' scores change under these rules, and with more padding than the longest row needs."""
        most = self._within_maximum(self._longest + _MORE)
        longer = [
            rule if rule.exact or each.full else replace(rule, minimum=max(rule.minimum, int(length)))
            for rule, each, length in zip(rules, self._declared, most, strict=True)
        ]
        found = self._differing(rules, refusal_tells=True)
        # a length that no row of the user's needs may be one that the model does not take
        return found if longer == list(rules) else found | self._differing(longer, refusal_tells=False)

    def _within_maximum(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """These lengths of the collections, none above what is declared."""
        return np.array(
            [
                length if each.maximum is None else min(int(length), each.maximum)
                for each, length in zip(self._declared, lengths, strict=True)
            ]
        )

    def _score_at(self, rows: NDArray[np.int64]) -> None:
        """The right scores of these rows, those of equal lengths in one batch."""
        size = max(self.job.max_batch_size, 1)
        parts = [alike[at : at + size] for alike in _alike(self.alone, rows) for at in range(0, len(alike), size)]
        batches = [self.job.batch(each, self._at(self.alone[:, each[0]])) for each in parts]
        for each, batch, outcome in zip(parts, batches, self._send(batches), strict=True):
            if isinstance(outcome, Exception):
                self.refused = str(outcome)
                continue
            self._follow(batch, outcome)
            for place, row in enumerate(each):
                scores = {name: values[place] for name, values in outcome.items()}
                self._right[row] = scores
                self.accepted[row] = True
                self.finite[row] = any(bool(np.isfinite(values).any()) for values in scores.values())

    def _differing(self, rules: Sequence[Lengths], *, refusal_tells: bool) -> NDArray[np.bool_]:
        """Which rows' scores are others under these rules, of those that are taken alone."""
        found = np.zeros(self.job.rows, np.bool_)
        # a collection that is not padded keeps the lengths at which its rows are right
        unpadded = np.where([[rule.exact] for rule in rules], self.alone, 0)
        sent: list[tuple[Batch, NDArray[np.int64]]] = []
        for rows in _alike(unpadded, np.flatnonzero(self.accepted)):
            here = [
                own if rule.exact else rule for rule, own in zip(rules, self._at(self.alone[:, rows[0]]), strict=True)
            ]
            for batch in part(self.job, rows).batches(here, _CELLS):
                assert isinstance(batch.rows, np.ndarray)  # noqa: S101  (a ragged job's)
                sent.append((batch, rows[batch.rows]))
        for (batch, rows), outcome in zip(sent, self._send([batch for batch, _ in sent]), strict=True):
            if isinstance(outcome, Exception):
                found[rows] |= refusal_tells
                continue
            self._follow(batch, outcome)
            for place, row in enumerate(rows):
                right = self._right[row]
                assert right is not None  # noqa: S101  (it was accepted)
                found[row] |= not self._agree(row, right, {name: values[place] for name, values in outcome.items()})
        return found

    def _follow(self, batch: Batch, outputs: Outputs) -> None:
        for names, length in zip(self.followers, batch.lengths, strict=True):
            names -= {(name, axis) for name, axis in self._variable if outputs[name].shape[1 + axis] != length}

    @staticmethod
    def _at(lengths: NDArray[np.int64]) -> list[Lengths]:
        """The rules that pad to just these lengths."""
        return [Lengths(int(length), exact=True) for length in lengths]

    def _agree(self, row: int, right: Outputs, padded: Outputs) -> bool:
        """Whether a row's scores are equal, apart from those of padding. NaN equals NaN alone."""
        for name, values in right.items():
            other = padded[name]
            if values.ndim != other.ndim:
                return False
            for axis in range(values.ndim):
                if values.shape[axis] != other.shape[axis]:
                    kept = self._real(row, min(values.shape[axis], other.shape[axis]))
                    values, other = (np.take(each, range(kept), axis=axis) for each in (values, other))
            if values.dtype.kind != "f":
                if not np.array_equal(values, other):
                    return False
                continue
            size = np.abs(values[np.isfinite(values)])
            noise = self.tolerance * max(1.0, float(size.max(initial=0.0)))
            if not np.allclose(other, values, rtol=self.tolerance, atol=noise, equal_nan=True):
                return False
        return True

    def _real(self, row: int, length: int) -> int:
        """How many of so many values of a row belong to constituents, where there is one for each."""
        followed = self.counts[:, row][self.alone[:, row] == length]
        return int(min(length, followed.min(initial=length)))


def _alike(lengths: NDArray[np.int64], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """These rows, those of equal lengths together."""
    if not len(rows):
        return []
    _, groups = np.unique(lengths[:, rows], axis=1, return_inverse=True)
    groups = groups.reshape(-1)
    return [rows[groups == group] for group in range(int(groups.max()) + 1)]


def chosen(counts: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to try: the extreme ones of each collection, and some of the lengths between.

    Parameters
    ----------
    counts : array of int64, shape (collections, job's rows)
    rows : array of int64
        Those that have not been tried.

    Returns
    -------
    extreme, between : array of int64
    """
    extreme: set[int] = set()
    for own in counts[:, rows]:
        filled = np.flatnonzero(own > 0)
        empty = np.flatnonzero(own == 0)[:1]
        ends = filled[[own[filled].argmin(), own[filled].argmax()]] if len(filled) else filled
        extreme.update(rows[np.append(ends, empty)].tolist())
    order = rows[np.argsort(counts[:, rows].sum(axis=0), kind="stable")]
    spread = order[np.linspace(0, len(order) - 1, _SPREAD + 2).round().astype(np.int64)[1:-1]]
    return np.array(sorted(extreme)), np.array(sorted(set(spread.tolist()) - extreme), np.int64)


def part(job: Job, rows: NDArray[np.int64]) -> Job:
    """Some rows of a job as a job of their own."""
    places: dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = {}
    columns: dict[tuple[int, int], NDArray[Any]] = {}
    inputs: list[RaggedInput | DenseInput] = []
    for each in job.inputs:
        if isinstance(each, DenseInput):
            inputs.append(DenseInput(each.spec, each.rows[rows]))
            continue
        place = id(each.counts)
        if place not in places:
            counts = each.counts[rows]
            starts = np.cumsum(counts) - counts
            places[place] = np.repeat(each.starts[rows] - starts, counts) + np.arange(counts.sum()), starts, counts
        at, starts, counts = places[place]
        for column in each.columns:
            columns.setdefault((place, id(column)), column[at])
        inputs.append(
            RaggedInput(each.spec, [columns[place, id(column)] for column in each.columns], each.pads, starts, counts)
        )
    return _like(job, inputs, Outer(len(rows)))


def made(job: Job, masks: Mapping[str, Sequence[bool]]) -> Job | None:
    """Rows of the same lengths with other values, three for each: positive, negative and mixed.

    Parameters
    ----------
    job : Job
    masks : mapping of str to sequence of bool
        By input, which channels are masks; these keep their values, as integers and booleans do.

    Returns
    -------
    Job or None
        Row r of the job is row r, r + rows and r + 2 · rows of this one. None where no value can be another.
    """
    random = np.random.default_rng(0)
    again = part(job, np.tile(np.arange(job.rows), 3))
    other: dict[int, NDArray[Any]] = {}
    inputs: list[RaggedInput | DenseInput] = []
    for each in again.inputs:
        values = [each.rows] if isinstance(each, DenseInput) else each.columns
        own = masks.get(each.spec.name) or [False] * len(values)
        for column, is_mask in zip(values, own if len(own) == len(values) else [all(own)], strict=True):
            if id(column) not in other and column.dtype.kind == "f" and not is_mask:
                other[id(column)] = _drawn(random, column)
        changed = [other.get(id(column), column) for column in values]
        if isinstance(each, DenseInput):
            inputs.append(DenseInput(each.spec, changed[0]))
        else:
            inputs.append(RaggedInput(each.spec, changed, each.pads, each.starts, each.counts))
    if not other:
        return None
    return _like(job, inputs, again.outer)


def _like(job: Job, inputs: Sequence[RaggedInput | DenseInput], outer: Outer) -> Job:
    return Job(
        inputs=inputs, outputs=job.outputs, outer=outer, max_batch_size=job.max_batch_size, given=(), part_of=job
    )


def _drawn(random: np.random.Generator, values: NDArray[Any]) -> NDArray[Any]:
    """Other values of this shape: those of the first third positive, of the second negative, of the last mixed."""
    drawn = random.normal(size=values.shape)
    away = np.abs(drawn) + 0.5
    third = len(values) // 3
    away[third : 2 * third] *= -1
    away[2 * third :] *= np.sign(drawn[2 * third :])
    return away.astype(values.dtype)
