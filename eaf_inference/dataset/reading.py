"""Read a part of a data set where it is scored, and only the columns that the model needs.

Parquet files are read with pyarrow, ROOT files with uproot. Both list their columns before any data is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.dataset import columns
from eaf_inference.dataset.alignment import keeps_entries
from eaf_inference.dataset.faults import of_file, unreadable
from eaf_inference.dataset.formats import format_of
from eaf_inference.dataset.nano import NanoReader
from eaf_inference.dataset.parquet import open_parquet, parquet_table
from eaf_inference.dataset.root import open_root, root_table
from eaf_inference.dataset.table import cut
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.records import groups_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from eaf_inference.dataset.parts import File, Part
    from eaf_inference.dataset.table import Column, Piece, Table
    from eaf_inference.inference.model import Model

__all__ = ["Ranges", "Read", "Survey", "opened", "read", "survey"]

_IDS = ("run", "luminosityBlock", "event")  # NanoAOD's names


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a part.

    Attributes
    ----------
    data : array, or what `select` returns
        The model's input.
    entries : int
        How many entries were read. `data` has fewer rows if `select` drops some.
    ids : mapping of str to numpy.ndarray
        Of shape (entries,): the columns run, luminosityBlock and event that the file has, if they were asked for.
    aligned : bool
        Whether `select` makes one element of each entry, in their order; only found out if `ids` were asked for.
    """

    data: Any
    entries: int
    ids: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    aligned: bool = True


@dataclass(frozen=True, slots=True)
class Ranges:
    """A file that is too large to be read at once; nothing of it was read.

    Attributes
    ----------
    entries : int
        Of the file.
    ranges : tuple of (int, int)
        They cover the file's entries, or its steps, in order; none is empty.
    """

    entries: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file says about its contents.

    Attributes
    ----------
    ranges : sequence of (int, int)
        The entries that are read at once.
    pieces : sequence of Piece
        What the file stores together, with the sizes of the needed columns.
    reads_from_start : bool
        As of `Table`.
    """

    ranges: Sequence[tuple[int, int]]
    pieces: Sequence[Piece]
    reads_from_start: bool


def read(
    part: Part,
    model: Model,
    select: Callable[[Any], Any] | None,
    data: Any = None,
    *,
    schema: Any = None,
    most_bytes: int | None = None,
    ids: bool = False,
) -> Read | Ranges:
    """Return the model's input from one part of a data set.

    Parameters
    ----------
    part : Part
    model : Model
        Determines the columns to read.
    select : callable, optional
        Converts what was read to the model's input. By default, columns are zipped into records.
    data : input of `select` or of the model, optional
        The array, if the part is no file.
    schema : type, optional
        A schema of coffea, such as NanoAODSchema: `select` receives NanoEvents.
    most_bytes : int, optional
        Of the needed columns in memory. A whole file that needs more is not read: its ranges are returned.
    ids : bool
        Also read the columns that identify an event.

    Raises
    ------
    UnreadableFile
        The file does not exist, has an unsupported type, is damaged, or lacks a tree or a column; or its storage does
        not answer (`temporary`). The message begins with the file, and `reason` is the cause in a few words.
    InvalidInput
        The columns do not fit together.
    ConfigurationError
        `schema` is not a schema, or there is no `select` for it.
    """
    if part.file is None:
        made = data if select is None else select(data)
        return Read(made, _rows(data) or _rows(made))
    with opened(part.file) as table:
        reader = (_Reader if schema is None else NanoReader)(part.file, table, model, select, schema)
        return _read(part, part.file, table, reader, most_bytes, ids=ids)


def survey(
    file: File,
    model: Model,
    select: Callable[[Any], Any] | None,
    known: dict[tuple[str, ...], Sequence[Column] | None],
    *,
    schema: Any = None,
    most_bytes: int | None = None,
) -> Survey:
    """Return what a file says about its contents; the parameters and errors are those of `read`.

    Parameters
    ----------
    known : dict
        The columns that are needed of files with these columns: what `select` uses takes a while to find.
    """
    with opened(file) as table:
        _check(file, table, list(file.steps))
        names = tuple(table.names)
        if select is None or names not in known:
            known[names] = (_Reader if schema is None else NanoReader)(file, table, model, select, schema).columns()
        needed = known[names]
        ranges = _ranges(file, table, lambda: needed, None if file.steps else most_bytes)  # sent as given
        return Survey(ranges, of_file(file, table.pieces, needed), table.reads_from_start)


def _read(
    part: Part, file: File, table: Table, reader: _Reader | NanoReader, most_bytes: int | None, *, ids: bool
) -> Read | Ranges:
    start, stop = part.start, table.entries if part.stop is None else part.stop
    _check(file, table, [(start, stop), *file.steps])
    if part.start == 0 and part.stop is None:
        ranges = _ranges(file, table, reader.columns, most_bytes)
        if ranges not in ([], [(0, table.entries)]):
            return Ranges(table.entries, tuple(ranges))
        stop = ranges[0][1] if ranges else 0
    identifying = [(name,) for name in _IDS if ids and name in table.names]
    found: dict[str, NDArray[Any]] = {}
    if identifying:
        columns_of_ids = entries_of(file, table, identifying, start, stop)
        found = {name: ak.to_numpy(columns_of_ids[name]) for (name,) in identifying if columns_of_ids[name].ndim == 1}
    data, aligned = reader.read(start, stop, check=ids)
    return Read(data, stop - start, found, aligned)


class _Reader:
    """Reads what `select`, or the model itself, needs of a file's columns."""

    def __init__(
        self, file: File, table: Table, model: Model, select: Callable[[Any], Any] | None, _schema: None
    ) -> None:
        self._file = file
        self._table = table
        self._model = model
        self._select = select
        self._names = columns.wanted(file, table, model) if select is None else ()
        if select is None:
            self._columns: Sequence[Column] | None = [(name,) for name in self._names]
        else:
            self._columns = columns.touched(of_file(file, table.form), model, select)

    def columns(self) -> Sequence[Column] | None:
        """Return the columns that are read; None for all."""
        return self._columns

    def read(self, start: int, stop: int, *, check: bool) -> tuple[Any, bool]:
        """Return the model's input of some entries, and whether it has one element for each if that is checked."""
        array = entries_of(self._file, self._table, self._columns, start, stop)
        if self._select is None:
            return _records(self._file, array, self._names, self._model), True
        with columns.explaining(self._file, self._table):
            return self._select(array), not check or keeps_entries(self._select, array)


