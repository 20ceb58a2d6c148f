"""The preprocessing recipe, ``preprocess.json``: which variables make an input, and how each is normalised.

The format is Weaver's and CMSSW's (https://github.com/hqucms/weaver-core, CMSSW's ``deep_helpers.cc``): per
variable ``value = clip((x - median) * norm_factor, lower_bound, upper_bound)``, after ``replace_inf_value`` has
replaced values that are not finite. Padding is filled with ``pad``. Pure functions of arrays. A recipe comes from a
server, so it is treated as data and never evaluated.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.lengths import Declared

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

__all__ = ["Recipe", "Variable", "is_mask"]

_LARGEST_TEXT = 1 << 20  # characters
_MOST_VARIABLES = 1_000
_LONGEST = 1 << 20  # constituents
_NESTED = ("prep_params", "preprocessParams")  # where CMSSW keeps the inputs apart from the other keys
_MOST_CELLS = 1 << 22  # variables × least padded length of a row: 16 MB per row


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable and its normalisation, with the format's defaults."""

    name: str
    median: float = 0.0
    norm_factor: float = 1.0
    replace_inf_value: float | None = None  # None: values that are not finite stay
    lower_bound: float = -math.inf
    upper_bound: float = math.inf
    pad: float = 0.0

    @property
    def is_mask(self) -> bool:
        return is_mask(self.name)

    @property
    def changes_integers(self) -> bool:
        """Whether the normalisation changes any number that is finite."""
        return self != Variable(self.name, replace_inf_value=self.replace_inf_value, pad=self.pad)

    def normalise(self, values: NDArray[Any], dtype: np.dtype[Any] | type = np.float32) -> NDArray[Any]:
        """Normalise values as in the model's training.

        Parameters
        ----------
        values : numpy.ndarray, shape (n,), any real dtype
        dtype : numpy.dtype
            float32, in which CMSSW computes, or float64.

        Returns
        -------
        numpy.ndarray, shape (n,), of this dtype
            A new array, or `values` itself if the recipe changes nothing.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # the format treats an overflow as not finite
            return self._normalised(values, np.dtype(dtype).type)

    def _normalised(self, values: NDArray[Any], number: type[np.floating[Any]]) -> NDArray[Any]:
        result = values.astype(number, copy=False)
        owned = result is not values

        def out() -> NDArray[Any]:
            return result if owned else np.empty_like(result)

        if self.replace_inf_value is not None and not np.isfinite(result.sum(dtype=np.float64)):
            result = np.where(np.isfinite(result), result, number(self.replace_inf_value))
            owned = True
        if self.median != 0.0:
            result = np.subtract(result, number(self.median), out=out())
            owned = True
        if self.norm_factor != 1.0:
            result = np.multiply(result, number(self.norm_factor), out=out())
            owned = True
        if self.lower_bound > -math.inf or self.upper_bound < math.inf:
            lower, upper = number(self.lower_bound), number(self.upper_bound)
            result = np.clip(result, lower, upper, out=out())
        return result


@dataclass(frozen=True, slots=True)
class Recipe:
    """The inputs of a model, as variables of its constituents.

    Attributes
    ----------
    inputs : mapping of str to tuple of Variable
        By input name, in the order of the channels.
    lengths : mapping of str to Declared
        By input name, the numbers of constituents that it takes, including padding.
    output_names : tuple of str
        As in the text: the model's outputs, or the classes of its one output; empty if it names none.
    sort_by : mapping of str to str
        By input name, the variable that decides which constituents of a long row are kept.
    """

    inputs: Mapping[str, tuple[Variable, ...]]
    lengths: Mapping[str, Declared]
    output_names: tuple[str, ...] = ()
    sort_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names, each once, in the recipe's order."""
        return tuple(dict.fromkeys(variable.name for channels in self.inputs.values() for variable in channels))

    @property
    def max_length(self) -> int | None:
        """The most constituents of a row that any input takes; None if there is no limit."""
        return Declared.of_all(self.lengths.values()).maximum

    @property
    def required(self) -> tuple[str, ...]:
        """The variables that the records must have: all except masks."""
        return self.required_by(self.inputs)

    def required_by(self, inputs: Collection[str]) -> tuple[str, ...]:
        """Return the variables of these inputs that a record must have: all except masks."""
        variables = [variable for name in inputs for variable in self.inputs[name]]
        return tuple(dict.fromkeys(variable.name for variable in variables if not variable.is_mask))

    def apply(
        self, fields: Mapping[str, NDArray[np.generic]], total: int, dtypes: Mapping[str, np.dtype[Any]]
    ) -> dict[str, list[tuple[NDArray[Any], float]]]:
        """Normalise the channels of some inputs.

        Parameters
        ----------
        fields : mapping of str to numpy.ndarray, shape (total,)
            Flat variables of all constituents. A missing mask is 1 for every constituent.
        total : int
            The number of constituents.
        dtypes : mapping of str to numpy.dtype
            The inputs to make, and their data types. Values are float64 for those of FP64 or integers, otherwise
            float32; integers for an input of integers stay as they are if the recipe changes nothing.

        Returns
        -------
        dict of str to list of (numpy.ndarray, float)
            For each input and channel, the flat values and the padding value.
        """
        done: dict[tuple[Variable, np.dtype[Any]], NDArray[Any]] = {}
        result: dict[str, list[tuple[NDArray[Any], float]]] = {}
        for name, dtype in dtypes.items():
            narrow = dtype.kind == "f" and dtype.itemsize <= 4
            computed = np.dtype(np.float32 if narrow else np.float64)
            result[name] = []
            for variable in self.inputs[name]:
                key, values = (variable, computed), fields.get(variable.name)
                integers = dtype.kind in "iu" and not variable.changes_integers
                if integers and values is not None and values.dtype.kind in "iu":
                    result[name].append((values, variable.pad))
                    continue
                if key not in done:
                    done[key] = variable.normalise(np.ones(total, computed) if values is None else values, computed)
                result[name].append((done[key], variable.pad))
        return result

    @classmethod
    def parse(cls, text: str, *, model: str) -> Recipe:
        """Read the text of a ``preprocess.json``.

        Raises
        ------
        ConfigurationError
            The text is not a valid recipe; the message says where.
        """
        if len(text) > _LARGEST_TEXT:
            raise _wrong(model, f"it is {len(text)} characters long; at most {_LARGEST_TEXT} are read")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(model, f"it is not JSON: {error}") from error
        names = data.get("input_names") if isinstance(data, dict) else None
        inside: dict[str, Any] = (
            next((data[key] for key in _NESTED if isinstance(data.get(key), dict)), {}) if names else {}
        )
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise _wrong(model, "it has no list 'input_names'")
        if len(set(names)) != len(names):
            raise _wrong(model, "'input_names' names an input twice")
        inputs, lengths, sort_by = {}, {}, {}
        for name in names:
            described = data.get(name, inside.get(name))
            inputs[name] = _channels(model, name, described)
            lengths[name] = _lengths(model, name, described)
            if by := described.get("sort_by", data.get("sort_by")):
                sort_by[name] = _sort_by(model, name, by)
        if sum(len(channels) for channels in inputs.values()) > _MOST_VARIABLES:
            raise _wrong(model, f"it has more than {_MOST_VARIABLES} variables")
        if all(variable.is_mask for channels in inputs.values() for variable in channels):
            raise _wrong(model, "it has no variables besides masks")
        cells = sum(len(inputs[name]) * _least(lengths[name]) for name in names)
        if cells > _MOST_CELLS:
            raise _wrong(model, f"each row would be padded to {cells} numbers; at most {_MOST_CELLS} are sent")
        outputs = _output_names(model, data.get("output_names", data.get("flav_names")))
        return cls(inputs=inputs, lengths=lengths, output_names=outputs, sort_by=sort_by)


