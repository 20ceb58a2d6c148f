"""Try how padding changes a model's scores: send some rows alone and the same rows padded, and compare.

The server is a function that sends batches; nothing here needs a connection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eaf_inference.inference.agreement import agree, limits, noise_of
from eaf_inference.inference.batching import batch_of, batches
from eaf_inference.inference.inputs import AnyInput, DenseInput, MatrixInput, RaggedInput
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.tuning import fixed_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.errors import InferenceError
    from eaf_inference.inference.agreement import Limit, Noise
    from eaf_inference.inference.batching import Batch
    from eaf_inference.inference.inputs import Inputs
    from eaf_inference.inference.lengths import Declared
    from eaf_inference.inference.spec import TensorSpec

    Outputs: TypeAlias = Mapping[str, NDArray[Any]]
    Send: TypeAlias = Callable[[Sequence[Batch]], Sequence["Outputs | InferenceError"]]

__all__ = ["Trial", "chosen", "with_other_values"]

_SPREAD = 4  # rows between the shortest and the longest
_MORE = 64  # constituents of padding tried beyond the longest row
_FIRST = 8  # the first padded length tried for a row that is refused without padding
_LARGEST_LEAST = 1024  # constituents: no model is expected to need a longer padded length for short rows
_CELLS = 1 << 18  # of the batches of a trial


class Trial:
    """A few rows, sent alone and padded.

    Parameters
    ----------
    inputs : Inputs
    outputs : sequence of TensorSpec
    declared : sequence of Declared
        One for each collection.
    send : callable
        Sends batches and returns, for each, its outputs or the error with which the model refused it.

    Attributes
    ----------
    alone : array of int64, shape (collections, rows)
        The lengths at which each row's score is right: its own, or the shortest that the model accepts.
    accepted : array of bool, shape (rows,)
        Which rows the model accepts at any length.
    finite : array of bool, shape (rows,)
        Which rows' right scores have a finite number.
    refused : str
        Why the model refuses rows without padding; empty if it accepts them all.
    followers : list of set of (str, int)
        For each collection, the outputs and axes that had its padded length in every batch.
    noise : sequence of mapping of str to Noise
        How scores change with the batch's size alone, as on a GPU that computes in TF32.
    """

    def __init__(
        self, inputs: Inputs, outputs: Sequence[TensorSpec], declared: Sequence[Declared], send: Send
    ) -> None:
        self.inputs = inputs
        self._send = send
        self._declared = declared
        self.counts = np.stack([each.counts for each in inputs.collections])
        self._longest = self.counts.max(axis=1, initial=0)
        self.alone = np.stack([each.unpadded.padded(own) for each, own in zip(declared, self.counts, strict=True)])
        self._right: dict[int, Outputs] = {}
        self.accepted = np.zeros(inputs.rows, np.bool_)
        self.finite = np.zeros(inputs.rows, np.bool_)
        self.refused = ""
        self.noise: Sequence[Mapping[str, Noise]] = ()
        self._outputs = outputs
        self._variable = {(spec.name, axis) for spec in outputs for axis in spec.variable_axes}
        self.followers = [set(self._variable) for _ in inputs.collections]

    def score_alone(self) -> None:
        """Send every row at its lengths in `alone`."""
        self._score_at(np.arange(self.inputs.rows))

    def find_least(self) -> NDArray[np.bool_]:
        """Send the refused rows at longer lengths until they are accepted, and return which of them were.

        A network that looks for k neighbours fails with fewer points, and its recipe need not state k.
        """
        refused = ~self.accepted
        limits = self._within_maximum(np.maximum(self._longest + _MORE, _LARGEST_LEAST))[:, None]
        length = _FIRST
        while (rows := np.flatnonzero(~self.accepted)).size:
            before = self.alone[:, rows]
            longer = np.minimum(np.maximum(-(-before // _FIRST) * _FIRST, length), np.maximum(limits, before))
            longer = np.where([[bool(each.only)] for each in self._declared], before, longer)
            if np.array_equal(longer, before):
                break
            self.alone[:, rows] = longer
            self._score_at(rows)
            length *= 2
        return refused & self.accepted

    def measure_noise(self, copies: int = 3) -> None:
        """Send every row again beside copies of itself: any change is noise, since no padding was added."""
        if all(spec.dtype.kind != "f" for spec in self._outputs):
            return
        size = max(self.inputs.max_batch_size, 1)
        parts = [np.repeat(rows, copies)[:size] for rows in _alike(self.alone, np.flatnonzero(self.accepted))]
        outcomes = self._send([batch_of(self.inputs, rows, self._at(self.alone[:, rows[0]])) for rows in parts])
        pairs = [
            (self._right[row], {name: values[place] for name, values in outcome.items()})
            for rows, outcome in zip(parts, outcomes, strict=True)
            if not isinstance(outcome, Exception)
            for place, row in enumerate(rows)
        ]
        self.noise = (*self.noise, noise_of(pairs, list(self._right.values()), self._outputs))

    def mixed(self) -> bool:
        """Whether a row's scores change with the values of another row of its length, in a batch of these two.

        The shape is the same, so nothing is rounded otherwise. A model that is random shows itself by a repetition.
        The rows are those of `with_other_values`.
        """
        number = self.inputs.rows // 3
        rows = np.flatnonzero(self.accepted.reshape(3, number).all(axis=0))
        if self.inputs.max_batch_size < 2:
            return False
        several = [np.array([row, row + times * number]) for row in rows for times in (1, 1, 2)]
        sent = [batch_of(self.inputs, two, self._at(self.alone[:, two[0]])) for two in several]
        firsts = [
            None if isinstance(each, Exception) else {name: values[0] for name, values in each.items()}
            for each in self._send(sent)
        ]
        allowed = limits(list(self._right.values()), self._outputs)
        for one, again, other in zip(firsts[::3], firsts[1::3], firsts[2::3], strict=True):
            if one is None or again is None or other is None:
                continue
            same, mixed = (
                all(agree(values, each[name], allowed.get(name)) for name, values in one.items())
                for each in (again, other)
            )
            if same and not mixed:
                return True
        return False

    @property
    def noisy(self) -> bool:
        """Whether any score changed with the batch's size."""
        return any(bool(np.any(each.change > 0)) for known in self.noise for each in known.values())

    def differing(self, rules: Sequence[Lengths], noise: Sequence[Mapping[str, Noise]]) -> NDArray[np.bool_]:
        """Return which rows' scores change under these rules, or with more padding than the longest row needs.

        Parameters
        ----------
        rules : sequence of Lengths
        noise : sequence of mapping of str to Noise
            Of this trial and of others.
        """
        most = self._within_maximum(self._longest + _MORE)
        longer = [
            rule if rule.exact or each.full else replace(rule, minimum=max(rule.minimum, int(length)))
            for rule, each, length in zip(rules, self._declared, most, strict=True)
        ]
        found = self._differing(rules, noise, refusal_tells=True)
        if any(each.full and not rule.exact for rule, each in zip(rules, self._declared, strict=True)):
            # where a longer row is beside it, a row may have its full length by chance
            found |= self._differing(rules, noise, refusal_tells=True, one_by_one=True)
        # refusing a length that none of the user's rows needs is no sign of wrong scores
        return found if longer == list(rules) else found | self._differing(longer, noise, refusal_tells=False)

    def _within_maximum(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Limit the lengths of the collections to the declared maxima."""
        return np.array(
            [
                length if each.maximum is None else min(int(length), each.maximum)
                for each, length in zip(self._declared, lengths, strict=True)
            ]
        )

    def _score_at(self, rows: NDArray[np.int64]) -> None:
        """Get the right scores of these rows, rows of equal lengths in one batch."""
        size = max(self.inputs.max_batch_size, 1)
        parts = [alike[at : at + size] for alike in _alike(self.alone, rows) for at in range(0, len(alike), size)]
        sent = [batch_of(self.inputs, each, self._at(self.alone[:, each[0]])) for each in parts]
        for each, batch, outcome in zip(parts, sent, self._send(sent), strict=True):
            if isinstance(outcome, Exception):
                self.refused = str(outcome)
                continue
            self._follow(batch, outcome)
            for place, row in enumerate(each):
                scores = {name: values[place] for name, values in outcome.items()}
                self._right[int(row)] = scores
                self.accepted[row] = True
                self.finite[row] = any(
                    values.dtype == object or bool(np.isfinite(values).any()) for values in scores.values()
                )

    def _differing(
        self,
        rules: Sequence[Lengths],
        noise: Sequence[Mapping[str, Noise]],
        *,
        refusal_tells: bool,
        one_by_one: bool = False,
    ) -> NDArray[np.bool_]:
        """Return which rows, of those accepted alone, have other scores under these rules."""
        found = np.zeros(self.inputs.rows, np.bool_)
        allowed = limits(list(self._right.values()), self._outputs, noise)
        # a collection that is not padded keeps the lengths at which its scores are right
        unpadded = np.where([[rule.exact] for rule in rules], self.alone, 0)
        sent: list[tuple[Batch, NDArray[np.int64]]] = []
        for rows in _alike(unpadded, np.flatnonzero(self.accepted)):
            here = [
                own if rule.exact else rule for rule, own in zip(rules, self._at(self.alone[:, rows[0]]), strict=True)
            ]
            some = self.inputs.take(rows)
            alone = (batch_of(some, np.array([row]), here) for row in range(len(rows)))
            for batch in alone if one_by_one else batches(some, here, fixed_sizes(_CELLS)):
                assert isinstance(batch.rows, np.ndarray)  # noqa: S101  (a trial's inputs are ragged)
                sent.append((batch, rows[batch.rows]))
        for (batch, rows), outcome in zip(sent, self._send([batch for batch, _ in sent]), strict=True):
            if isinstance(outcome, Exception):
                found[rows] |= refusal_tells
                continue
            self._follow(batch, outcome)
            for place, row in enumerate(rows):
                padded = {name: values[place] for name, values in outcome.items()}
                found[row] |= not self._agree(row, padded, allowed)
        return found

    def _follow(self, batch: Batch, outputs: Outputs) -> None:
        for names, length in zip(self.followers, batch.lengths, strict=True):
            names -= {(name, axis) for name, axis in self._variable if outputs[name].shape[1 + axis] != length}

    @staticmethod
    def _at(lengths: NDArray[np.int64]) -> list[Lengths]:
        """Return rules that pad to exactly these lengths."""
        return [Lengths(int(length), exact=True) for length in lengths]

    def _agree(self, row: int, padded: Outputs, allowed: Mapping[str, Limit]) -> bool:
        """Whether a row's scores are equal, apart from padding. NaN equals only NaN."""
        for name, values in self._right[row].items():
            other = padded[name]
            if values.ndim != other.ndim:
                return False
            for axis in range(values.ndim):
                if values.shape[axis] != other.shape[axis]:
                    kept = self._real(row, min(values.shape[axis], other.shape[axis]))
                    values, other = (np.take(each, range(kept), axis=axis) for each in (values, other))
            if not agree(values, other, allowed.get(name)):
                return False
        return True

    def _real(self, row: int, length: int) -> int:
        """Return how many of a row's `length` values belong to constituents, if each constituent has one."""
        followed = self.counts[:, row][self.alone[:, row] == length]
        return int(min(length, followed.min(initial=length)))


def _alike(lengths: NDArray[np.int64], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Group these rows by their lengths."""
    if not len(rows):
        return []
    _, groups = np.unique(lengths[:, rows], axis=1, return_inverse=True)
    groups = groups.reshape(-1)
    return [rows[groups == group] for group in range(int(groups.max()) + 1)]


def chosen(
    counts: NDArray[np.int64], rows: NDArray[np.int64], between: int = _SPREAD
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose rows to try: the extreme ones of each collection, and some of the lengths between.

    Parameters
    ----------
    counts : array of int64, shape (collections, rows)
    rows : array of int64
        Rows that have not been tried.
    between : int
        The most rows besides the extreme ones.

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
    spread = order[np.linspace(0, len(order) - 1, between + 2).round().astype(np.int64)[1:-1]]
    return np.array(sorted(extreme)), np.array(sorted(set(spread.tolist()) - extreme), np.int64)


def with_other_values(inputs: Inputs, masks: Mapping[str, Sequence[bool]]) -> Inputs | None:
    """Make rows of the same lengths with other values, three for each: positive, negative and mixed.

    Parameters
    ----------
    inputs : Inputs
    masks : mapping of str to sequence of bool
        By input, which channels are masks; these keep their values, as integers and booleans do.

    Returns
    -------
    Inputs or None
        Row r becomes rows r, r + rows and r + 2 · rows. None if no value can be changed.
    """
    random = np.random.default_rng(0)
    again = inputs.take(np.tile(np.arange(inputs.rows), 3))
    other: dict[int, NDArray[Any]] = {}
    arrays: list[AnyInput] = []
    for each in again.arrays:
        assert not isinstance(each, MatrixInput)  # noqa: S101  (rows with matrices need no trial)
        values = [each.rows] if isinstance(each, DenseInput) else each.columns
        own = masks.get(each.spec.name) or [False] * len(values)
        for column, is_mask in zip(values, own if len(own) == len(values) else [all(own)], strict=True):
            if id(column) not in other and column.dtype.kind == "f" and not is_mask:
                other[id(column)] = _drawn(random, column)
        changed = [other.get(id(column), column) for column in values]
        if isinstance(each, DenseInput):
            arrays.append(DenseInput(each.spec, changed[0]))
        else:
            arrays.append(RaggedInput(each.spec, changed, each.pads, each.starts, each.counts, each.axis))
    return again.replaced(arrays, again.rows) if other else None


def _drawn(random: np.random.Generator, values: NDArray[Any]) -> NDArray[Any]:
    """Draw values of this shape: the first third positive, the second negative, the last mixed."""
    drawn = random.normal(size=values.shape)
    away = np.abs(drawn) + 0.5
    third = len(values) // 3
    away[third : 2 * third] *= -1
    away[2 * third :] *= np.sign(drawn[2 * third :])
    return away.astype(values.dtype)
