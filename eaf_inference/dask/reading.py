"""A chunk that is named by its file, read where it is scored: the columns that the model needs, and no others.

Parquet through awkward, ROOT through uproot; both are asked for what they hold before anything is read.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import awkward as ak

from eaf_inference.errors import InferenceError, InvalidInput
from eaf_inference.inference.features import FEATURES, KINEMATICS
from eaf_inference.inference.wrong_input import field_with

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from eaf_inference.inference.model import Model

__all__ = ["read"]

_ROOT = re.compile(r"(?P<file>.+\.root)(?::(?P<tree>.*))?", re.IGNORECASE)
_PARQUET = (".parquet", ".pq")
_NAMED = 40  # columns and trees that a message lists

Column: TypeAlias = tuple[str, ...]  # the names from the top of a table down to its numbers


@dataclass(frozen=True, slots=True)
class _Table:
    """A file that is open: what it holds, and how to get some of it, all of it with None."""

    names: list[str]
    form: Callable[[], ak.forms.Form]
    read: Callable[[list[Column] | None], ak.Array]


def read(chunk: Any, model: Model, select: Callable[[Any], Any] | None) -> Any:
    """What the model takes, of one chunk.

    Parameters
    ----------
    chunk : str, or what `select` or the model takes
        The path or URL of a parquet file, or ``file.root:tree``.
    model : Model
        Says which columns it needs.
    select : callable, optional
        From what was read to what the model takes. Without it, columns are zipped into records.

    Raises
    ------
    InvalidInput
        The file is not there, of another kind, damaged, or lacks what the model needs; the message names it.
    """
    if not isinstance(chunk, str):
        return chunk if select is None else select(chunk)
    with _opened(chunk) as table:
        if select is not None:
            return select(_of_file(chunk, table.read, _touched(table.form(), lambda array: model(select(array)))))
        wanted = model.columns(table.names)
        missing = [name for name in wanted if name not in table.names]
        if missing:
            raise InvalidInput(
                f"{chunk} lacks {_listed(missing)}; it has {_listed(table.names)}. "
                f"Expected {_expected(model, wanted)}; {_select(table, wanted)}"
            )
        array = _of_file(chunk, table.read, [(name,) for name in wanted])
        columns = {name: array[name] for name in wanted}
    if model.spec.recipe is None:
        return columns
    try:
        return ak.zip(columns)
    except ValueError as error:
        raise InvalidInput(
            f"The columns {', '.join(wanted)} of {chunk} have lists of other lengths than one another. Expected one "
            "value of each for every constituent."
        ) from error


@contextmanager
def _opened(path: str) -> Iterator[_Table]:
    if match := _ROOT.fullmatch(path):
        with _of_file(path, _open_root, match["file"]) as file:
            yield _of_file(path, _root_table, file, path, match["tree"])
    elif path.partition("?")[0].lower().endswith(_PARQUET):
        yield _of_file(path, _parquet_table, path)
    else:
        raise InvalidInput(f"{path} is of no kind that is read. Expected a .parquet file or file.root:tree.")


def _of_file(path: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what reads, whose libraries raise errors of all sorts."""
    try:
        return function(*arguments)
    except (InferenceError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _parquet_table(path: str) -> _Table:
    form = ak.metadata_from_parquet(path)["form"]

    def columns(wanted: list[Column] | None) -> ak.Array:
        return ak.from_parquet(path, columns=None if wanted is None else [".".join(column) for column in wanted])

    return _Table(form.fields, lambda: form, columns)


def _open_root(path: str) -> Any:
    import uproot

    return uproot.open(path)


def _root_table(file: Any, path: str, name: str | None) -> _Table:
    trees = file.keys(cycle=False, filter_classname=["TTree", "ROOT::RNTuple"])
    if name not in trees:
        wrong = f"has no tree {name!r}" if name else "holds trees, of which none is named"
        raise InvalidInput(f"{path} {wrong}. Expected file.root:tree, with one of {_listed(trees)}.")
    tree = file[name]

    def branches(wanted: list[Column] | None) -> ak.Array:
        names = None if wanted is None else list(dict.fromkeys(column[0] for column in wanted))
        return tree.arrays(names, library="ak")

    return _Table(tree.keys(), lambda: tree.arrays(entry_stop=0, library="ak").layout.form, branches)


def _expected(model: Model, wanted: Collection[str]) -> str:
    if model.spec.recipe is None:
        return f"a column for each of the model's inputs, {', '.join(wanted)}"
    computed = f" or {', '.join(KINEMATICS)}, of which they follow," if set(FEATURES) & set(wanted) else ""
    return f"the columns {', '.join(wanted)}{computed} with a list a jet"


def _select(table: _Table, wanted: Collection[str]) -> str:
    """What to pass where the columns are elsewhere."""
    array = ak.Array(ak.to_layout(ak.typetracer.typetracer_from_form(table.form())))
    if path := field_with(array, [wanted, KINEMATICS] if set(FEATURES) & set(wanted) else [wanted]):
        return f"{path} has them: pass select=lambda events: events.{path}."
    return (
        "where they have other names or are inside others, pass select=, a function from what is read to what the "
        "model takes, such as lambda events: events.jets.constituents."
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "none"


def _touched(form: ak.forms.Form, use: Callable[[ak.Array], Any]) -> list[Column] | None:
    """The columns that a function looks at; None where it does not run without data.

    The function is given an array that has a type and no data, and that reports what is asked of it.
    """
    described = form.to_dict()
    columns: dict[str, Column] = {}
    leaves = _label(described, (), columns)
    tracer, report = ak.typetracer.typetracer_with_report(ak.forms.from_dict(described), highlevel=True)
    try:
        use(tracer)
    except InferenceError:
        raise
    except Exception:  # noqa: BLE001  (the user's function, which need not work without data: it gets everything)
        return None
    seen = {columns[key] for key in (*report.data_touched, *report.shape_touched)}
    needed = [leaf for leaf in leaves if leaf in seen]
    for column in seen:  # lists whose lengths alone matter come with any of the columns in them
        if not any(leaf[: len(column)] == column for leaf in needed):
            needed.append(next(leaf for leaf in leaves if leaf[: len(column)] == column))
    return needed or leaves[:1]


def _label(form: dict[str, Any], path: Column, columns: dict[str, Column]) -> list[Column]:
    """Give every node of a form a key of its own, note what column it belongs to, and list the columns."""
    form["form_key"] = f"node{len(columns)}"
    columns[form["form_key"]] = path
    if form["class"] == "RecordArray":
        inner = [((*path, name), content) for name, content in zip(form["fields"], form["contents"], strict=True)]
    else:
        inner = [(path, content) for content in (*form.get("contents", ()), form.get("content")) if content]
    return [leaf for at, content in inner for leaf in _label(content, at, columns)] if inner else [path]