def is_mask(name: str) -> bool:
    """Whether a variable or input of this name is a mask: 1 for constituents, to distinguish them from padding."""
    return name == "mask" or name.endswith("_mask")


def _channels(model: str, name: str, data: Any) -> tuple[Variable, ...]:
    if not isinstance(data, dict):
        raise _wrong(model, f"it does not describe the input {name!r}")
    names, infos = data.get("var_names"), data.get("var_infos", {})
    if not isinstance(names, list) or not names or not all(isinstance(each, str) and each for each in names):
        raise _wrong(model, f"the input {name!r} has no list 'var_names'")
    if not isinstance(infos, dict):
        raise _wrong(model, f"'var_infos' of the input {name!r} is not an object")
    return tuple(_variable(model, each, infos.get(each, {})) for each in names)


def _variable(model: str, name: str, info: Any) -> Variable:
    if not isinstance(info, dict):
        raise _wrong(model, f"the variable {name!r} is not described by an object")
    values: dict[str, float] = {}
    for key in ("median", "norm_factor", "replace_inf_value", "lower_bound", "upper_bound", "pad"):
        value = info.get(key)
        if value is None:
            continue
        bound = key in ("lower_bound", "upper_bound")
        if isinstance(value, bool) or not isinstance(value, int | float) or not _fits(value, infinite=bound):
            raise _wrong(model, f"{key!r} of the variable {name!r} is not a number that float32 can hold")
        values[key] = float(value)
    variable = Variable(name, **values)
    if variable.lower_bound > variable.upper_bound:
        raise _wrong(model, f"the variable {name!r} has a lower bound above its upper bound")
    return variable


