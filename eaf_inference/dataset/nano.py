"""Entries of a file through a schema of coffea: NanoEvents, whose columns are read when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import awkward as ak

from eaf_inference.dataset.alignment import keeps_entries
from eaf_inference.dataset.columns import explaining, touched
from eaf_inference.dataset.faults import NotReadable, of_file, while_reading
from eaf_inference.errors import ConfigurationError, InferenceError
from eaf_inference.inference.named_inputs import NamedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eaf_inference.dataset.parts import File
    from eaf_inference.dataset.table import Column, Table
    from eaf_inference.inference.model import Model

__all__ = ["NanoReader"]

_SAMPLE = 100  # entries on which `select` is tried, to see which columns it uses


class NanoReader:
    """Reads what `select` makes of a file's NanoEvents.

    Parameters
    ----------
    file : File
    table : Table
    model : Model
    select : callable
    schema : type
        Of coffea, such as NanoAODSchema.

    Raises
    ------
    ConfigurationError
        There is no `select`, or `schema` is not a schema.
    """

    def __init__(
        self, file: File, table: Table, model: Model, select: Callable[[Any], Any] | None, schema: Any
    ) -> None:
        if select is None or not hasattr(schema, "behavior"):
            wrong = "There is a schema but no select" if select is None else f"The schema is {schema!r}"
            raise ConfigurationError(
                f"{wrong}. Expected a class such as coffea.nanoevents.NanoAODSchema, and select=, a function that "
                "makes the model's input of NanoEvents."
            )
        self._file = file
        self._table = table
        self._model = model
        self._select = select
        self._schema = schema

    def read(self, start: int, stop: int, *, check: bool) -> tuple[Any, bool]:
        """Return the model's input in memory, and whether it has one element for each entry if that is checked."""
        return self._made(start, stop, [], check=check)

    def columns(self) -> list[Column] | None:
        """Return the columns that `select` and the model use of the first entries; None if it needs more of them."""
        log: list[Any] = []
        try:
            self._made(0, min(_SAMPLE, self._table.entries), log)
        except InferenceError:
            raise
        except Exception:  # noqa: BLE001  (select may need more entries than these; then all columns count)
            return None
        used = dict.fromkeys(access.branch for access in log)  # of a branch inside another: with the other's name
        return [(name,) for name in used if name.rpartition("/")[2] in self._table.names]

    def _made(self, start: int, stop: int, log: list[Any], *, check: bool = False) -> tuple[Any, bool]:
        events = of_file(self._file, self._events, start, stop, log)
        try:
            with explaining(self._file, self._table):
                return self._selected(events), not check or keeps_entries(self._selected, events)
        except InferenceError:
            raise
        except Exception as error:
            if fault := while_reading(self._file, error):
                raise fault from error
            raise

    def _selected(self, events: Any) -> Any:
        made = self._select(events)
        if isinstance(made, NamedInputs):
            return NamedInputs(partial(iter, [self._pair_in_memory(pair) for pair in made]))
        return _in_memory(made, self._model)

    def _pair_in_memory(self, pair: Any) -> Any:
        """Read the input of a variation while the file is open; what is no pair is refused later."""
        match pair:
            case (name, made):
                return name, _in_memory(made, self._model)
        return pair

    def _events(self, start: int, stop: int, log: list[Any]) -> Any:
        from coffea.nanoevents import NanoEventsFactory

        source, file = self._table.source, self._file
        arguments = {
            "entry_start": start,
            "entry_stop": stop,
            "schemaclass": self._schema,
            "metadata": {
                **file.metadata,  # and as coffea's processors have it:
                "dataset": file.dataset,
                "filename": file.path,
                "treename": file.tree,
                "entrystart": start,
                "entrystop": stop,
            },
            "access_log": log,
            "mode": "virtual",
        }
        try:
            if hasattr(source, "object_path"):
                name = source.object_path.strip("/")
                made = NanoEventsFactory.from_root(source.file.root_directory, treepath=name, **arguments)
            else:
                made = NanoEventsFactory.from_parquet(source, **arguments)
            return made.events()
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            name = self._schema.__name__
            raise NotReadable(
                f"not as {name} expects",
                f"does not have what {name} expects: {type(error).__name__}: {error}. Pass the schema of its format.",
            ) from error


def _in_memory(made: Any, model: Model) -> Any:
    """Read what the model uses of its input, whose columns are not read yet, and leave out the rest."""
    if isinstance(made, ak.Array):
        columns = touched(made.layout.form, model)
        return ak.materialize(made if columns is None else _only(made, columns))
    if not isinstance(made, Mapping) or not all(isinstance(each, ak.Array) for each in made.values()):
        return _all_in_memory(made)
    if len({len(each) for each in made.values()}) != 1:
        return _all_in_memory(made)  # the model reports it
    record = ak.zip(dict(made), depth_limit=1)
    columns = touched(record.layout.form, lambda array: model({name: array[name] for name in made}))
    kept = ak.materialize(record if columns is None else _only(record, columns))
    return {name: kept[name] for name in kept.fields}


def _all_in_memory(made: Any) -> Any:
    if isinstance(made, Mapping):
        return {name: _all_in_memory(each) for name, each in made.items()}
    if isinstance(made, list | tuple):
        return [_all_in_memory(each) for each in made]
    return ak.materialize(made) if isinstance(made, ak.Array) else made


def _only(array: Any, columns: Iterable[Column]) -> Any:
    """Return an array with some of its columns, whose types and behaviors it keeps."""
    inside: dict[str, list[Column]] = {}
    for column in columns:
        if column:
            inside.setdefault(column[0], []).append(column[1:])
    if not inside:
        return array
    kept = array[list(inside)]
    for name, deeper in inside.items():
        if all(deeper):
            kept = ak.with_field(kept, _only(array[name], deeper), name)
    return kept
