"""Check a model's scores with ONNX Runtime on a user's example, before the model goes to a server.

The client batches and pads rows, and other users' rows may share a request, so a row's score must depend on the row
alone. The example goes through the client's own preparation, batching and trial of padding, with ONNX Runtime in
place of the server.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.deploy import finding_texts as texts
from eaf_inference.deploy.agreement import FEWEST, TOLERANCE, agree, change_of, constant_outputs, not_finite, row_of
from eaf_inference.deploy.findings import Findings
from eaf_inference.deploy.graph_checks import graph_findings
from eaf_inference.deploy.local_model import Endless, LocalModel, WrongOutput
from eaf_inference.deploy.row_variants import beside, first, resized, same_lengths
from eaf_inference.deploy.source_scores import compared_with_source, severity_of
from eaf_inference.errors import ConfigurationError, InferenceError, InvalidInput
from eaf_inference.inference.batching import batch_of
from eaf_inference.inference.lengths import Lengths
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.padding import PaddingCheck
from eaf_inference.inference.trial import chosen, with_other_values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from eaf_inference.deploy.exported import Reference
    from eaf_inference.deploy.findings import Finding
    from eaf_inference.inference.batching import Batch
    from eaf_inference.inference.inputs import Inputs
    from eaf_inference.inference.marshal import Job
    from eaf_inference.inference.spec import ModelSpec

    Outputs = Mapping[str, NDArray[Any]]

__all__ = ["score_findings"]

_MOST_ROWS = 64  # of the example that are tried
_REPEATED = 8  # rows that are scored again and again
_SIZES = (2, 3, 16)  # of batches that are tried
_OTHER_SIZES = (4, 8, 10, 32, 64, 100, 128, 256, 1000)  # tried if the model refuses a single row
_LONGEST = 4096  # constituents: the longest row that is tried
_NOISE = 4.0  # times the change of scores beside copies of the same row …
_LARGEST_NOISE = 1e-2  # … up to here


def score_findings(
    onnx: Path, spec: ModelSpec, example: Any, *, generated: bool = False, reference: Reference | None = None
) -> Findings:
    """Check the scores of an ONNX model on an example.

    Parameters
    ----------
    onnx : pathlib.Path
        The model's file.
    spec : ModelSpec
        As the client reads it from the model's configuration.
    example : awkward.Array, numpy.ndarray or mapping
        As `Model.__call__` takes it.
    generated : bool
        The rows are random numbers and no data, so a NaN in the scores is a warning.
    reference : callable, optional
        The user's own network or estimator, from which the file was made; see `Export`.

    Returns
    -------
    Findings
        Empty if the scores are as the client needs them.
    """
    try:
        model = LocalModel(onnx, spec)
    except ConfigurationError as error:
        return Findings([texts.does_not_load(spec.name, str(error))])
    try:
        return Findings(_findings(model, example, generated=generated, reference=reference))
    except Endless as error:
        return Findings([texts.endless(spec.name, str(error))])


def _findings(model: LocalModel, example: Any, *, generated: bool, reference: Reference | None) -> list[Finding]:
    spec = model.spec
    try:
        if spec.graph is not None:
            return graph_findings(model, spec.graph, example, generated=generated)
        job = prepare(example, spec)
    except InvalidInput as error:
        return [texts.example_does_not_fit(spec.name, str(error))]
    if not job.rows:
        return [texts.empty_example(spec.name)]
    return _RowChecks(model, model.path, job, generated=generated, reference=reference).findings()


class _RowChecks:
    """The checks of a model of rows."""

    def __init__(
        self, model: LocalModel, path: Path, job: Job, *, generated: bool, reference: Reference | None
    ) -> None:
        self._model = model
        self._path = path
        self._spec = model.spec
        self._generated = generated
        self._reference = reference
        self._padding = PaddingCheck(model.spec)
        rows = _tried(job.inputs)
        self._rows = rows
        self._inputs = job.inputs.take(rows)
        finite = np.ones(len(rows), np.bool_)
        for values in job.caller_values:
            finite &= values.finite(rows)
        self._finite = finite
        self._declared = self._padding.declared(self._inputs)
        self._most = max(self._spec.largest_batch, 1)

    def findings(self) -> list[Finding]:
        """Run the checks; each needs what the one before has shown."""
        name = self._spec.name
        alone, refused = self._alone()
        if not alone:
            return [self._refusal(refused)]
        short = sorted(row for row in refused if not self._recovers(row))
        if short:
            return [texts.refused_rows(name, len(short), self._length_of(short[0]), str(refused[short[0]]))]
        for row in 3 * list(alone)[:_REPEATED]:  # dropout leaves a row as it was now and then
            (again,) = self._model.send([self._batch(np.array([row]))])
            if isinstance(again, InferenceError) or not agree(alone[row], again, 0, TOLERANCE):
                return [texts.random_scores(name, self._path)]
        found = self._batch_findings(alone)
        if not found:
            found = self._padding_findings(refused) or self._length_findings()
        if not found and self._reference is not None:
            found = self._source_findings(self._reference, alone)
        if not found and not self._generated and self._most > 1 and self._inputs.rows < FEWEST:
            found = [texts.small_example(name, self._inputs.rows)]
        return [*found, *self._value_findings(alone, constant=not found)]

    def _alone(self) -> tuple[dict[int, Outputs], dict[int, InferenceError]]:
        """Return the scores of each row alone and unpadded, and why others are refused."""
        alone: dict[int, Outputs] = {}
        refused: dict[int, InferenceError] = {}
        for row in range(self._inputs.rows):
            (outcome,) = self._model.send([self._batch(np.array([row]))])
            if isinstance(outcome, InferenceError):
                refused[row] = outcome
            else:
                alone[row] = outcome
        return alone, refused

    def _source_findings(self, reference: Reference, alone: Mapping[int, Outputs]) -> list[Finding]:
        """Compare the scores with those of the user's own network or estimator."""
        sent = {row: self._batch(np.array([row])) for row in alone}
        batched = self._spec.largest_batch > 0
        compared = compared_with_source(reference, sent, alone, batched=batched)
        found = [texts.source_fails(self._spec.name, compared.failed, compared.why)] if compared.failed else []
        for finite in (True, False):
            rows = [row for row in compared.changes if self._finite[row] == finite]
            wrong = {row: compared.changes[row] for row in rows if compared.changes[row]}
            if wrong:
                at, severity = int(self._rows[min(wrong)]), severity_of(len(wrong), len(rows))
                found.append(
                    texts.differs_from_source(
                        self._spec.name, len(wrong), len(rows), at, max(wrong.values()), severity, finite=finite
                    )
                )
        return found

    def _batch(self, rows: NDArray[np.int64], inputs: Inputs | None = None) -> Batch:
        """Make a batch of rows of one length, unpadded."""
        return batch_of(inputs or self._inputs, rows, [each.unpadded for each in self._declared])

    def _recovers(self, row: int) -> bool:
        """Whether the model takes a row that it refuses unpadded, once it is padded."""
        if not self._inputs.is_ragged:
            return False
        length = 8
        while length <= 1024:
            lengths = [
                Lengths(length if each.maximum is None else min(length, each.maximum), exact=True)
                for each in self._declared
            ]
            (outcome,) = self._model.send([batch_of(self._inputs, np.array([row]), lengths)])
            if not isinstance(outcome, InferenceError):
                return True
            length *= 2
        return False

    def _length_of(self, row: int) -> list[int]:
        return [int(each.counts[row]) for each in self._inputs.collections]

    def _refusal(self, refused: Mapping[int, InferenceError]) -> Finding:
        """Say why the model scores no row alone: it may take batches of another size, or nothing at all."""
        name, error = self._spec.name, next(iter(refused.values()))
        if self._spec.largest_batch > 1:
            longest = int(self._inputs.collections[0].counts.argmax()) if self._inputs.collections else 0
            sizes = [size for size in (*_SIZES, *_OTHER_SIZES) if size <= self._most]
            for size in sizes:
                (outcome,) = self._model.send([self._batch(first(np.array([longest]), size))])
                if not isinstance(outcome, InferenceError):
                    return texts.fixed_batch(name, f"it takes {size} rows but refuses one", str(error), self._path)
        if isinstance(error, WrongOutput):
            if error.rows is not None:
                return texts.not_per_row(name, error.rows, 1, self._path)
            return texts.output_differs(name, str(error))
        return texts.refuses_all(name, str(error))

    def _batch_findings(self, alone: Mapping[int, Outputs]) -> list[Finding]:
        """Check that a row has the same score in a batch of any size, beside any others."""
        if self._most < 2:
            return []
        name = self._spec.name
        rows = same_lengths(self._inputs.take(np.array(list(alone))))
        rows = np.array(list(alone))[rows]
        tolerance = self._tolerance(alone, rows)
        for size in dict.fromkeys(min(size, self._most) for size in _SIZES):
            some = first(rows, size)
            batch = self._batch(some)
            (outcome,) = self._model.send([batch])
            if isinstance(outcome, WrongOutput) and outcome.rows is not None:
                return [texts.not_per_row(name, outcome.rows, size, self._path)]
            if isinstance(outcome, InferenceError):
                return [texts.fixed_batch(name, f"it refuses {size} rows in one request", str(outcome), self._path)]
            if not all(agree(alone[row], outcome, place, tolerance) for place, row in enumerate(some)):
                change = max(change_of(alone[row], outcome, place) for place, row in enumerate(some))
                return [texts.depends_on_batch(name, change, self._path)]
            for mixed, kept in self._mixtures(batch, some):
                (other,) = self._model.send([mixed])
                places = np.flatnonzero(kept)
                if isinstance(other, InferenceError):
                    continue  # other values than the example's may be out of the model's range
                scores = {key: values[places] for key, values in outcome.items()}
                parts = {key: values[places] for key, values in other.items()}
                if not all(agree(row_of(scores, at), parts, at, TOLERANCE) for at in range(len(places))):
                    change = max(change_of(row_of(scores, at), parts, at) for at in range(len(places)))
                    return [texts.depends_on_batch(name, change, self._path)]
        return []

    def _mixtures(self, batch: Batch, rows: NDArray[np.int64]) -> list[tuple[Batch, NDArray[np.bool_]]]:
        """Return the batch with other values in every second place."""
        others = (
            with_other_values(self._inputs.take(rows), self._padding.masks) if not self._inputs.matrices else None
        )
        if others is None:
            return []
        mixed = self._batch(2 * len(rows) + np.arange(len(rows)), others)  # those of positive and negative values
        even = np.arange(len(rows)) % 2 == 0
        return [(beside(batch, mixed, kept), kept) for kept in (even, ~even)]

    def _tolerance(self, alone: Mapping[int, Outputs], rows: NDArray[np.int64]) -> float:
        """Return the difference between equal scores, from rows beside copies of themselves."""
        size, noise = min(3, self._most), 0.0
        for row in rows[:3]:
            (outcome,) = self._model.send([self._batch(np.repeat(row, size))])
            if not isinstance(outcome, InferenceError):
                noise = max(noise, *(change_of(alone[int(row)], outcome, place) for place in range(size)))
        # scores that change more beside their own copies depend on the batch
        return max(TOLERANCE, _NOISE * noise) if _NOISE * noise <= _LARGEST_NOISE else TOLERANCE

    def _padding_findings(self, refused: Mapping[int, InferenceError]) -> list[Finding]:
        """Try padding as the client does, with rows of length 0, 1 and the maximum too."""
        if not self._inputs.is_ragged:
            return []
        name = self._spec.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its note is the finding
            try:
                for each in (self._inputs, *self._extremes()):
                    self._padding.padding(each, self._model.send)
            except InvalidInput:
                return [texts.depends_on_padding(name)]
        # a rule without padding is the client's last resort; one that is declared is what the model was made for
        if any(each.lengths.exact and not each.lengths.only for each in self._padding.found.values()):
            return [texts.depends_on_padding(name)]
        filled = [row for row in refused if any(self._length_of(row))]
        if filled:
            row = min(filled, key=self._length_of)
            return [texts.refuses_short(name, self._length_of(row), str(refused[row]))]
        return []

    def _extremes(self) -> list[Inputs]:
        """Return rows of length 0, 1 and the maximum, if the model's declared lengths allow them."""
        found = [
            resized(self._inputs, [length for _ in self._declared])
            for length in (0, 1)
            if all(each.minimum <= length for each in self._declared)
        ]
        if any(each.maximum for each in self._declared):
            found.append(self._longest())
        return found

    def _longest(self) -> Inputs:
        return resized(
            self._inputs, [None if each.maximum is None else min(each.maximum, _LONGEST) for each in self._declared]
        )

    def _length_findings(self) -> list[Finding]:
        """Check rows of the greatest declared length, and rows without constituents."""
        if not self._inputs.is_ragged:
            return []
        name, found = self._spec.name, []
        if any(each.maximum for each in self._declared):
            longest = self._longest()
            (outcome,) = self._model.send([self._batch(np.array([0]), longest)])
            if isinstance(outcome, InferenceError):
                lengths = [int(each.counts[0]) for each in longest.collections]
                found.append(texts.refuses_long(name, lengths, str(outcome)))
        if all(each.minimum == 0 for each in self._declared):
            empty = resized(self._inputs, [0 for _ in self._declared])
            rules = self._padding.padding(empty, self._model.send).lengths
            (outcome,) = self._model.send([batch_of(empty, np.array([0]), rules)])
            if not isinstance(outcome, InferenceError) and not_finite(outcome):
                found.append(texts.empty_rows_not_finite(name))
        return found

    def _value_findings(self, alone: Mapping[int, Outputs], *, constant: bool) -> list[Finding]:
        """Check that scores are numbers, and with `constant` that they differ."""
        name, found = self._spec.name, []
        wrong = [row for row, outputs in alone.items() if self._finite[row] and not_finite(outputs)]
        if wrong:
            at = int(self._rows[wrong[0]])
            found.append(texts.scores_not_finite(name, len(wrong), len(alone), at, generated=self._generated))
        elif constant:
            found += [
                texts.constant(name, output, len(alone), generated=self._generated)
                for output in constant_outputs(list(alone.values()))
            ]
        return found


def _tried(inputs: Inputs) -> NDArray[np.int64]:
    """Choose rows of the example: the extreme lengths of each collection, and others spread over all."""
    spread = np.linspace(0, inputs.rows - 1, _MOST_ROWS).round().astype(np.int64)
    if inputs.collections:
        extreme, between = chosen(np.stack([each.counts for each in inputs.collections]), np.arange(inputs.rows))
        spread = np.concatenate([spread, extreme, between])
    return np.unique(spread)
