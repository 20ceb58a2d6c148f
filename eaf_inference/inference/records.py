"""Find the variables of a recipe in what the caller passes: one record array, or one for each collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference._text import did_you_mean
from eaf_inference.errors import InvalidInput
from eaf_inference.inference.collections import CollectionSpec, declared_of
from eaf_inference.inference.conversion import as_numpy, native
from eaf_inference.inference.features import VARIABLES, sources
from eaf_inference.inference.momenta import COORDINATES
from eaf_inference.inference.truncation import orders
from eaf_inference.inference.unknown_types import is_unknown, without_rows
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from eaf_inference.inference.recipe import Recipe
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["columns_of_recipe", "fields_of", "groups_of", "sources_of", "taken", "variables_of"]

_SHOWN = 40  # features in a description
_ROW_PREFIXES = ("jet_", "fatjet_", "fj_")  # of variables of a row, whose fields may be called without


def groups_of(spec: ModelSpec, recipe: Recipe) -> list[CollectionSpec]:
    """Return the inputs of a recipe in the groups that are read from one record array each."""
    groups = []
    for collection in spec.collections:
        inputs = tuple(name for name in collection.inputs if name in recipe.inputs)
        if inputs:
            groups.append(replace(collection, inputs=inputs))
    grouped = {name for group in groups for name in group.inputs}
    for tensor in spec.inputs:
        if tensor.name in recipe.inputs and tensor.name not in grouped:
            declared = declared_of(tensor.name, tensor.shape, recipe)
            assert declared is not None  # noqa: S101  (row-level inputs are all in collections)
            by = recipe.sort_by.get(tensor.name, "")
            groups.append(CollectionSpec(tensor.name, (tensor.name,), declared.within(tensor.lengths), by))
    return groups


def taken(spec: ModelSpec) -> list[str]:
    """Describe what a model takes: records of each collection, of rows, and arrays by name."""
    recipe = spec.recipe
    if recipe is None:
        made = (spec.graph.batch, spec.graph.ptr) if spec.graph else ()  # by the client
        given = [_with_features(spec, tensor) for tensor in spec.inputs if tensor.name not in made]
        return ["graphs of " + " and ".join(given)] if spec.graph else given
    groups = groups_of(spec, recipe)
    described = []
    for group in groups:
        named = f" {group.name!r}" if len(groups) > 1 else ""
        described.append(f"{'rows' if group.per_row else 'records'}{named} of {_listed(spec, group)}")
    return described + [str(tensor) for tensor in spec.inputs if tensor.name not in recipe.inputs]


def _with_features(spec: ModelSpec, tensor: TensorSpec) -> str:
    features = spec.features.get(tensor.name, ())
    more = f", and {len(features) - _SHOWN} more" if len(features) > _SHOWN else ""
    return f"{tensor} ({', '.join(features[:_SHOWN])}{more})" if features else str(tensor)


def sources_of(data: Any, spec: ModelSpec, groups: Sequence[CollectionSpec]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the record array of each group, and the arrays that are passed under the names of inputs.

    Parameters
    ----------
    data : awkward.Array or mapping
        Records with the variables; or records with a field for each collection, with the variables of the row beside
        them; or a mapping of collection and input names to records and arrays.
    spec : ModelSpec
    groups : sequence of CollectionSpec

    Raises
    ------
    InvalidInput
        A name is unknown, or a group has no records.
    """
    found, arrays = (_of_mapping if isinstance(data, Mapping) else _of_records)(data, spec, groups)
    if any(map(is_unknown, found.values())):
        found = _with_fields(found, data, spec, groups)
    return found, arrays


def _of_records(
    data: Any, spec: ModelSpec, groups: Sequence[CollectionSpec]
) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [tensor.name for tensor in spec.inputs]
    described = {name for group in groups for name in group.inputs}
    if is_unknown(data):  # it has no rows, and may have any fields
        return {group.name: data for group in groups}, {name: data for name in names if name not in described}
    fields = data.fields if isinstance(data, ak.Array) else ()
    found, open_groups = {}, []
    for group in groups:
        keys = (key for key in (group.name, *group.inputs) if key in fields and _holds_records(data[key]))
        key = next(keys, None)
        found[group.name] = data if key is None else data[key]
        if key is None and len(groups) > 1 and not _has_any(group, spec, fields):
            open_groups.append(group)
    if open_groups:
        raise _without_records(spec, groups, open_groups, kind_of(data))
    return found, {name: data[name] for name in names if name not in described and name in fields}