def _fits(value: float, *, infinite: bool) -> bool:
    if isinstance(value, float) and math.isinf(value):
        return infinite
    return abs(value) <= float(np.finfo(np.float32).max)  # false for NaN


def _lengths(model: str, name: str, data: dict[str, Any]) -> Declared:
    """Read ``min_length`` and ``max_length``, or else ``var_length`` as the only length."""
    found: dict[str, int | None] = {}
    for key in ("min_length", "max_length", "var_length"):
        value = data.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        least = 0 if key == "min_length" else 1
        if value is not None and not (whole and least <= value <= _LONGEST):
            raise _wrong(model, f"{key!r} of the input {name!r} is not a whole number from {least} to {_LONGEST}")
        found[key] = value
    maximum = found["max_length"] or found["var_length"]
    if maximum is not None and (found["min_length"] or 0) > maximum:
        raise _wrong(
            model,
            f"the least length of the input {name!r}, {found['min_length']}, is above its greatest, {maximum}",
        )
    full = found["var_length"] is not None and found["min_length"] is None and found["max_length"] is None
    return Declared(minimum=found["min_length"] or 0, maximum=maximum, full=full)


def _least(declared: Declared) -> int:
    """Return the padded length of an empty row."""
    return declared.maximum or 0 if declared.full else declared.minimum


def _sort_by(model: str, name: str, by: Any) -> str:
    if not isinstance(by, str) or not by.removeprefix("-"):
        raise _wrong(model, f"'sort_by' of the input {name!r} is not the name of a variable")
    return by


def _output_names(model: str, names: Any) -> tuple[str, ...]:
    if names is None:
        return ()
    if isinstance(names, dict):  # Weaver: name -> the expression of the training target
        names = list(names)
    if not isinstance(names, list) or not all(isinstance(each, str) and each for each in names):
        raise _wrong(model, "'output_names' is not a list of names")
    return tuple(names)


def _wrong(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The preprocessing recipe of {model!r} cannot be used: {why}. Expected the text of a preprocess.json; "
        "pass a corrected one as preprocess=PATH, or tell the model's owner."
    )