def entries_of(file: File, table: Table, wanted: Sequence[Column] | None, start: int, stop: int) -> ak.Array:
    """Read columns of some entries, and make sure that there are as many."""
    array = of_file(file, table.read, wanted, start, stop)
    if len(array) != stop - start:
        raise unreadable(file, "damaged", f"has {len(array)} of the entries from {start} to {stop}. Copy it again.")
    return array


def _check(file: File, table: Table, ranges: list[tuple[int, int]]) -> None:
    for start, stop in ranges:
        if not 0 <= start <= stop <= table.entries:
            raise unreadable(
                file,
                f"{table.entries} entries",
                f"has {table.entries} entries, not the range {start} to {stop} that was asked for. The file or its "
                "steps have changed: make the steps again, or leave them out.",
            )


def _ranges(
    file: File, table: Table, needed: Callable[[], Sequence[Column] | None], most_bytes: int | None
) -> list[tuple[int, int]]:
    """Return the ranges of a whole file that are read one after the other; none if there are no entries to read."""
    steps = [step for step in file.steps or [(0, table.entries)] if step[0] < step[1]]
    if most_bytes is None or not steps:
        return steps
    pieces = of_file(file, table.pieces, None)
    if sum(piece.size for piece in pieces) > most_bytes:  # of all columns: which are needed takes longer to find
        pieces = of_file(file, table.pieces, needed())
    return list(cut(pieces, most_bytes, steps))


def _records(file: File, array: ak.Array, names: tuple[str, ...], model: Model) -> Any:
    """Return columns as the model takes them."""
    found = {name: array[name] for name in names}
    if model.spec.recipe is None:
        return found
    alone = len(groups_of(model.spec, model.spec.recipe)) == 1 and {*names}.isdisjoint(
        each.name for each in model.spec.inputs
    )
    try:
        return ak.zip(found, depth_limit=None if alone else 1)
    except ValueError as error:
        raise InvalidInput(
            f"The columns {', '.join(names)} of {file} have lists of different lengths. Expected one value per "
            "column for every constituent."
        ) from error


@contextmanager
def opened(file: File) -> Iterator[Table]:
    """Open a file of any format; the errors of storage and of the file are those of `read`."""
    kind = format_of(file.path) or ("root" if file.tree else "")
    if not kind:
        raise unreadable(
            file, "unsupported type", "has an unsupported type. Expected a .parquet file or file.root:tree."
        )
    opening = open_root(file.path, file.tree) if kind == "root" else open_parquet(file.path)
    with ExitStack() as stack:
        opened = of_file(file, stack.enter_context, opening)
        yield of_file(file, root_table if kind == "root" else parquet_table, opened)


def _rows(data: Any) -> int:
    """Return how many rows the model's input has, as far as its length tells."""
    if isinstance(data, Mapping):
        return _rows(next(iter(data.values()), ()))
    return len(data) if isinstance(data, ak.Array | np.ndarray) or hasattr(data, "columns") else 0
