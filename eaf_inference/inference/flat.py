"""Which columns of a table make an input, such as the features of a BDT or an MLP.

Columns are matched by name if the model names its features. Otherwise they are taken in their order, with a warning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import InvalidInput
from eaf_inference.inference import layout, nesting
from eaf_inference.inference.caller import warn_caller
from eaf_inference.inference.conversion import as_numpy, cast
from eaf_inference.inference.feature_names import source_of, width_of
from eaf_inference.inference.table_records import awkward_of
from eaf_inference.inference.tables import Table, computed, is_column, listed, numbers, table_of
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from eaf_inference.inference.spec import ModelSpec, TensorSpec

__all__ = ["by_input", "value_of"]

_warned: set[tuple[ModelSpec, str]] = set()  # each is given once in a process


def by_input(data: Any, inputs: Sequence[TensorSpec], spec: ModelSpec) -> Any:
    """Give the columns of a table to the inputs of a model.

    Parameters
    ----------
    data : object
        What a caller passed for these inputs.
    inputs : sequence of TensorSpec
    spec : ModelSpec

    Returns
    -------
    object
        `data` if it is no table, or has the arrays by input name already; otherwise, for each input, the whole table
        or one of its columns.
    """
    data = computed(data)
    table = table_of(data)
    if table is None or (isinstance(data, Mapping) and not _is_of_columns(data, inputs, spec)):
        return data
    found: dict[str, Any] = {}
    for tensor in inputs:
        alone = len(inputs) == 1 or tensor.name in spec.features
        source = source_of(tensor.name, spec.features, table.names, optional=tensor.optional)
        if source and source == spec.features.get(tensor.name):
            found[tensor.name] = data
        elif source and tensor.name in table.names and not (alone and _is_one_of_several(table, tensor)):
            found[tensor.name] = table.column(*table.positions(source, f"{spec.name!r}"))
        elif len(inputs) == 1 or (source and alone):
            found[tensor.name] = data
    missing = [tensor for tensor in inputs if tensor.name not in found and not tensor.optional]
    if missing:
        raise InvalidInput(
            f"{spec.name!r} takes {len(inputs)} inputs, and the {len(table.names)} columns {listed(table.names)} "
            f"have none for {'; '.join(map(str, missing))}. Expected columns with the inputs' names, or "
            "{input name: array or table}. A model that declares its features takes them from one table."
        )
    return found


def value_of(value: Any, tensor: TensorSpec, spec: ModelSpec) -> Any:
    """Return the array of one input, made of the columns of a table if it is one.

    Parameters
    ----------
    value : object
        What a caller passed for this input.
    tensor : TensorSpec
    spec : ModelSpec

    Returns
    -------
    object
        A numpy or awkward array; or a list of awkward channels, for an input with constituents. `value` itself if it
        is none of a table, a list or a column.

    Raises
    ------
    InvalidInput
        Columns are missing, or hold something else than numbers.
    """
    what = f"Input {tensor.name!r} of {spec.name!r}"
    given = value = computed(value)
    strings = tensor.datatype == "BYTES"
    if not strings and not isinstance(value, list | tuple):  # a list holds columns
        value = _with_lists(value)
    if is_column(value):
        return np.asarray(value) if strings else _one_column(value, tensor, what)
    if isinstance(value, list | tuple):
        value = _of_list(value, tensor, spec)
    elif hasattr(value, "__array__") and table_of(value) is None and not isinstance(value, ak.Array | np.ndarray):
        value = as_numpy(value, what)
    table = value if isinstance(value, Table) else table_of(value)
    width = _width_of(tensor)
    if table is None or (width is None and isinstance(value, ak.Array)):  # records of an unsuitable depth
        return value
    if width is None:
        raise layout.misfit(
            tensor, given, "a table, or a list of columns, fits an input whose features are on one axis"
        )
    chosen = [(table.names[at], table.column(at)) for at in _positions(table, tensor, width, spec, what)]
    if strings:
        return np.stack([np.asarray(column) for _, column in chosen], axis=-1)
    chosen = [(name, _with_lists(column)) for name, column in chosen]
    if any(isinstance(column, ak.Array) for _, column in chosen):
        return _of_awkward(chosen, tensor, what)
    return _of_numpy(chosen, tensor, what, batched=spec.largest_batch > 0)


def _is_of_columns(data: Mapping[Any, Any], inputs: Sequence[TensorSpec], spec: ModelSpec) -> bool:
    """Whether the names in a dictionary are those of columns, not of inputs."""
    names = {tensor.name for tensor in inputs}
    if names.issuperset(data):
        return False
    if any(name in data for tensor in inputs for name in spec.features.get(tensor.name, ())):
        return True
    return len(inputs) == 1 and names.isdisjoint(data) and inputs[0].shape == (len(data),)


def _is_one_of_several(table: Table, tensor: TensorSpec) -> bool:
    """Whether the column with an input's name is only one of its features, as in x, y, z for the input x."""
    width = _width_of(tensor)
    depths = [getattr(table.column(position), "ndim", 1) for position in range(len(table.names))]
    own = depths[table.names.index(tensor.name)]
    return width not in (None, 1) and own == min(depths) and (len(table.names) == width or own == 1)


