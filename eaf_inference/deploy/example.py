"""The arrays that a model takes, made from the user's example before there is a model on a server.

Torch exports a network by calling it, so it needs arrays as they will be sent: a recipe is applied, and rows are
padded. Estimators are compared with their exports on the example's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np

from eaf_inference.errors import DeploymentRefused, InvalidInput
from eaf_inference.inference.batching import batch_of
from eaf_inference.inference.inputs import RaggedInput
from eaf_inference.inference.lengths import Declared
from eaf_inference.inference.marshal import prepare
from eaf_inference.inference.spec import DTYPES, ModelSpec, TensorSpec
from eaf_inference.inference.tables import numbers, table_of
from eaf_inference.inference.wrong_input import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eaf_inference.inference.recipe import Recipe

__all__ = ["ExampleInputs", "example_inputs", "feature_rows"]

_ROWS = 20  # enough to export a network


class ExampleInputs(dict[str, "NDArray[Any]"]):
    """Example arrays by input name, rows first.

    Attributes
    ----------
    lengths : dict of str to int
        The axis that counts constituents, by input: those inputs whose rows differ in length.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], lengths: Mapping[str, int] | None = None) -> None:
        super().__init__(arrays)
        self.lengths = dict(lengths or {})


def example_inputs(recipe: Recipe | None, example: Any, names: Sequence[str] = ()) -> ExampleInputs:
    """Return a network's inputs for the first rows of an example.

    Parameters
    ----------
    recipe : Recipe or None
        Its inputs are made with the shape ``[variables, constituents]``.
    example : awkward.Array, numpy.ndarray, table, mapping or sequence of arrays
        As the model will be called; for a recipe, the constituents' records.
    names : sequence of str, optional
        The parameters of the network's ``forward``, which name inputs that no recipe names.

    Raises
    ------
    InvalidInput
        The example does not fit the recipe.
    DeploymentRefused
        There is no array in it, or no row.
    """
    found = _by_name(example, names) if recipe is None else _by_recipe(recipe, example, names)
    for name, array in found.items():
        if not array.ndim or not len(array):
            raise DeploymentRefused(
                f"The example of input {name!r} has no rows. Expected a few rows, such as example=jets[:1000]."
            )
    return found


def feature_rows(example: Any, features: Sequence[str], width: int) -> NDArray[Any]:
    """Return an example of an estimator as rows of its features, in their order and in the example's precision.

    Raises
    ------
    InvalidInput
        Features are missing, or the arrays have another width.
    """
    name = "features"
    if isinstance(example, Mapping) and set(example) == {name}:
        example = example[name]
    if isinstance(example, np.ndarray) and example.ndim == 1 and width == 1 and not example.dtype.names:
        example = example[:, None]
    spec = ModelSpec(
        name="the estimator",
        version="",
        max_batch_size=1 << 30,
        inputs=(TensorSpec(name, "FP64", (width,)),),
        outputs=(TensorSpec("output", "FP32", (1,)),),
        recipe=None,
        labels={},
        features={name: tuple(features)} if features else {},
    )
    (rows,) = (each.rows for each in prepare(example, spec).inputs.arrays)  # type: ignore[union-attr]
    narrow = rows.astype(np.float32)
    return narrow if np.array_equal(narrow, rows, equal_nan=True) else rows


def _by_recipe(recipe: Recipe, example: Any, names: Sequence[str]) -> ExampleInputs:
    inputs = [TensorSpec(name, "FP32", (len(variables), -1)) for name, variables in recipe.inputs.items()]
    if isinstance(example, Mapping):
        others = {name: np.asarray(example[name]) for name in names if name in example and name not in recipe.inputs}
        inputs += [TensorSpec(name, _datatype(name, array), array.shape[1:]) for name, array in others.items()]
    spec = ModelSpec(
        name="the model",
        version="",
        max_batch_size=1 << 20,
        inputs=tuple(inputs),
        outputs=(TensorSpec("output", "FP32", (1,)),),
        recipe=recipe,
        labels={},
    )
    prepared = prepare(example, spec).inputs
    declared = []
    for collection in prepared.collections:
        own = Declared.of_all(recipe.lengths[each.spec.name] for each in collection.inputs)
        declared.append(own.unpadded if own.full else own.padded)
    rows = np.arange(min(prepared.rows, _ROWS))
    tensors = dict(zip(prepared.names, batch_of(prepared, rows, declared).tensors, strict=True))
    ragged = {each.spec.name: 2 for each in prepared.arrays if isinstance(each, RaggedInput)}
    return ExampleInputs(tensors, ragged)


