"""Whether a model's scores depend on padding: tried with the user's own jets before any of them is padded.

A graph network whose masks are right gives the same scores whatever the padded length; one whose masks are not gives
other ones, silently. So rows are sent alone, without padding, and together, padded; where the scores differ, rows of
one length are sent together, unpadded, or all are padded to the one length that the model was trained with.

A finding holds for what was tried: for the inputs that shared their lengths, their padding values, and the lengths
between the shortest and the longest row. Rows beyond are tried when they come. The values of a few rows may hide what
padding does (a mean of zeros, a greatest value above the padding), so that rows of the same lengths with other
values, positive, negative and mixed, are tried beside them.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference.lengths import Declared, Lengths
from eaf_inference.inference.recipe import is_mask
from eaf_inference.inference.trial import Trial, chosen, made, part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.batching import Collection, Job
    from eaf_inference.inference.spec import ModelSpec
    from eaf_inference.inference.trial import Send

__all__ = ["Finding", "Key", "PaddingCheck"]

# What padding depends on besides a row: the inputs that share their lengths, with their padding values, and all
# inputs that are sent.
Key: TypeAlias = "tuple[tuple[tuple[str, tuple[float, ...]], ...], tuple[str, ...]]"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one collection of a model.

    Attributes
    ----------
    lengths : Lengths
        The rule for its rows.
    shortest, longest : int
        Rows of these lengths and of those between were tried; `shortest` is above `longest` before any was.
    empty : bool
        Rows of length 0 were tried.
    followers : frozenset of (str, int) or None
        The outputs and axes that had its length in every trial, so that they may have a value for each constituent;
        None before any.
    note : str
        The sentence about it, where it is worth saying.
    """

    lengths: Lengths
    shortest: int = 1
    longest: int = 0
    empty: bool = False
    followers: frozenset[tuple[str, int]] | None = None
    note: str = ""

    def covers(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows need no trial: rows of their length were tried, or they are not padded."""
        if self.lengths.exact or self.lengths.minimum == self.lengths.maximum:
            return np.ones(len(counts), np.bool_)
        known: NDArray[np.bool_] = (self.shortest <= counts) & (counts <= self.longest) | (counts == 0) & self.empty
        return known if self.lengths.maximum is None else known | (counts >= self.lengths.maximum)

    def after(self, counts: NDArray[np.int64]) -> Finding:
        """The same when rows of these lengths were tried too."""
        filled = counts[counts > 0]
        if not len(filled):
            return replace(self, empty=self.empty or len(counts) > 0)
        low, high = int(filled.min()), int(filled.max())
        if self.shortest <= self.longest:
            low, high = min(low, self.shortest), max(high, self.longest)
        return replace(self, shortest=low, longest=high, empty=self.empty or bool(np.any(counts == 0)))


class PaddingCheck:
    """The rules by which one model's rows are padded.

    One serves all copies of a model in a process: their threads try once, the others wait for the finding.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._name = spec.name
        recipe = spec.recipe
        self._declared: dict[str, Declared] = {}
        self._masks: dict[str, list[bool]] = {}
        for tensor in spec.inputs:
            if recipe is not None and tensor.name in recipe.inputs:
                self._declared[tensor.name] = _declared(tensor.shape, recipe.lengths[tensor.name])
                self._masks[tensor.name] = [variable.is_mask for variable in recipe.inputs[tensor.name]]
            elif is_mask(tensor.name):
                self._masks[tensor.name] = [True]
        self._trying = threading.Lock()
        self._found: dict[Key, Finding] = {}

    @property
    def found(self) -> Mapping[Key, Finding]:
        """What was found so far, by collection."""
        return dict(self._found)

    @property
    def note(self) -> str:
        """What was found, where it is worth saying."""
        return "; ".join(dict.fromkeys(each.note for each in self.found.values() if each.note))

    @property
    def maximum(self) -> int | None:
        """The most constituents of a record that the model takes; None where there is no limit."""
        return Declared.of_all(self._declared.values()).maximum

    def adopt(self, found: Mapping[Key, Finding]) -> None:
        """Take what another process found, where this one has found nothing yet."""
        with self._trying:
            self._found = {**found, **self._found}

    def lengths(self, job: Job, send: Send) -> tuple[Lengths, ...]:
        """The rules for this job's collections; rows unlike those that were tried before are tried first.

        The job is also told which outputs may have a value for each constituent.

        Parameters
        ----------
        job : Job
        send : callable
            Sends batches and gives, for each, its outputs or the error with which the model refuses it.

        Raises
        ------
        InvalidInput
            The model refuses some rows as they are, and its scores depend on the padding.
        """
        declared = [
            Declared.of_all(self._declared.get(each.spec.name, Declared()) for each in collection.inputs)
            for collection in job.collections
        ]
        if not job.is_ragged:
            return tuple(each.unpadded for each in declared)
        keys = [_key(job, collection) for collection in job.collections]
        with self._trying:
            known = [
                self._found.get(key) or Finding(Lengths(each.minimum, each.maximum))
                for key, each in zip(keys, declared, strict=True)
            ]
            untried = _untried(job, known)
            if len(untried):
                findings = self._try(job, untried, declared, known, send)
                for key, before, after in zip(keys, known, findings, strict=True):
                    self._found[key] = after
                    if after.note != before.note:
                        warnings.warn(
                            f"Model {self._name!r}: {after.note}. That costs time; a model with correct masks does "
                            "not need it.",
                            stacklevel=5,  # the line that called the model
                        )
                if len(_untried(job, findings)):  # the rows told nothing, such as those that are NaN
                    return tuple(each.unpadded for each in declared)
                known = findings
            job.expect([finding.followers for finding in known])
            return tuple(finding.lengths for finding in known)

    def _try(
        self,
        job: Job,
        untried: NDArray[np.int64],
        declared: Sequence[Declared],
        known: Sequence[Finding],
        send: Send,
    ) -> list[Finding]:
        """What is known after some of these rows, and others of their lengths, were tried."""
        extreme, between = chosen(np.stack([each.counts for each in job.collections]), untried)
        rows = np.append(extreme, between)
        trial = Trial(part(job, rows), declared, send)
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
        filled, empty = _dependence(trial, rules)
        evident, followers = trial.finite.copy(), trial.followers
        first = np.arange(len(extreme))
        others = made(part(trial.job, first), self._masks)
        if others is not None:
            again = Trial(others, declared, send)
            again.alone, again.tolerance = np.tile(trial.alone[:, first], 3), trial.tolerance
            again.score_alone()
            evident[first] |= again.accepted.reshape(3, -1).any(axis=0)
            also = _dependence(again, rules)
            filled, empty = filled | also[0], empty | also[1]
            followers = [mine & theirs for mine, theirs in zip(followers, again.followers, strict=True)]
        findings = []
        for at, (finding, each, rule) in enumerate(zip(known, declared, rules, strict=True)):
            if finding.followers is not None:
                followers[at] &= finding.followers
            if (filled[at] or empty[at]) and not rule.exact:
                collection = job.collections[at] if len(job.collections) > 1 else None
                rule, note = _unlike(each, rule, collection, only_empty=not filled[at])
                short = trial.counts[at][lengthened & (rule.exact | (trial.counts[at] == 0))]
                if len(short) and not each.full:
                    raise self._impossible(job.collections[at], int(short.min()), trial.refused)
            elif rule.minimum == rule.maximum and rule.minimum > finding.lengths.minimum:
                note = f"every row is padded to {rule.maximum}: it refuses shorter ones"
            else:
                note = ""
            after = replace(finding, lengths=rule, note=note or finding.note, followers=frozenset(followers[at]))
            findings.append(after.after(trial.counts[at][evident]))
        return findings

    def _impossible(self, collection: Collection, length: int, why: str) -> InvalidInput:
        return InvalidInput(
            f"Model {self._name!r} refuses rows of length {length} in {_names(collection)} as they are, and its "
            "scores depend on the padding, so that such a row has no right score. Expected longer rows: leave the "
            f"others out, or have the recipe's min_length say what to pad to. The server's words: {why}"
        )


def _unlike(
    declared: Declared, rule: Lengths, collection: Collection | None, *, only_empty: bool
) -> tuple[Lengths, str]:
    """The rule of a collection whose padding changes scores, and the sentence about it."""
    where = f" of {_names(collection)}" if collection else ""
    if declared.full:
        note = f"every row{where} is padded to {declared.maximum}: its scores depend on the padding"
        return Lengths(declared.unpadded.minimum, declared.maximum), note
    if only_empty and declared.minimum == 0:
        return replace(rule, empty_apart=True), ""
    note = f"rows of one length{where} are sent together, unpadded: its scores depend on the padding"
    return declared.unpadded, note


def _names(collection: Collection) -> str:
    return " and ".join(repr(each.spec.name) for each in collection.inputs)


def _key(job: Job, collection: Collection) -> Key:
    return tuple((each.spec.name, tuple(each.pads)) for each in collection.inputs), job.names


def _untried(job: Job, known: Sequence[Finding]) -> NDArray[np.int64]:
    """The rows of which nothing is known yet."""
    covered = [finding.covers(each.counts) for finding, each in zip(known, job.collections, strict=True)]
    return np.flatnonzero(~np.all(covered, axis=0))


def _dependence(trial: Trial, rules: Sequence[Lengths]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of which collections the padding changes scores: of rows with a constituent, and of empty rows."""
    differing = trial.differing(rules)
    padded = [at for at, rule in enumerate(rules) if not rule.exact]
    by = np.zeros((len(rules), len(differing)), np.bool_)
    if differing.any() and len(padded) > 1:
        unpadded = [Lengths(exact=True)] * len(rules)
        for at in padded:
            by[at] = trial.differing([*unpadded[:at], rules[at], *unpadded[at + 1 :]])
    if not by.any():  # one collection alone, or several only together
        by[padded] = differing
    filled: NDArray[np.bool_] = np.any(by & (trial.counts > 0), axis=1)
    empty: NDArray[np.bool_] = np.any(by & (trial.counts == 0), axis=1)
    return filled, empty


def _declared(shape: tuple[int, ...], declared: Declared) -> Declared:
    """What a recipe's input declares; a fixed shape is more than a recipe's word."""
    fixed = next((size for size in shape[1:] if size != -1), None)
    return declared if fixed is None else Declared(fixed, fixed)
