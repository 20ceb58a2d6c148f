"""Which columns of a file a model and the user's `select` need."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import awkward as ak

from eaf_inference.dataset.faults import unreadable
from eaf_inference.dataset.watching import NAME, Asked
from eaf_inference.errors import InferenceError
from eaf_inference.inference.features import KINEMATICS, VARIABLES, expected_sources
from eaf_inference.inference.named_inputs import NamedInputs
from eaf_inference.inference.wrong_input import field_with

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from eaf_inference.dataset.table import Column, Table
    from eaf_inference.errors import UnreadableFile
    from eaf_inference.inference.model import Model

__all__ = ["explaining", "lacking", "listed", "touched", "wanted"]

_LISTED = 40  # columns in a message
_NO_FIELD = re.compile(r"no field (?:named )?'([^']*)'")  # in awkward's errors


def wanted(path: object, table: Table, model: Model) -> tuple[str, ...]:
    """Return the columns that the model reads if there is no `select`.

    Raises
    ------
    UnreadableFile
        The file lacks some.
    """
    names = model.columns(table.names)
    missing = [name for name in names if name not in table.names]
    if missing:
        raise lacking(
            path,
            missing,
            f"it has {listed(table.names)}. Expected {_expected(model, table, missing)}; {_select(table, names)}",
        )
    return names


def lacking(path: object, missing: Sequence[str], message: str) -> UnreadableFile:
    """Return the error for a file without some columns."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return unreadable(path, f"lacks {missing[0]}{more}", f"lacks {listed(missing)}; {message}")


@contextmanager
def explaining(path: object, table: Table) -> Iterator[None]:
    """Convert awkward's errors for a column that `select` uses and the file lacks."""
    try:
        yield
    except (AttributeError, IndexError) as error:
        named = _NO_FIELD.search(str(error))
        if not named or named[1] in table.names:
            raise
        raise lacking(
            path, [named[1]], f"select uses it. The file has {listed(table.names)}. {type(error).__name__}: {error}"
        ) from error


def listed(names: Sequence[str]) -> str:
    """Return the names in a line, many of them cut."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else "none"


def _expected(model: Model, table: Table, missing: Collection[str]) -> str:
    if model.spec.features:
        return f"the columns {', '.join(model.columns(table.names))}"
    if model.spec.recipe is None:
        return f"a column for each of the model's inputs, {', '.join(model.columns(table.names))}"
    derived = [name for name in missing if name in VARIABLES]
    if not derived:
        return "these columns with a list per jet"
    asked = [name for name in expected_sources(table.names, derived) if name not in table.names]
    sources = ", ".join("energy or mass" if name == "energy" else name for name in asked)
    those = "they" if len(derived) == len(missing) else ", ".join(derived)
    return f"these columns, or {sources}, from which {those} are computed, with a list per jet"


def _select(table: Table, names: Collection[str]) -> str:
    """Suggest `select` for columns with other names or inside other columns."""
    array = ak.Array(ak.to_layout(ak.typetracer.typetracer_from_form(table.form())))
    momenta = [KINEMATICS, (*KINEMATICS[:-1], "mass")] if set(VARIABLES) & set(names) else []
    if path := field_with(array, [names, *momenta]):
        return f"{path} has them: pass select=lambda events: events.{path}."
    return (
        "if they have other names or are inside other columns, pass select=, a function that converts the file's "
        "array to the model's input, such as lambda events: events.jets.constituents."
    )


def touched(
    form: ak.forms.Form, use: Callable[[Any], Any], select: Callable[[ak.Array], Any] | None = None
) -> list[Column] | None:
    """Return the columns that functions use; None if they do not run without data.

    The functions receive an array that has a type but no data and records which parts are used.

    Parameters
    ----------
    form : awkward.forms.Form
    use : callable
        Receives the array, or what `select` makes of it.
    select : callable, optional
        Columns that it only asks about count, too.
    """
    described = form.to_dict()
    columns: dict[str, Column] = {}
    leaves = _label(described, (), columns)
    asked = Asked()
    if select is not None and described["class"] == "RecordArray":
        described["parameters"] = {**described["parameters"], "__record__": NAME}
    tracer, report = ak.typetracer.typetracer_with_report(
        ak.forms.from_dict(described), highlevel=True, behavior=asked.behavior()
    )
    try:
        made = tracer if select is None else select(tracer)
        asked.active = isinstance(made, NamedInputs)  # of which select makes each only when it is used
        use(made)
    except InferenceError:
        raise
    except Exception:  # noqa: BLE001  (the user's function may need data; then all columns are read)
        return None
    seen = {columns[key] for key in (*report.data_touched, *report.shape_touched)}
    needed = [leaf for leaf in leaves if leaf in seen]
    # any column inside will do for a list of which only the lengths are used, and for a column that is asked about
    for column in (*seen, *((name,) for name in form.fields if name in asked.names)):
        if not any(leaf[: len(column)] == column for leaf in needed):
            needed.append(next(leaf for leaf in leaves if leaf[: len(column)] == column))
    return needed or leaves[:1]


def _label(form: dict[str, Any], path: Column, columns: dict[str, Column]) -> list[Column]:
    """Give every node of a form a unique key, map the keys to their columns, and return the columns."""
    form["form_key"] = f"node{len(columns)}"
    columns[form["form_key"]] = path
    if form["class"] == "RecordArray":
        inner = [((*path, name), content) for name, content in zip(form["fields"], form["contents"], strict=True)]
    else:
        inner = [(path, content) for content in (*form.get("contents", ()), form.get("content")) if content]
    return [leaf for at, content in inner for leaf in _label(content, at, columns)] if inner else [path]
