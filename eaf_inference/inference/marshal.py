"""Turn a caller's arrays into the flat inputs of a model, and its outputs back into the caller's lists.

Pure functions of arrays: nothing here needs a connection. Between `prepare` and `Job.result`, an array's rows are
batched, sent and scattered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference._text import did_you_mean
from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout, nesting
from eaf_inference.inference.conversion import cast, native
from eaf_inference.inference.feature_names import source_of
from eaf_inference.inference.flat import by_input, value_of
from eaf_inference.inference.inputs import DenseInput, Inputs, MatrixInput, RaggedInput
from eaf_inference.inference.matrices import matrix_of
from eaf_inference.inference.recipe_inputs import described
from eaf_inference.inference.records import columns_of_recipe, groups_of, sources_of
from eaf_inference.inference.reply import LARGEST_REPLY
from eaf_inference.inference.scatter import Scatter
from eaf_inference.inference.strings import dense_strings
from eaf_inference.inference.table_records import as_records
from eaf_inference.inference.truncation import within_lengths
from eaf_inference.inference.wire import MOST_STRINGS, least_size
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from eaf_inference.inference.inputs import AnyInput, CallerValues
    from eaf_inference.inference.nesting import Outer
    from eaf_inference.inference.spec import ModelSpec, TensorSpec
    from eaf_inference.inference.truncation import Truncation

__all__ = ["Job", "columns", "labelled", "prepare"]

_REPLY = LARGEST_REPLY // 4  # bytes of the outputs of one request: several are in flight
_STRING = LARGEST_REPLY // MOST_STRINGS  # bytes: both limits are kept if each string counts as many


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One array of a caller's on its way: flat inputs, and outputs that come back.

    Attributes
    ----------
    outputs : Scatter
    outer : Outer
        The lists around the rows.
    caller_values : sequence of CallerValues
        The caller's numbers before any recipe.
    as_numpy : bool
        Return numpy arrays.
    truncations : sequence of (Truncation, int)
        Rows with more constituents than the model takes.
    """

    spec: ModelSpec
    inputs: Inputs
    outputs: Scatter
    outer: Outer
    caller_values: Sequence[CallerValues]
    as_numpy: bool = False
    truncations: Sequence[tuple[Truncation, int]] = ()

    @property
    def rows(self) -> int:
        return self.inputs.rows

    @property
    def is_whole(self) -> bool:
        """Whether several values along the first axis are sent as one request, because no axis counts rows."""
        sizes = (
            each.rows.shape[1] for each in self.inputs.arrays if isinstance(each, DenseInput) and each.spec.shape
        )
        return self.outer.length is None and max(sizes, default=0) > 1

    def unexplained(self) -> int:
        """Count the rows with a NaN or an infinity in their scores although the caller's numbers are finite."""
        rows = self.outputs.not_finite()
        for values in self.caller_values if len(rows) else ():
            rows = rows[values.finite(rows)]
        return len(rows)

    def result(self) -> Any:
        """Return the outputs in the caller's lists."""
        read = self.outputs.dense if self.as_numpy else self.outputs.nested
        return in_lists(self.spec, self.outer, self.rows, read, as_numpy=self.as_numpy)


def in_lists(spec: ModelSpec, outer: Outer, rows: int, read: Callable[[str], Any], *, as_numpy: bool) -> Any:
    """Return a model's outputs in the caller's lists.

    Parameters
    ----------
    spec : ModelSpec
    outer : Outer
        The lists around the rows.
    rows : int
    read : callable
        Returns an output by name: a numpy array of all rows, or the content of the lists.
    as_numpy : bool
        Return numpy arrays.
    """
    contents = {tensor.name: read(tensor.name) for tensor in spec.outputs}
    if as_numpy:
        around = () if outer.length is None else (outer.length, *outer.levels)
        shaped = {name: array.reshape((*around, *array.shape[1:])) for name, array in contents.items()}
        return shaped if len(shaped) > 1 else next(iter(shaped.values()))
    contents = {name: labelled(content, spec.labels.get(name)) for name, content in contents.items()}
    if len(contents) > 1:
        record = ak.contents.RecordArray(list(contents.values()), list(contents), length=rows)
    else:
        record = next(iter(contents.values()))
    array = ak.Array(nesting.wrap(record, outer))
    return array[0] if outer.length is None else array


