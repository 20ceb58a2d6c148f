"""Score a data set: send a bounded number of parts, return scores in order, survive bad files and lost workers."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eaf_inference.dataset.failures import Failure, Failures, concerns_every_part
from eaf_inference.dataset.results import Result, Scored
from eaf_inference.dataset.sending import Sending
from eaf_inference.dataset.slots import group_of
from eaf_inference.dataset.tally import Tally
from eaf_inference.errors import ConfigurationError, IncompleteRun
from eaf_inference.inference.caller import warn_caller
from eaf_inference.inference.interrupts import Interrupts, stopping
from eaf_inference.inference.progress import Progress
from eaf_inference.inference.traffic import remarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from eaf_inference.dataset.options import Options
    from eaf_inference.dataset.place import Place
    from eaf_inference.dataset.slots import Group, Sent, Slot
    from eaf_inference.dataset.summary import Summary
    from eaf_inference.dataset.task import Task
    from eaf_inference.dataset.writing import Format, Outputs, Written

__all__ = ["Submission"]


class Submission:
    """An iterator over the scores of a data set, in order, while later parts are scored.

    `Connection.submit` returns it. Scores are returned once, when they and all earlier ones are there, and are not
    kept. Parts are sent only while scores are requested, the first ones with the first request. `close`, the end of
    a ``with`` block, an interrupt and the loss of the last reference cancel the remaining parts.

    Raises
    ------
    IncompleteRun
        At the end of the iteration, if parts were not scored and `failed` was not looked at; the message lists them.
    InferenceError
        While iterating: with ``on_error="raise"`` if a part failed for good; always for what concerns all parts,
        such as a server that does not answer. The message names the part.
    ConfigurationError
        More scores are requested after `close`, an interrupt or an error ended the run early.
    """

    def __init__(
        self,
        place: Place,
        task: Task,
        groups: Iterable[Group],
        options: Options,
        *,
        expected: int | None = None,
    ) -> None:
        self._place = place
        self._options = options
        self._tally = Tally()
        self._failures: list[tuple[Failure, Group]] = []
        self._looked_at = 0
        self._whole_files = False
        self._ended_early = False
        self._unwritten = 0  # failures whose scores were handed over to be written
        self._interrupts = Interrupts()
        self._sending = Sending(place, task, groups, options)
        self._bar = Progress(enabled=options.progress, label=task.model.name, unit=self._unit)
        if expected is not None:
            self._bar.expect(expected)
        self._release = weakref.finalize(self, _release, place, self._sending.flying, self._bar)
        self._release.atexit = False  # the client is closed at exit anyway

    def __iter__(self) -> Submission:
        return self

    def __next__(self) -> Any:
        result = self._next(in_order=True)
        if result is None:
            raise StopIteration
        return result.scores

    def in_order(self) -> Iterator[Result]:
        """Iterate over the scores with the parts that they belong to, in the order of the data set."""
        while (result := self._next(in_order=True)) is not None:
            yield result

    def as_completed(self) -> Iterator[Result]:
        """Iterate over the scores with the parts that they belong to, as they come."""
        while (result := self._next(in_order=False)) is not None:
            yield result

    @property
    def failed(self) -> Failures:
        """What was not scored so far; prints as a table of data set, file, entries, reason and tries."""
        self._looked_at = len(self._failures)
        return Failures.of(each for each, _ in self._failures)

    def retry_failed(self) -> Submission:
        """Score again what failed, in order.

        Returns
        -------
        Submission
            Of the failed parts; of whole files if this one wrote its scores into files.
        """
        self._looked_at = len(self._failures)
        groups: dict[int, Group] = {}
        for failure, group in sorted(self._failures, key=lambda each: each[0].part.place):
            if self._whole_files:
                groups[failure.part.number] = group
            else:
                groups.setdefault(failure.part.number, []).append((failure.part, failure.data))
        return Submission(
            self._place.again(), self._sending.task, groups.values(), self._options, expected=len(groups)
        )

    def _stopped(self) -> str:
        bar, unit = self._bar, self._unit
        of = f" of {bar.total:,}" if bar.total is not None else ""
        failed = f", {bar.failed:,} failed" if bar.failed else ""
        units = unit if bar.done == 1 and not of else f"{unit}s"
        return (
            f"Stopped after {bar.done:,}{of} {units} ({self._tally.jets:,} jets returned{failed}); "
            f"the other {unit}s are cancelled."
        )

    def _next(self, *, in_order: bool) -> Result | None:
        """Return the next scores; None at the end."""
        if not self._release.alive:
            self._check_is_complete()
            return None
        interrupts = self._interrupts
        with stopping(self._stopped):
            try:
                interrupts.watch()
                result = self._handed_over(in_order=in_order)
                interrupts.release()
            except BaseException as error:  # including an interrupt
                interrupts.release(type(error))
                self._end()
                raise
        if result is None:
            self._check_is_complete()  # another thread may have closed it
            self._end(early=False)
            self._report()
        return result

    def _check_is_complete(self) -> None:
        if self._ended_early:
            raise ConfigurationError(
                "This run ended before all scores were returned: it was closed, interrupted or ended by an error. "
                "Expected a new one: call triton.submit again."
            )

    def _report(self) -> None:
        """Warn at the end of what the scores do not show; raise for failures that nobody has seen."""
        for remark in remarks(self.summary, self._sending.task.model.name):
            warn_caller(remark)
        if not (unseen := self._unseen):
            return
        if self._options.on_error == "skip":
            warn_caller(unseen)
        else:
            raise IncompleteRun(
                f"{unseen}\nExpected all to be readable. `failed` has this table and `retry_failed()` tries them "
                "again; on_error='skip' warns instead of this error."
            )

    @property
    def _unseen(self) -> str:
        """What failed, if anything did that nobody has looked at."""
        if len(self._failures) <= self._looked_at:
            return ""
        parts = self._tally.parts + len(self._failures) - self._unwritten
        failures = Failures.of(each for each, _ in self._failures)
        text = (
            f"{len(failures):,} of {parts:,} chunks were not scored; the scores of all others were returned.\n"
            f"{failures.message}"
        )
        if not self._tally.parts and failures[0].error.reason:  # then it is probably the call that was wrong
            text += f"\nThe first in full: {failures[0].error}"
        return text

    def __enter__(self) -> Submission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._leave()
        else:
            self._end()

    def __repr__(self) -> str:
        return f"<Submission of {self._sending.task.model.name!r}: {self.summary.headline}>"

    @property
    def summary(self) -> Summary:
        """Counts over the chunks that were returned so far."""
        return self._tally.summary(restarts=self._place.restarts, failed=len(self._failures))

    def write(self, directory: str | Path, *, format: Format = "parquet") -> Written:  # noqa: A002
        """Write the scores into a directory, one output for each file; go on where an earlier run ended.

        Files whose scores are there already are not scored again. An output is complete or not there at all.

        Parameters
        ----------
        directory : str or Path
            Made if it does not exist. All scores in it are of the same model, `select` and schema.
        format : {"parquet", "root"}

        Returns
        -------
        Written
            What was written, and what was there.

        Raises
        ------
        ConfigurationError
            The run has handed over scores already; or the directory holds scores of another model, `select`, schema
            or format, or cannot be written.
        InvalidInput
            The format cannot hold the scores of a file, or they are of an array, which has no name.
        IncompleteRun
            At the end, if files were not scored or changed meanwhile; see `failed`. Its attribute `written` is what
            is returned otherwise.
        """
        from eaf_inference.dataset.provenance import Provenance
        from eaf_inference.dataset.writing import Outputs

        task = self._sending.task
        provenance = Provenance.of(task.model, task.fingerprint, select=task.select, schema=task.schema)
        outputs = Outputs(directory, provenance, format)
        self._sending.task = replace(task, ids=True)
        self._sending.left = self._left_out(self._all_groups(), outputs)
        self._sending.are_files = True  # arrays are refused
        self._bar.unit = self._unit
        self._whole_files = True
        unscored: list[IncompleteRun] = []
        with stopping(self._stopped):
            try:
                written = outputs.write(self._until_incomplete(outputs, unscored))
            except BaseException:  # such as a full disk
                self._end()
                raise
        for error in unscored:
            error.written = written
            raise error
        return written

    def _until_incomplete(self, outputs: Outputs, unscored: list[IncompleteRun]) -> Iterator[Result]:
        """Hand over all scores, and keep the error at the end for later, because it is none of what is written."""
        try:
            for result in self.as_completed():
                yield result
                part = result.part
                if error := outputs.unwritten.pop(part.number, None):
                    whole = replace(part, start=0, stop=None)
                    self._failures.append((Failure(whole, None, error, 1), group_of(part.number, part.file)))
                    self._unwritten += 1
        except IncompleteRun as error:
            unscored.append(error)

    def _left_out(self, groups: Iterable[Group], outputs: Outputs) -> Iterator[Group]:
        """Leave out the files that are complete, and take all parts of the others: some may have failed alone."""
        for group in groups:
            part, data = group[0]
            if part.file is not None and outputs.done(part.file):
                self._bar.resume(1)
            else:
                yield group_of(part.number, part.file or data)

    def to_dask_awkward(self) -> Any:
        """Return the scores as a dask-awkward array with a partition for each chunk, in order.

        The array scores each chunk when it is computed. The first one is scored now, for its type. A chunk that
        cannot be scored is an error when it is computed.

        Returns
        -------
        dask_awkward.Array

        Raises
        ------
        ConfigurationError
            The run is not on a Dask cluster, has handed over scores already, or dask-awkward is not installed.
        """
        groups = self._all_groups()
        self._end()
        return self._place.collection(self._sending.task, [part for group in groups for part in group])

    def _all_groups(self) -> Iterable[Group]:
        """Return all groups of a run that has not begun."""
        if self._tally.parts or self._failures or not self._release.alive:
            raise ConfigurationError(
                "This run has handed over scores already, or is closed. Expected a new one: call triton.submit again."
            )
        return self._sending.left

    def close(self) -> None:
        """Cancel the remaining parts, and warn if any failed that nobody has seen; does nothing after the end."""
        self._leave()

    def _leave(self) -> None:
        is_early = self._release.alive
        self._end()
        if is_early and self._unseen:
            warn_caller(self._unseen)

    def _end(self, *, early: bool = True) -> None:
        if self._release.alive:
            self._ended_early = early
        self._sending.drop()
        self._release()

    def _handed_over(self, *, in_order: bool) -> Result | None:
        """Wait for the next scores and count them; None at the end."""
        while True:
            found = self._sending.next(self._tally.seconds_a_part, self._waiting, in_order=in_order)
            result = self._take(*found) if found else None
            if result is not None or found is None:
                return result

    def _waiting(self) -> None:
        self._interrupts.check()  # for an interrupt that Python ignored
        with self._interrupts:
            self._bar.unit = self._unit
            self._bar.say_now(self._said)

    def _take(self, slot: Slot, sent: Sent) -> Result | None:
        """Hand over a part's scores; None if it failed and others may succeed."""
        outcome = sent.outcome
        assert outcome is not None  # noqa: S101  (for the type checker)
        with self._interrupts:  # an interrupt must not leave the bar's widgets incomplete
            if isinstance(outcome, Scored):
                self._tally.add(outcome)
                self._place.returned(outcome)
            else:
                self._failures.append((outcome, slot.group))
                slot.failed = True
            if slot.is_done:
                self._bar.unit = self._unit
                self._bar.say(self._said)
                (self._bar.fail if slot.failed else self._bar.update)(1)
        if isinstance(outcome, Failure):
            if self._options.on_error == "raise" or concerns_every_part(outcome.error):
                self._looked_at = len(self._failures)
                raise outcome.error
            return None
        part = sent.part
        if part.stop is None:
            part = replace(part, stop=part.start + outcome.entries)
        last = slot.is_done and not slot.failed
        return Result(part, outcome.scores, outcome.entries, outcome.ids, last=last, aligned=outcome.aligned)

    @property
    def _unit(self) -> str:
        return "file" if self._sending.are_files else "chunk"

    @property
    def _said(self) -> str:
        """The text behind the bar."""
        rate = self._sending.task.model.traffic.inferences_per_second or self._tally.jets_per_second
        return f"{self._tally.jets:,} jets, {rate:,.0f} jets/s"


def _release(place: Place, flying: set[Sent], bar: Progress) -> None:
    """Release the parts. Never blocks, because garbage collection may call it at any point."""
    while flying:
        place.release(flying.pop().future)
    place.close()
    bar.close()
