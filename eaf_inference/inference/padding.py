"""Find out whether a model's scores depend on padding, with the user's own jets before any of them is padded.

A graph network with correct masks gives the same scores at any padded length; with wrong masks it silently gives
others. So a few rows are sent alone, without padding, and together, padded. If the scores differ, rows of one length
are sent together, unpadded, or all rows are padded to the one length that the model was trained with.

A finding holds for what was tried: the inputs that shared their lengths, their padding values, and the lengths
between the shortest and the longest row. Rows outside that range are tried when they come. The values of a few rows
may hide the effect of padding (a mean of zeros, a maximum above the padding), so rows of the same lengths with
positive, negative and mixed values are tried as well.

A model that mixes the rows of a batch, as a normalisation in training mode does, shows the same, since padded rows
have other neighbours. So a row is sent beside another, and only the other's values change. If that matters, rows go
one by one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.caller import warn_caller
from eaf_inference.inference.collections import declared_of
from eaf_inference.inference.lengths import Declared, Lengths
from eaf_inference.inference.recipe import is_mask
from eaf_inference.inference.trial import Trial, chosen, with_other_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.agreement import Noise
    from eaf_inference.inference.inputs import Collection, Inputs
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.trial import Send

__all__ = ["Finding", "Key", "Padding", "PaddingCheck"]

_LABELS = 64  # rows between the extreme ones, and made-up ones for each of these, if all outputs are labels
_COPIES = 2, 5, 8  # of a row in a batch, where noise is measured again

# What the effect of padding depends on besides the rows: the inputs that share their lengths, with their padding
# values, and the names of all inputs sent.
Key: TypeAlias = "tuple[tuple[tuple[str, tuple[float, ...]], ...], tuple[str, ...]]"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known about one collection of a model.

    Attributes
    ----------
    lengths : Lengths
        The rule for its rows.
    shortest, longest : int
        Rows from the one length to the other were tried; before any trial, `shortest` is above `longest`.
    empty : bool
        Rows of length 0 were tried.
    followers : frozenset of (str, int) or None
        The outputs and axes that had its padded length in every trial, and so may have one value per constituent;
        None before any trial.
    note : str
        A sentence for the user; empty if there is nothing to report.
    """

    lengths: Lengths
    shortest: int = 1
    longest: int = 0
    empty: bool = False
    followers: frozenset[tuple[str, int]] | None = None
    note: str = ""

    def covers(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows need no trial: their length was tried, or they are not padded."""
        if self.lengths.exact or self.lengths.minimum == self.lengths.maximum:
            return np.ones(len(counts), np.bool_)
        known: NDArray[np.bool_] = (self.shortest <= counts) & (counts <= self.longest) | (counts == 0) & self.empty
        return known if self.lengths.maximum is None else known | (counts >= self.lengths.maximum)

    def after(self, counts: NDArray[np.int64]) -> Finding:
        """Return the finding after rows of these lengths were tried too."""
        filled = counts[counts > 0]
        if not len(filled):
            return replace(self, empty=self.empty or len(counts) > 0)
        low, high = int(filled.min()), int(filled.max())
        if self.shortest <= self.longest:
            low, high = min(low, self.shortest), max(high, self.longest)
        return replace(self, shortest=low, longest=high, empty=self.empty or bool(np.any(counts == 0)))


class Padding(NamedTuple):
    """How the rows of one array are padded.

    Attributes
    ----------
    lengths : tuple of Lengths
        The rule for each collection.
    followers : tuple of frozenset of (str, int) or None
        For each collection, the outputs and axes that may have one value per constituent; empty if unknown.
    """

    lengths: tuple[Lengths, ...]
    followers: tuple[frozenset[tuple[str, int]] | None, ...] = ()


class PaddingCheck:
    """The rules by which one model's rows are padded.

    All copies of a model in a process share one check: the first thread tries, the others wait for its finding.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._name = spec.name
        self._outputs = spec.outputs
        recipe = spec.recipe
        self._declared: dict[str, Declared] = {}
        self._masks: dict[str, list[bool]] = {}
        for tensor in spec.inputs:
            if declared := declared_of(tensor.name, tensor.shape, recipe):
                self._declared[tensor.name] = declared.within(tensor.lengths)
            if recipe is not None and tensor.name in recipe.inputs:
                self._masks[tensor.name] = [variable.is_mask for variable in recipe.inputs[tensor.name]]
            elif is_mask(tensor.name):
                self._masks[tensor.name] = [True]
        merged = ", and also on others' requests, which its dynamic batcher merges: they cannot be right"
        self._mixed = "one row goes per request: its scores depend on the other rows" + merged * (
            spec.merged is not None
        )
        self._trying = threading.Lock()
        self._found: dict[Key, Finding] = {}

    @property
    def found(self) -> Mapping[Key, Finding]:
        """The findings so far, by collection."""
        return dict(self._found)

    @property
    def note(self) -> str:
        """The findings in words; empty if there is nothing to report."""
        return "; ".join(dict.fromkeys(each.note for each in self.found.values() if each.note))

    @property
    def masks(self) -> Mapping[str, Sequence[bool]]:
        """By input, which channels are masks; inputs of no recipe are left out unless they are masks."""
        return self._masks

    def adopt(self, found: Mapping[Key, Finding]) -> None:
        """Take over another process's findings, but keep this one's own."""
        with self._trying:
            self._found = {**found, **self._found}

    def declared(self, inputs: Inputs) -> list[Declared]:
        """Return what the model declares for each collection of these inputs."""
        return [
            Declared.of_all(self._declared.get(each.spec.name, Declared()) for each in collection.inputs)
            for collection in inputs.collections
        ]

    def padding(self, inputs: Inputs, send: Send) -> Padding:
        """Return how to pad these rows, after trying those unlike any that were tried before.

        Parameters
        ----------
        inputs : Inputs
        send : callable
            Sends batches and returns, for each, its outputs or the error with which the model refused it.

        Raises
        ------
        InvalidInput
            The model refuses some rows without padding, and its scores depend on the padding.
        """
        declared = self.declared(inputs)
        unpadded = Padding(tuple(each.unpadded for each in declared))
        if not inputs.is_ragged:
            return unpadded
        keys = [_key(inputs, collection) for collection in inputs.collections]
        with self._trying:
            known = [self._found.get(key) or Finding(each.padded) for key, each in zip(keys, declared, strict=True)]
            untried = _untried(inputs, known)
            if len(untried):
                findings = self._try(inputs, untried, declared, known, send)
                for key, before, after in zip(keys, known, findings, strict=True):
                    self._found[key] = after
                    if after.note != before.note:
                        right = "in evaluation mode" if after.lengths.single else "with correct masks"
                        warn_caller(
                            f"Model {self._name!r}: {after.note}. That costs time; a model {right} does not need it."
                        )
                if len(_untried(inputs, findings)):  # the rows were no evidence: their scores are all NaN, say
                    return unpadded
                known = findings
            return Padding(tuple(finding.lengths for finding in known), tuple(finding.followers for finding in known))

    def _try(
        self,
        inputs: Inputs,
        untried: NDArray[np.int64],
        declared: Sequence[Declared],
        known: Sequence[Finding],
        send: Send,
    ) -> list[Finding]:
        """Try some of these rows, and others of the same lengths, and return the findings."""
        labels = all(spec.dtype.kind != "f" for spec in self._outputs)
        counts = np.stack([each.counts for each in inputs.collections])
        extreme, between = chosen(counts, untried, _LABELS) if labels else chosen(counts, untried)
        rows = np.append(extreme, between)
        trial = Trial(inputs.take(rows), self._outputs, declared, send)
        trial.score_alone()
        lengthened = trial.find_least()
        trial.measure_noise()
        least = trial.alone[:, lengthened].max(axis=1, initial=0)
        rules = [
            finding.lengths
            if finding.lengths.exact
            else replace(finding.lengths, minimum=max(finding.lengths.minimum, int(length)))
            for finding, length in zip(known, least, strict=True)
        ]
        trials = [trial]
        first = np.arange(len(extreme)).repeat(_LABELS if labels else 1)
        others = with_other_values(trial.inputs.take(first), self._masks)
        if others is not None:
            again = Trial(others, self._outputs, declared, send)
            again.alone = np.tile(trial.alone[:, first], 3)
            again.score_alone()
            again.measure_noise()
            trials.append(again)
        filled, empty = _dependence(trials, rules)
        for copies in _COPIES if any(some.noisy for some in trials) else ():
            if not (filled | empty).any():
                break
            for some in trials:
                some.measure_noise(copies)
            filled, empty = _dependence(trials, rules)
        mixed = bool((filled | empty).any()) and any(some.mixed() for some in trials[1:])
        evident = trial.finite.copy()
        for some in trials[1:]:
            np.logical_or.at(evident, first, some.accepted.reshape(3, -1).any(axis=0))
        followers = [set.intersection(*names) for names in zip(*(some.followers for some in trials), strict=True)]
        findings = []
        for at, (finding, each, rule) in enumerate(zip(known, declared, rules, strict=True)):
            if finding.followers is not None:
                followers[at] &= finding.followers
            if (filled[at] or empty[at]) and not rule.exact:
                if mixed:
                    rule, note = replace(each.unpadded, single=True), self._mixed
                else:
                    collection = inputs.collections[at] if len(inputs.collections) > 1 else None
                    rule, note = _unlike(each, rule, collection, only_empty=not filled[at])
                short = trial.counts[at][lengthened & (rule.exact | (trial.counts[at] == 0))]
                if len(short) and not each.full:
                    raise self._impossible(inputs.collections[at], int(short.min()), trial.refused)
            elif rule.minimum == rule.maximum and rule.minimum > finding.lengths.minimum:
                note = f"every row is padded to {rule.maximum}: it refuses shorter ones"
            else:
                note = ""
            after = replace(finding, lengths=rule, note=note or finding.note, followers=frozenset(followers[at]))
            findings.append(after.after(trial.counts[at][evident]))
        return findings

    def _impossible(self, collection: Collection, length: int, why: str) -> InvalidInput:
        return InvalidInput(
            f"Model {self._name!r} refuses rows of length {length} in {_names(collection)} without padding, and its "
            "scores depend on the padding, so such a row has no right score. Leave these rows out, or set the "
            f"recipe's min_length to a length that the model accepts. The server said: {why}"
        )


def _unlike(
    declared: Declared, rule: Lengths, collection: Collection | None, *, only_empty: bool
) -> tuple[Lengths, str]:
    """Return the rule for a collection whose padding changes scores, and a sentence about it."""
    where = f" of {_names(collection)}" if collection else ""
    if declared.full:
        note = f"every row{where} is padded to {declared.maximum}: its scores depend on the padding"
        return replace(declared.unpadded, exact=False), note
    if only_empty and declared.minimum == 0:
        return replace(rule, empty_apart=True), ""
    if declared.only:
        return declared.unpadded, f"rows{where} go to the next declared length: its scores depend on the padding"
    note = f"rows of one length{where} are sent together, unpadded: its scores depend on the padding"
    return declared.unpadded, note


def _names(collection: Collection) -> str:
    return " and ".join(repr(each.spec.name) for each in collection.inputs)


def _key(inputs: Inputs, collection: Collection) -> Key:
    return tuple((each.spec.name, tuple(each.pads)) for each in collection.inputs), inputs.names


def _untried(inputs: Inputs, known: Sequence[Finding]) -> NDArray[np.int64]:
    """Return the rows that no finding covers yet."""
    covered = [finding.covers(each.counts) for finding, each in zip(known, inputs.collections, strict=True)]
    return np.flatnonzero(~np.all(covered, axis=0))


def _dependence(trials: Sequence[Trial], rules: Sequence[Lengths]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the collections whose padding changes scores: of rows with constituents, and of empty rows."""
    noise = [each for trial in trials for each in trial.noise]
    filled, empty = np.zeros((2, len(rules)), np.bool_)
    for trial in trials:
        by = _by_collection(trial, rules, noise)
        filled |= np.any(by & (trial.counts > 0), axis=1)
        empty |= np.any(by & (trial.counts == 0), axis=1)
    return filled, empty


def _by_collection(trial: Trial, rules: Sequence[Lengths], noise: Sequence[Mapping[str, Noise]]) -> NDArray[np.bool_]:
    """Return which rows' scores change with the padding of each collection."""
    differing = trial.differing(rules, noise)
    padded = [at for at, rule in enumerate(rules) if not rule.exact]
    by = np.zeros((len(rules), len(differing)), np.bool_)
    if differing.any() and len(padded) > 1:
        unpadded = [Lengths(exact=True)] * len(rules)
        for at in padded:
            by[at] = trial.differing([*unpadded[:at], rules[at], *unpadded[at + 1 :]], noise)
    if not by.any():  # a single collection, or several that matter only together
        by[padded] = differing
    return by