def prepare(data: Any, spec: ModelSpec) -> Job:
    """Check a caller's array, and flatten it into a model's inputs.

    Parameters
    ----------
    data : awkward.Array, numpy.ndarray or mapping
        As `Model.__call__` takes it.
    spec : ModelSpec

    Raises
    ------
    InvalidInput
        The arrays are not what the model takes.
    """
    if spec.recipe is not None:
        data = as_records(data)
        groups = groups_of(spec, spec.recipe)
        sources, arrays = sources_of(data, spec, groups)
        if sources:
            groups = [group for group in groups if group.name in sources]
            made = described(spec, spec.recipe, groups, sources, without=arrays)
            inputs, caller_values = made.inputs, made.caller_values
            if len(inputs) < len(spec.inputs):
                others = _flat_inputs(_by_name(arrays, spec, without=inputs), spec)
                caller_values += [each.caller_values for each, _ in others]
                others, cut = within_lengths(others, spec.collections)
                inputs |= {each.spec.name: (each, outer) for each, outer in others}
                made.truncations += cut
            ordered = [inputs[tensor.name] for tensor in spec.inputs if tensor.name in inputs]
            return _job(spec, ordered, caller_values, truncations=made.truncations)
    if spec.unread and isinstance(data, ak.Array) and data.fields:
        raise InvalidInput(
            f"{spec.name!r} was called with records, but its recipe is unknown because the server does not show it "
            f"({spec.unread}). Pass the recipe, triton.model({spec.name!r}, preprocess=FILE); or pass the inputs as "
            f"the model takes them, {{input name: array}} with {'; '.join(map(str, spec.inputs))}."
        )
    values = _by_name(data, spec)
    as_numpy = all(isinstance(value, np.ndarray) for value in values.values())
    flat = _flat_inputs(values, spec)
    if any(isinstance(each, RaggedInput) for each, _ in flat):  # numpy arrays of lengths that the model does not take
        as_numpy &= not any(tensor.variable_axes for tensor in spec.outputs)
    caller_values = [each.caller_values for each, _ in flat]
    flat, cut = within_lengths(flat, spec.collections)
    return _job(spec, flat, caller_values, as_numpy=as_numpy, truncations=cut)


def columns(spec: ModelSpec, present: Collection[str]) -> tuple[str, ...]:
    """Return the columns that a model reads, of records or a file with the columns `present`.

    With a recipe these are its variables, or the kinematics from which missing ones are computed, and the pt by which
    constituents are kept, or the columns of records of a collection; without one, its inputs. If columns are missing,
    the expected ones are returned.
    """
    if spec.recipe is None:
        sources = (source_of(each.name, spec.features, present, optional=each.optional) for each in spec.inputs)
        return tuple(dict.fromkeys(name for source in sources for name in source))
    return columns_of_recipe(spec, spec.recipe, present)