def _datatype(name: str, array: NDArray[Any]) -> str:
    for datatype, dtype in DTYPES.items():
        if dtype == array.dtype.newbyteorder("<") and array.dtype.kind != "O":
            return datatype
    raise InvalidInput(
        f"The example of input {name!r} is {kind_of(array)}. Expected numbers or booleans in a rectangular array."
    )


def _by_name(example: Any, names: Sequence[str]) -> ExampleInputs:
    """Name the arrays of an example for which there is no recipe."""
    if isinstance(example, Mapping) and example:
        values = dict(example)
    elif isinstance(example, ak.Array) and example.fields and set(example.fields) <= set(names):
        values = {name: example[name] for name in example.fields}
    elif isinstance(example, tuple | list) and any(
        hasattr(each, "shape") or hasattr(each, "ndim") for each in example
    ):
        if len(example) > len(names):
            raise InvalidInput(
                f"The example has {len(example)} arrays and the network's forward takes {len(names)}. Expected one "
                "array for each, or {input name: array}."
            )
        values = dict(zip(names, example, strict=False))
    else:
        values = {next(iter(names), "input"): example}
    arrays, lengths = {}, {}
    for name, value in values.items():
        arrays[str(name)], axis = _rectangular(str(name), value)
        if axis is not None:
            lengths[str(name)] = axis
    return ExampleInputs(arrays, lengths)


def _rectangular(name: str, value: Any) -> tuple[NDArray[Any], int | None]:
    """Return a value's first rows as an array, padded with zeros, and the axis that was padded."""
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.names is None:
        array, axis = value[:_ROWS], None
    elif isinstance(value, ak.Array) and not value.fields:
        array, axis = _padded(name, value[:_ROWS])
    elif (table := table_of(value)) is not None:
        columns = [
            numbers(table.column(at), f"Column {column!r} of the example") for at, column in enumerate(table.names)
        ]
        if len(shapes := {each.shape for each in columns}) > 1:
            raise InvalidInput(
                f"The columns of the example of input {name!r} have shapes {', '.join(map(str, sorted(shapes)))}. "
                "Expected a number for each row in every column. A network whose forward takes a dict is deployed "
                "inside of one whose forward takes the tensors, and makes the dict."
            )
        array, axis = np.stack(columns, axis=1)[:_ROWS], None
    else:
        array, axis = np.asarray(value)[:_ROWS], None
    _datatype(name, array)
    return array, axis


def _padded(name: str, array: ak.Array) -> tuple[NDArray[Any], int | None]:
    sizes = str(array.type).split(" * ")[1:-1]
    variable = [axis for axis, size in enumerate(sizes, 1) if size == "var"]
    try:
        rows = [ak.to_numpy(row, allow_missing=False) for row in array]
    except ValueError:
        variable = [*variable, 0]
    if len(variable) > 1:
        raise InvalidInput(
            f"The example of input {name!r} is {kind_of(array)}. Expected lists of numbers along one axis at most; "
            "pass padded arrays, {input name: array}."
        )
    if not variable or not rows:
        return ak.to_numpy(array, allow_missing=False), None
    padded = np.zeros((len(rows), *np.max([row.shape for row in rows], axis=0).clip(min=1)), rows[0].dtype)
    for place, row in zip(padded, rows, strict=True):
        place[tuple(slice(size) for size in row.shape)] = row
    return padded, variable[0]