def _of_mapping(
    data: Mapping[str, Any], spec: ModelSpec, groups: Sequence[CollectionSpec]
) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [tensor.name for tensor in spec.inputs]
    described = {name for group in groups for name in group.inputs}
    data = {
        name: _columns(value, name)
        if isinstance(value, Mapping) and (name in described or name not in names)
        else value
        for name, value in data.items()
    }
    arrays = {
        name: value
        for name, value in data.items()
        if name in names and (name not in described or not _holds_records(value))
    }
    variables: Sequence[str] = ()
    if len(arrays) < len(data):  # beside records and variables, a name of an input and its variable is the variable
        variables = [name for name in arrays if _is_variable(name, data, spec, groups)]
        arrays = {name: value for name, value in arrays.items() if name not in variables}
    given = {name: value for name, value in data.items() if name not in arrays}
    found, used = {}, set()
    open_groups = []
    for group in groups:
        left = [name for name in group.inputs if name not in arrays]
        key = next((key for key in (group.name, *left) if key in given and key not in variables), None)
        if key is not None:
            found[group.name] = given[key]
            used.add(key)
        elif left:
            open_groups.append(group)
    spare = {name: value for name, value in given.items() if name not in used}
    if open_groups and spare and not any(_has_fields(value) for value in spare.values()):  # columns, by variable
        columns = _columns(spare, spec.name)
        found |= {group.name: columns for group in open_groups}
        return found, arrays
    rows = [group for group in open_groups if group.per_row or group.single]
    if len(spare) == 1 and rows:  # the row's own variables, under any name
        (records,) = spare.values()
        found |= {group.name: records for group in rows}
        open_groups, spare = [group for group in open_groups if group not in rows], {}
    for name in spare:
        twice = next((group.name for group in groups if name in (group.name, *group.inputs)), "")
        expected = ", ".join(repr(each) for each in dict.fromkeys([*(group.name for group in groups), *names]))
        why = f"got {twice!r} twice, also as {name!r}" if twice else f"has no collection or input {name!r}"
        close = "" if twice else did_you_mean(str(name), [*(group.name for group in groups), *names])
        raise InvalidInput(f"{spec.name!r} {why}.{close} Expected some of {expected}.")
    if open_groups:
        raise _without_records(spec, groups, open_groups, ", ".join(map(repr, data)) or "nothing")
    return found, arrays