def _job(
    spec: ModelSpec,
    flat: Sequence[tuple[AnyInput, Outer]],
    caller_values: Sequence[CallerValues],
    *,
    as_numpy: bool = False,
    truncations: Sequence[tuple[Truncation, int]] = (),
) -> Job:
    """Check that all inputs belong to the same rows, and put them together."""
    if not flat:
        raise InvalidInput(
            f"{spec.name!r} got no array at all. Expected {{input name: array}} with "
            f"{'; '.join(map(str, spec.inputs))}."
        )
    first, outer = flat[0]
    for each, other in flat[1:]:
        if not outer.same_as(other):
            raise InvalidInput(
                f"The inputs of {spec.name!r} do not belong to the same rows: {first.spec.name!r} has {outer.rows} "
                f"and {each.spec.name!r} has {other.rows}, or their outer lists differ. Expected the same events × "
                f"jets in all{_hint(outer, other, each)}."
            )
    arrays = [each for each, _ in flat]
    _check_lengths(spec, arrays)
    matrices = [repr(each.spec.name) for each in arrays if isinstance(each, MatrixInput)]
    if matrices and any(number for _, number in truncations):
        raise InvalidInput(
            f"Some rows of {spec.name!r} have more constituents than it takes, and those of {', '.join(matrices)} "
            "cannot be cut with them. Expected rows that fit: cut the constituents, and the matrices likewise, first."
        )
    groups = [each.inputs for each in spec.collections if not each.per_row]
    inputs = Inputs(
        arrays,
        rows=outer.rows,
        max_batch_size=min(spec.largest_batch, _most_replied(spec)),
        batch_sizes=spec.pad_batches_to,
        merged=spec.merged,
        groups=groups,
    )
    scatter = Scatter(spec.outputs, inputs)
    return Job(spec, inputs, scatter, outer, caller_values, as_numpy=as_numpy, truncations=truncations)