def _positions(table: Table, tensor: TensorSpec, width: int, spec: ModelSpec, what: str) -> Sequence[int]:
    """Return the positions of an input's features among the columns."""
    features = spec.features.get(tensor.name)
    if features and table.named:
        return table.positions(features, what)
    if len(table.names) != width:
        names = f", {listed(features)}" if features else ""
        given = f"{len(table.names)} columns" + (f", {listed(table.names)}" if table.named else " without names")
        remedy = f"If each array is a row, pass {_joined_rows(tensor)}."
        if table.named:
            remedy = "To have them found by name, declare the names in the model's config.pbtxt: "
            remedy += f"{_declaration(('first', 'second'), tensor, spec)}."
        raise InvalidInput(
            f"{what} takes {width} features{names}, and got {given}. Expected the features alone, in the model's "
            f"order. {remedy}"
        )
    if table.named and -1 not in tensor.shape:
        _warn_once(
            spec,
            f"{what} got columns by their position, because the model does not name its features: "
            f"{listed(table.names)}. Check this order. To have columns matched by name, declare the names in the "
            f"model's config.pbtxt: {_declaration(table.names, tensor, spec)}. To pass this order without a warning, "
            "pass an array without names, such as df[[…]].to_numpy().",
        )
    return range(width)


def _declaration(names: Sequence[Any], tensor: TensorSpec, spec: ModelSpec) -> str:
    """Return a declaration of features, as it is written in config.pbtxt, with at most two of the names."""
    width = _width_of(tensor) or 0
    value = json.dumps([*map(str, names[: min(width, 2)]), *(["…"] if width > 2 else [])], ensure_ascii=False)
    if len(spec.inputs) > 1:
        value = f"{{{json.dumps(tensor.name)}: {value}}}"
    return f'parameters {{ key: "features" value: {{ string_value: {json.dumps(value, ensure_ascii=False)} }} }}'


def _width_of(tensor: TensorSpec) -> int | None:
    """Return the number of columns that make an input: its features, or the first of two fixed sizes."""
    if len(tensor.shape) == 2 and -1 not in tensor.shape:
        return tensor.shape[0]
    return width_of(tensor.shape)


def _one_column(value: Any, tensor: TensorSpec, what: str) -> NDArray[Any]:
    width = _width_of(tensor)
    if width not in (None, 1):
        raise InvalidInput(
            f"{what} takes {width} features, and got one column, {kind_of(value)} of {len(value)}. Expected a table "
            "or an array of shape … × rows × features; for one row of a table, df.iloc[[row]], not df.iloc[row]."
        )
    return numbers(value, what)


def _with_lists(column: Any) -> Any:
    """Return a column of lists or records as an awkward array; any other as it is."""
    if isinstance(column, list | tuple) or (
        isinstance(column, np.ndarray) and column.dtype == object and column.ndim == 1
    ):
        first = next((each for each in column if each is not None), None)
        found = _from_iter(column) if isinstance(first, list | tuple | np.ndarray | ak.Array) else None
    else:
        found = awkward_of(column) if is_column(column) else None
    return column if found is None or (found.ndim == 1 and not found.fields) else found


def _from_iter(values: Iterable[Any]) -> ak.Array | None:
    try:
        return ak.from_iter(values)
    except (ValueError, TypeError):  # of something else
        return None


def _of_list(value: Sequence[Any], tensor: TensorSpec, spec: ModelSpec) -> Any:
    """Return a list's columns as a table, and a list of numbers as an array; the list itself if it is neither."""
    width = _width_of(tensor)
    if value and hasattr(value[0], "__array__") and any(map(_is_foreign, value)):
        value = [_read(part, f"Part {place} of input {tensor.name!r}") for place, part in enumerate(value)]
        if len(value) != width:
            return _of_python(value, tensor)  # rows
    of_columns = all(isinstance(part, np.ndarray | ak.Array) or is_column(part) for part in value)
    if not value or not of_columns or set(tensor.shape) == {-1}:  # without an axis of channels
        return _of_python(value, tensor)
    value = [_with_lists(part) for part in value]
    if -1 in tensor.shape and all(isinstance(part, ak.Array) for part in value):
        return value  # awkward channels
    depths = {len(tensor.shape)} if spec.largest_batch else {len(tensor.shape) - 1, len(tensor.shape)}
    for part in value:
        if isinstance(part, np.ndarray) and part.ndim not in depths:
            raise layout.misfit(tensor, part, "the list has an array for each feature, with one value per row")
    names = [getattr(part, "name", position) for position, part in enumerate(value)]
    features = spec.features.get(tensor.name, ())
    placed = [*zip(features, names, strict=False)]
    right = {name for feature, name in placed if name == feature}  # others of this name are computed from it
    if any(name in features and name not in right for _, name in placed):
        return Table(names, value.__getitem__)  # the names and the positions disagree
    could_be_rows = all(isinstance(part, np.ndarray) and _is_row(part, tensor) for part in value)
    if could_be_rows and 1 < len(value) == width:
        _warn_once(
            spec,
            f"Input {tensor.name!r} of {spec.name!r} got {len(value)} arrays of shape {value[0].shape}, which were "
            f"taken as the columns of its features. If they are rows, pass {_joined_rows(tensor)}.",
        )
    return Table(range(len(value)), value.__getitem__, named=False)