def fields_of(
    group: CollectionSpec, recipe: Recipe, present: Collection[str], beside: Sequence[CollectionSpec] = ()
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return how each variable of a group is had from fields.

    A field may lack the prefix of its variable: in the collection ``sv``, the variable ``sv_pt`` is read from ``pt``
    if there is no ``sv_pt``, and ``sv_energy`` is computed as ``energy`` is.

    Parameters
    ----------
    group : CollectionSpec
    recipe : Recipe
    present : collection of str
        The names of the fields.
    beside : sequence of CollectionSpec
        Collections in the same records. A field that one of them reads is no field of this group without its prefix.

    Returns
    -------
    found : dict of str to str
        The field from which a variable is read.
    computed : dict of str to str
        The name under which `features.compute` knows a variable that no field holds, or what long rows are sorted by.
    missing : list of str
        All others, except masks.
    """
    prefixes = (f"{group.name}_", *(_ROW_PREFIXES if group.per_row else ()))
    variables = {variable.name: variable for name in group.inputs for variable in recipe.inputs[name]}
    taken = {field for other in beside for field in _read_by(other, recipe, present)}
    found, computed, missing = {}, {}, []
    for name, variable in variables.items():
        short = [name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)]
        known = [each for each in (name, *short) if each in (COORDINATES if group.per_row else VARIABLES)]
        fields = (each for each in (name, *short) if each in present and (each == name or each not in taken))
        derived = (
            each for each in known if (read := sources(present, [each])) and (each == name or taken.isdisjoint(read))
        )
        if field := next(fields, ""):
            found[name] = field
        elif of := next(derived, ""):
            computed[name] = of
        elif not variable.is_mask:
            missing.append(name)
    by = group.sort_by.removeprefix("-") or "pt"  # what decides which constituents of long rows are kept
    if group.declared.maximum is not None and not group.per_row and by in VARIABLES and by not in present:
        within = present if group.sort_by else sources(present, computed.values()) or ()
        if sources(within, [by]) is not None:
            computed.setdefault(by, by)
    return found, computed, missing


def _read_by(group: CollectionSpec, recipe: Recipe, present: Collection[str]) -> set[str]:
    """Return the fields that a group reads if it has the records for itself."""
    found, computed, _ = fields_of(group, recipe, present)
    return {*found.values(), *(sources(present, computed.values()) or ())}


def columns_of_recipe(spec: ModelSpec, recipe: Recipe, present: Collection[str]) -> tuple[str, ...]:
    """Return the columns that a recipe reads, of a file with the columns `present`, or else the expected ones."""
    wanted: list[str] = []
    groups = groups_of(spec, recipe)
    alone = sum(not group.per_row for group in groups) == 1
    whole = {group: [key for key in (group.name, *group.inputs) if key in present] for group in groups}
    for group in groups:
        if whole[group]:  # columns beside it may be other things of the same names, such as the jet's own pt
            wanted.append(whole[group][0])
            continue
        beside = [each for each in groups if not (group.per_row or each.per_row or whole[each] or each is group)]
        found, computed, missing = fields_of(group, recipe, present, beside)
        wanted += [*found.values(), *(sources(present, computed.values()) or ()), *missing]
        if group.declared.maximum is not None and not group.per_row:
            names = (
                names for names, _ in orders(group, found, alone=alone) if all(each in present for each in names)
            )
            wanted += next(names, ())
    described = {name for group in groups for name in group.inputs}
    others = [each for each in spec.inputs if each.name not in described]
    wanted += [each.name for each in others if each.name in present or not each.optional]
    return tuple(dict.fromkeys(wanted))


def _without_records(
    spec: ModelSpec, groups: Sequence[CollectionSpec], open_groups: Sequence[CollectionSpec], got: str
) -> InvalidInput:
    """Make the error for groups of which the caller passed nothing."""
    lacked = "; ".join(f"{group.name!r} with {_listed(spec, group)}" for group in open_groups)
    expected = ", ".join(f"{group.name!r}: records of {_listed(spec, group)}" for group in groups)
    return InvalidInput(
        f"{spec.name!r} lacks {lacked}. Got {got}. Expected {{{expected}}}, or one record array with these fields."
    )


def _has_any(group: CollectionSpec, spec: ModelSpec, fields: Collection[str]) -> bool:
    """Whether records with these fields hold anything of a group."""
    assert spec.recipe is not None  # noqa: S101  (groups are a recipe's)
    found, computed, missing = fields_of(group, spec.recipe, fields)
    return bool(found or computed) or not missing


def _columns(values: Mapping[str, Any], of: str) -> ak.Array:
    """Make records of columns with equally many rows, whose lists may differ."""
    columns = {}
    for name, value in values.items():
        if not (isinstance(value, list | tuple | ak.Array) or np.ndim(value)):
            raise InvalidInput(f"The column {name!r} of {of!r} is {kind_of(value)}. Expected an array.")
        if not isinstance(value, list | tuple | ak.Array):
            value = value if isinstance(value, np.ndarray) else as_numpy(value, f"The column {name!r} of {of!r}")
            value = value.tolist() if value.dtype == object else native(value)  # uproot's lists in numpy are objects
        columns[name] = ak.Array(value)
    rows = {name: len(column) for name, column in columns.items()}
    if len(set(rows.values())) > 1:  # ak.zip would repeat a single row
        (first, number), *others = rows.items()
        name, other = next(each for each in others if each[1] != number)
        raise InvalidInput(
            f"The columns of {of!r} have different numbers of rows: {first!r} has {number}, {name!r} has {other}. "
            "Expected the same rows in all."
        )
    return ak.zip(columns, depth_limit=1)


def _is_variable(name: str, data: Mapping[str, Any], spec: ModelSpec, groups: Sequence[CollectionSpec]) -> bool:
    """Whether a name is an input's and its variable's, and there are no records of its collection."""
    assert spec.recipe is not None  # noqa: S101  (groups are a recipe's)
    if name not in [variable.name for variable in spec.recipe.inputs.get(name, ())]:
        return False
    group = next(group for group in groups if name in group.inputs)
    return not any(_holds_records(data.get(key)) for key in (group.name, *group.inputs))


def _holds_records(value: Any) -> bool:
    """Whether a value has named variables; an empty array of unknown type may have any."""
    return _has_fields(value) or is_unknown(value) or (isinstance(value, np.ndarray) and bool(value.dtype.names))


def _has_fields(value: Any) -> bool:
    return isinstance(value, ak.Array) and bool(value.fields)


def _with_fields(
    found: Mapping[str, Any], data: Any, spec: ModelSpec, groups: Sequence[CollectionSpec]
) -> dict[str, Any]:
    """Give the arrays of unknown type among the groups' records their fields.

    The records of other groups show how many lists are around a row. Without any, the rows are what is unknown, or at
    least the records that hold all groups.
    """
    around = [
        found[group.name][field].ndim - (1 if group.per_row else 2)
        for group in groups
        if not group.single and _has_fields(found.get(group.name))
        for field in variables_of(group, spec)
        if field in found[group.name].fields and not is_unknown(found[group.name][field])
    ]
    if not around and _has_fields(data):
        around = [data.ndim - 1]
    made = dict(found)
    for group in groups:
        records = found.get(group.name)
        if records is not None and is_unknown(records):
            rows = around[0] if around else records.ndim - 1
            names = variables_of(group, spec)
            made[group.name] = without_rows(records, names, rows if group.per_row else rows + 1)
    return made


def variables_of(group: CollectionSpec, spec: ModelSpec) -> tuple[str, ...]:
    """Return the variables of a group except masks, or masks if there are no others."""
    assert spec.recipe is not None  # noqa: S101  (groups are a recipe's)
    variables = [variable.name for name in group.inputs for variable in spec.recipe.inputs[name]]
    return spec.recipe.required_by(group.inputs) or tuple(dict.fromkeys(variables))


def _listed(spec: ModelSpec, group: CollectionSpec) -> str:
    return ", ".join(variables_of(group, spec))