def _most_replied(spec: ModelSpec) -> int:
    """Return the rows whose outputs fit into a reply if axes of variable length have one element; at least one."""
    row_bytes = 0
    for each in spec.outputs:
        one = _STRING if each.datatype == "BYTES" else least_size(each)
        row_bytes += one * math.prod(map(abs, each.shape))
    return max(_REPLY // max(row_bytes, 1), 1)


def _hint(outer: Outer, other: Outer, input_: AnyInput) -> str:
    """Say what an input outside the others' lists should be."""
    if len(other.levels) == len(outer.levels):
        return ""
    more = len(other.levels) > len(outer.levels)
    kind = "one list per row" if isinstance(input_, RaggedInput) else "one value of each variable per row"
    return f", and {kind}: {input_.spec.name!r} has {'more' if more else 'fewer'} levels of lists"


def _check_lengths(spec: ModelSpec, arrays: Sequence[AnyInput]) -> None:
    """Check that the inputs of each collection have the same number of constituents in every row."""
    ragged = {each.spec.name: each for each in arrays if isinstance(each, RaggedInput)}
    for collection in spec.collections:
        own = [ragged[name] for name in collection.inputs if name in ragged]
        for each in own[1:]:
            if each.counts is not own[0].counts and not np.array_equal(each.counts, own[0].counts):
                raise InvalidInput(
                    f"The inputs {own[0].spec.name!r} and {each.spec.name!r} of {spec.name!r} belong to one "
                    f"collection, {collection.name!r}, but have lists of different lengths. Expected the same "
                    "constituents in both."
                )
        for other in arrays if own else ():
            if not (
                isinstance(other, DenseInput) and other.spec.name in collection.inputs and other.spec.variable_axes
            ):
                continue
            length = other.rows.shape[1 + other.spec.variable_axes[0]]
            if np.any(own[0].counts != length):
                raise InvalidInput(
                    f"The inputs {own[0].spec.name!r} and {other.spec.name!r} of {spec.name!r} belong to one "
                    f"collection, {collection.name!r}, but {other.spec.name!r} has {length} constituents in every "
                    "row, as if padded. Expected the same constituents in both: pass both jagged, or both padded."
                )


def _by_name(data: Any, spec: ModelSpec, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the arrays by input name, after checking that all are present and none is unknown."""
    wanted = [tensor for tensor in spec.inputs if tensor.name not in without]
    inputs = "; ".join(map(str, wanted))
    data = by_input(data, wanted, spec)
    if not isinstance(data, Mapping):
        if len(wanted) != 1:
            raise InvalidInput(
                f"{spec.name!r} takes {len(wanted)} inputs and got {kind_of(data)}. Expected "
                f"{{input name: array}} with {inputs}."
            )
        data = {wanted[0].name: data}
    names = [tensor.name for tensor in wanted]
    for name in data:
        if name not in names:
            raise InvalidInput(f"{spec.name!r} has no input {name!r}.{did_you_mean(name, names)} Expected {inputs}.")
    absent = [tensor for tensor in wanted if tensor.name not in data and not tensor.optional]
    if absent:
        raise InvalidInput(
            f"{spec.name!r} lacks an array for {'; '.join(map(str, absent))}. Expected {{input name: array}} with "
            f"{inputs}."
        )
    return {each.name: _as_array(data[each.name], each, spec) for each in wanted if each.name in data}


def _flat_inputs(values: Mapping[str, Any], spec: ModelSpec) -> list[tuple[AnyInput, Outer]]:
    """Flatten the arrays."""
    flat: list[tuple[AnyInput, Outer]] = []
    for tensor in spec.inputs:
        if tensor.name not in values:
            continue
        value, batched = values[tensor.name], spec.largest_batch > 0
        if tensor.lengths and isinstance(value, np.ndarray) and value.ndim >= len(tensor.shape):
            length = value.shape[value.ndim - len(tensor.shape) + tensor.shape.index(-1)]
            value = value if length in tensor.lengths else ak.from_numpy(native(value), regulararray=True)
        whole = not batched and isinstance(value, ak.Array) and 1 not in tensor.shape
        whole = whole and not value.fields and value.ndim == len(tensor.shape)
        variable = 0 if whole or isinstance(value, np.ndarray) else tensor.shape.count(-1)
        if variable > 1 or (variable and (len(tensor.shape) > 2 or tensor.datatype == "BYTES")):
            flat.append(matrix_of(value, tensor, batched=batched))
        elif tensor.datatype == "BYTES":
            strings, outer = dense_strings(value, tensor, batched=batched)
            flat.append((DenseInput(tensor, strings), outer))
        elif variable:
            columns, nested = layout.columns_of(value, tensor)
            columns = [cast(column, tensor) for column in columns]
            ragged = RaggedInput(tensor, columns, _pads(tensor, spec, len(columns)), nested.starts, nested.counts)
            flat.append((ragged, nested.outer))
        else:
            rows, outer = layout.dense_of(value, tensor, batched=batched)
            flat.append((DenseInput(tensor, cast(rows, tensor)), outer))
    return flat


def _pads(tensor: TensorSpec, spec: ModelSpec, channels: int) -> list[float]:
    """Return the padding of an input: its recipe's, by which the model was trained, or else zeros."""
    variables = spec.recipe.inputs.get(tensor.name, ()) if spec.recipe else ()
    return [each.pad for each in variables] if len(variables) == channels else [0.0] * channels


def labelled(content: ak.contents.Content, labels: Sequence[str] | None) -> ak.contents.Content:
    """Make the classes of the content's last axis fields."""
    if labels is None:
        return content
    values = ak.Array(content)
    classes = [ak.to_layout(values[..., position]) for position in range(len(labels))]
    return ak.contents.RecordArray(classes, list(labels), length=len(content))


def _as_array(value: Any, tensor: TensorSpec, spec: ModelSpec) -> Any:
    """Return a numpy or awkward array, or a list of awkward channels."""
    if isinstance(value, np.ma.MaskedArray) and not value.dtype.names and np.ma.is_masked(value):
        raise InvalidInput(
            f"Input {tensor.name!r} is a masked array. Expected no missing values: fill them with .filled()."
        )
    array = value_of(value, tensor, spec)
    if isinstance(array, ak.Array | np.ndarray) or (isinstance(array, list | tuple) and array):
        return array
    raise InvalidInput(
        f"Input {tensor.name!r} is {kind_of(value)}. Expected a numpy or awkward array, a table, or a list of "
        "columns or awkward channels."
    )
