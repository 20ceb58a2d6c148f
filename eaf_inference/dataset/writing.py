"""Write the scores of a data set: one output for each input file, complete or not there at all."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from eaf_inference._redact import mask
from eaf_inference.dataset import output
from eaf_inference.dataset.drafts import remove_leftovers
from eaf_inference.dataset.faults import unreadable
from eaf_inference.dataset.output_names import digest_of, joined_steps, output_name
from eaf_inference.dataset.parquet_output import ParquetOutput
from eaf_inference.dataset.provenance import claim, refuse
from eaf_inference.dataset.root_output import RootOutput
from eaf_inference.dataset.written import Written
from eaf_inference.errors import ConfigurationError, InvalidInput
from eaf_inference.inference.caller import warn_caller

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eaf_inference.dataset.parts import File
    from eaf_inference.dataset.provenance import Provenance
    from eaf_inference.dataset.results import Result
    from eaf_inference.errors import InferenceError

__all__ = ["Format", "Outputs", "Written", "write"]

Format: TypeAlias = Literal["parquet", "root"]
_FORMATS: dict[str, type[output.Format]] = {"parquet": ParquetOutput, "root": RootOutput}
_NOT_ALIGNED = (
    "`select` does not keep one element for each entry, in their order, so the output has no entry numbers, and its "
    "scores cannot be put beside their events. To keep the places, use ak.mask in `select`: it puts None where an "
    "entry is dropped. Sort the scores afterwards."
)


class Outputs:
    """A directory of scores: which are there already, and the writing of others.

    Several processes may write different files into it at the same time. Leftovers of killed processes are removed.

    Parameters
    ----------
    directory : str or Path
        Made if it does not exist.
    provenance : Provenance
    format : {"parquet", "root"}

    Attributes
    ----------
    unwritten : dict of int to InferenceError
        The numbers of files whose scores came but were not written, and why.

    Raises
    ------
    ConfigurationError
        The directory holds scores of another model, `select`, schema or format, or cannot be written.
    """

    def __init__(self, directory: str | Path, provenance: Provenance, format: Format = "parquet") -> None:  # noqa: A002
        if format not in _FORMATS:
            raise ConfigurationError(f"The format is {format!r}. Expected {' or '.join(map(repr, _FORMATS))}.")
        self.directory = Path(directory).absolute()
        self._format = _FORMATS[format]
        self._provenance = claim(self.directory, provenance, format)
        self._digests: dict[File, str] = {}
        self._skipped: set[Path] = set()
        self.unwritten: dict[int, InferenceError] = {}
        remove_leftovers(self.directory)

    def path_of(self, file: File) -> Path:
        """Return where the scores of a file go."""
        return self.directory / output_name(file, self._format.suffix)

    def done(self, file: File) -> bool:
        """Whether the scores of a file are there: complete, and of the same input and model.

        The same input has the same data set, path, tree and steps. Of a local file its size, its first 4 KiB and its
        last 64 KiB must be the same too; a file behind a URL is not compared.

        Raises
        ------
        ConfigurationError
            There are scores of another model, `select` or schema.
        """
        digest = digest_of(file.path)
        path = self.path_of(file)
        metadata = self._format.read_metadata(path)
        if metadata is None or not _same(metadata["input"], _input(file, digest)):
            self._digests[file] = digest
            return False
        refuse(path, self._provenance.differences(metadata))
        self._skipped.add(path)
        return True

    def write(self, results: Iterable[Result]) -> Written:
        """Write scores as they come, and remove what is unfinished if they end with an error.

        Files may come in any order and take turns, and so may the parts of a file. A file without all of its parts
        gets no output.

        Raises
        ------
        ConfigurationError
            The disk is full, or the directory cannot be written.
        InvalidInput
            The format cannot hold the scores, or they belong to no file.
        """
        written = Written()
        unfinished: dict[int, output.Unfinished] = {}
        owners: dict[Path, int] = {}  # of two equal files in a data set, the first is written
        try:
            for result in results:
                number, file = result.part.number, result.part.file
                if file is None:
                    raise InvalidInput(
                        f"Chunk {number} is an array, which has no name to write its scores to. Expected files; of "
                        "arrays, iterate over the scores instead."
                    )
                path = self.path_of(file)
                if owners.setdefault(path, number) != number:
                    written.skipped += result.last
                    continue
                with _on_disk(path):
                    if number not in unfinished:
                        digest = self._digests.pop(file, None) or digest_of(file.path)
                        unfinished[number] = output.Unfinished(file, path, self._format, digest)
                    each = unfinished[number]
                    each.add(result)
                    if not result.last:
                        continue
                    if each.complete and each.digest == digest_of(file.path):
                        size = each.finish(self._facts(file, each.digest))
                        written.files += 1
                        written.bytes += size
                        written.entries += each.entries
                        if not each.aligned and not written.not_aligned:
                            warn_caller(f"{file}: {_NOT_ALIGNED}")
                        written.not_aligned += not each.aligned
                    else:
                        each.discard()
                        written.incomplete.append(str(file))
                        self.unwritten[number] = unreadable(
                            file, "changed", "changed while it was scored. Score it again once it stays the same."
                        )
                del unfinished[number]
        finally:
            for each in unfinished.values():
                each.discard()
        written.skipped += len(self._skipped)  # results may be chosen by `done` as they are asked for
        written.incomplete += [str(each.file) for each in unfinished.values()]
        return written

    def _facts(self, file: File, digest: str) -> dict[str, Any]:
        return {**self._provenance.facts(), "input": _input(file, digest)}


def write(
    results: Iterable[Result],
    directory: str | Path,
    *,
    format: Format = "parquet",  # noqa: A002
    provenance: Provenance,
) -> Written:
    """Write scores into a directory; see `Outputs`."""
    return Outputs(directory, provenance, format).write(results)


def _input(file: File, digest: str) -> dict[str, Any]:
    return {
        "dataset": file.dataset,
        "path": mask(file.path),
        "tree": file.tree,
        "steps": joined_steps(file),
        "digest": digest,
    }


def _same(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether two descriptions are of one input; a digest that is unknown is not compared."""
    unknown = not there.get("digest") or not here["digest"]
    return all(there.get(name) == value for name, value in here.items() if not (unknown and name == "digest"))


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror or error}. Expected a directory with free space in which "
            "you may create files. The outputs that are complete stay; write into the same directory again to go on."
        ) from error