def _is_foreign(value: Any) -> bool:
    """Whether this is an array of a library that is not known here, such as torch."""
    known = isinstance(value, np.generic | np.ndarray | ak.Array) or is_column(value) or table_of(value) is not None
    return hasattr(value, "__array__") and not known


def _read(value: Any, what: str) -> Any:
    value = computed(value)
    return as_numpy(value, what) if _is_foreign(value) else value


def _is_row(value: NDArray[Any], tensor: TensorSpec) -> bool:
    """Whether an array has the shape of one row."""
    sizes = zip(value.shape, tensor.shape, strict=False)
    return value.ndim == len(tensor.shape) and all(declared in (-1, size) for size, declared in sizes)


def _joined_rows(tensor: TensorSpec) -> str:
    return "ak.Array(rows)" if -1 in tensor.shape else "np.stack(rows)"


def _of_python(value: Sequence[Any], tensor: TensorSpec) -> Any:
    """Return a list of Python's numbers or lists as an array."""
    if not value and -1 not in tensor.shape:
        return np.zeros((0, *tensor.shape), tensor.dtype)
    array = _from_iter(value)
    if array is None:
        return value
    if -1 in tensor.shape or array.fields or array.ndim > 1 + len(tensor.shape):
        return array
    try:
        return ak.to_numpy(array, allow_missing=False)
    except (ValueError, TypeError):  # lists of different lengths, missing values, or numbers and truth values
        return array


def _of_numpy(columns: Sequence[tuple[Any, Any]], tensor: TensorSpec, what: str, *, batched: bool) -> NDArray[Any]:
    """Put columns side by side, on the input's axis of features."""
    arrays = [(name, numbers(column, f"{what}, column {name!r}")) for name, column in columns]
    first, shape = arrays[0][0], arrays[0][1].shape
    axis = tensor.shape.index(len(arrays))
    if len(shape) < len(tensor.shape) - 1 + batched:
        raise layout.misfit(tensor, arrays[0][1], f"column {first!r} has one number per row, not one per constituent")
    for name, values in arrays:
        if values.shape != shape:
            raise InvalidInput(
                f"{what} got columns of different sizes: {first!r} has shape {shape}, and {name!r} has shape "
                f"{values.shape}. Expected one number per row in each."
            )
    at = len(shape) + 1 + axis - len(tensor.shape)
    rows = np.empty((*shape[:at], len(arrays), *shape[at:]), tensor.dtype)
    for place, (name, values) in zip(np.moveaxis(rows, at, 0), arrays, strict=True):
        place[...] = _cast(values, tensor, name)
    return rows


def _of_awkward(columns: Sequence[tuple[Any, Any]], tensor: TensorSpec, what: str) -> Any:
    """Put awkward columns side by side, in their own lists."""
    arrays = {
        str(name): ak.typetracer.length_zero_if_typetracer(column)
        if isinstance(column, ak.Array)
        else ak.Array(numbers(column, f"{what}, column {name!r}"))
        for name, column in columns
    }
    if -1 in tensor.shape:
        return list(arrays.values())
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        raise InvalidInput(
            f"{what} got columns of different lengths: {sorted(lengths)}. Expected one number per row."
        )
    if len(tensor.shape) == 2:
        part = replace(tensor, shape=tensor.shape[1:])
        dense = {name: layout.dense_of(array, part, batched=True) for name, array in arrays.items()}
        fields, outers = {name: values for name, (values, _) in dense.items()}, [outer for _, outer in dense.values()]
        outer = outers[0]
        if not all(outer.same_as(other) for other in outers):
            raise InvalidInput(f"{what} got columns with different lists. Expected the same rows in each.")
    else:
        record = ak.contents.RecordArray([ak.to_layout(array) for array in arrays.values()], list(arrays))
        fields, nested = layout.flatten_fields(ak.Array(record), list(arrays), what=what, per_row=True)
        outer = nested.outer
    rows = np.stack([_cast(values, tensor, name) for name, values in fields.items()], axis=1)
    return ak.Array(nesting.wrap(ak.contents.NumpyArray(rows), outer))


def _cast(values: NDArray[Any], tensor: TensorSpec, column: object) -> NDArray[Any]:
    try:
        return cast(values, tensor)
    except InvalidInput as error:
        raise InvalidInput(f"Column {column!r}: {error}") from None


def _warn_once(spec: ModelSpec, text: str) -> None:
    """Warn at the line that called the model, once for each model and text."""
    if (spec, text) in _warned:
        return
    _warned.add((spec, text))
    warn_caller(text)
