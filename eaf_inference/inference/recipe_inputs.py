"""Make a model's inputs from records as its recipe says: variables are read or computed, and long rows are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout, nesting
from eaf_inference.inference.collections import axes_of
from eaf_inference.inference.conversion import narrowed
from eaf_inference.inference.features import VARIABLES, compute, expected_sources, read, sources
from eaf_inference.inference.inputs import AnyInput, CallerValues, DenseInput, RaggedInput
from eaf_inference.inference.records import fields_of
from eaf_inference.inference.truncation import Truncation, hardest, order_of
from eaf_inference.inference.wrong_input import lacking, refuse_jets_for_constituents

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.collections import CollectionSpec
    from eaf_inference.inference.nesting import Nested, Outer
    from eaf_inference.inference.recipe import Recipe
    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["Described", "described"]


@dataclass(slots=True)
class Described:
    """The inputs that a recipe describes.

    Attributes
    ----------
    inputs : dict of str to (RaggedInput or DenseInput, Outer)
        By name, with the lists around their rows.
    caller_values : list of CallerValues
        The caller's numbers that were read.
    truncations : list of (Truncation, int)
        Rows that were cut.
    """

    inputs: dict[str, tuple[AnyInput, Outer]] = field(default_factory=dict)
    caller_values: list[CallerValues] = field(default_factory=list)
    truncations: list[tuple[Truncation, int]] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """The number of axes down to the rows; 1 before any input is made."""
        outer = next((outer for _, outer in self.inputs.values()), None)
        return 1 + sum(not isinstance(level, nesting.Missing) for level in outer.levels) if outer else 1


def described(
    spec: ModelSpec,
    recipe: Recipe,
    groups: Sequence[CollectionSpec],
    sources: Mapping[str, Any],
    *,
    without: Collection[str] = (),
) -> Described:
    """Make the inputs of some groups from their records.

    Parameters
    ----------
    spec : ModelSpec
    recipe : Recipe
    groups : sequence of CollectionSpec
    sources : mapping of str to awkward.Array
        The records of each group, by its name.
    without : collection of str
        Inputs that are not wanted, because the caller passes them.

    Raises
    ------
    InvalidInput
        Records lack a variable, or are not what is expected.
    """
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    made = Described()
    jagged = [group for group in groups if not group.per_row]
    for group in sorted(groups, key=lambda group: group.single):
        inputs = [tensors[name] for name in group.inputs if name not in without]
        records = sources[group.name]
        what = f"The input of {spec.name!r}" if len(groups) == 1 else f"The input of {spec.name!r} for {group.name!r}"
        beside = [each for each in jagged if each is not group and sources[each.name] is records]
        fields, values, nested = _variables(records, group, recipe, what, made.depth, () if group.per_row else beside)
        made.caller_values.append(values)
        total = int(nested.counts.sum())  # counts are 1 if there is one value per row
        channels = recipe.apply(fields, total, {tensor.name: tensor.dtype for tensor in inputs})
        if group.per_row:
            for tensor in inputs:
                columns = [_as_declared(values, tensor, spec.name) for values, _ in channels[tensor.name]]
                rows = np.stack(columns, axis=-1).reshape(total, *tensor.shape)
                made.inputs[tensor.name] = DenseInput(tensor, rows), nested.outer
            continue
        starts, counts, kept = nested.starts, nested.counts, None
        most = group.declared.maximum
        long = 0 if most is None else int(np.count_nonzero(counts > most))
        if most is not None and (long or nesting.is_tracer(records)):  # a graph must record that pt is read
            alone = sum(sources[each.name] is records for each in jagged) == 1
            order, rule = order_of(records, group, fields, nested, alone=alone)
            made.truncations.append((Truncation(group.name if len(jagged) > 1 else "", most, rule), long))
            counts = np.minimum(counts, most)
            if order is not None:
                kept = hardest(order, nested.counts, most)
                starts = np.cumsum(counts) - counts
        shared: dict[int, NDArray[Any]] = {}  # a variable of several inputs stays one array
        for tensor in inputs:
            columns = []
            for column, _ in channels[tensor.name]:
                if kept is not None and id(column) not in shared:
                    shared[id(column)] = column[kept]
                columns.append(_as_declared(shared.get(id(column), column), tensor, spec.name))
            pads = [pad for _, pad in channels[tensor.name]]
            axes = axes_of(tensor.shape, len(columns))
            assert axes is not None  # noqa: S101  (spec checks the recipe's shapes)
            made.inputs[tensor.name] = RaggedInput(tensor, columns, pads, starts, counts, axes.length), nested.outer
    return made


def _variables(
    records: Any,
    group: CollectionSpec,
    recipe: Recipe,
    what: str,
    depth: int,
    beside: Sequence[CollectionSpec],
) -> tuple[dict[str, NDArray[Any]], CallerValues, Nested]:
    """Read a group's variables, and compute those that can be."""
    present = records.fields if isinstance(records, ak.Array) else ()
    found, computed, missing = fields_of(group, recipe, present, beside)
    if missing:
        known = [] if group.per_row else [name for name in missing if name in VARIABLES]
        expected = expected_sources(present, missing) if known else ()
        raise lacking(records, missing, what, sources=expected, computed=known, used=found.values())
    needed = dict.fromkeys([*found.values(), *(sources(present, computed.values()) or ())])
    refuse_jets_for_constituents(
        records, needed, computed.values(), what, lambda names: not fields_of(group, recipe, names, beside)[2]
    )
    if group.per_row or (group.single and any(records[name].ndim == depth for name in found.values())):
        flat, nested = layout.flatten_fields(records, needed, what=what, per_row=True)
    else:
        flat, nested = read(records, needed, what=what)
    fields = {name: flat[field] for name, field in found.items()}
    values = CallerValues(tuple(flat.values()), None if group.per_row else nested.counts)
    if computed:
        made = compute(flat, nested, computed.values())
        fields |= {name: made[of] for name, of in computed.items()}
    return fields, values, nested


def _as_declared(values: NDArray[Any], tensor: TensorSpec, model: str) -> NDArray[Any]:
    """Convert normalised values to the input's own type, which may be narrower."""
    if tensor.dtype.kind != "f":
        return _as_integers(values, tensor, model)
    try:
        return narrowed(values, tensor)
    except FloatingPointError:
        raise InvalidInput(
            f"The recipe of {model!r} gives values beyond the range of {tensor.datatype} for input {tensor.name!r}. "
            "Expected bounds in the recipe that keep them inside: tell the model's owner."
        ) from None


def _as_integers(values: NDArray[Any], tensor: TensorSpec, model: str) -> NDArray[Any]:
    info = np.iinfo(tensor.dtype)
    below = values < float(info.max) + 1 if values.dtype.kind == "f" else values <= info.max  # which floats round up
    whole = np.isfinite(values) & (values == np.rint(values)) & (values >= info.min) & below
    if not whole.all():
        wrong = values[~whole][0]
        raise InvalidInput(
            f"The recipe of {model!r} gives {wrong} for input {tensor.name!r}, which takes {tensor.datatype}. "
            "Expected whole numbers within its range: check this variable, or tell the model's owner."
        )
    return values.astype(tensor.dtype)
