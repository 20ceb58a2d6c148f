"""The field's ``preprocess.json``: which variables make an input, and how each is normalised.

The format is Weaver's and CMSSW's (https://github.com/hqucms/weaver-core, CMSSW's ``deep_helpers.cc``): per
variable ``value = clip((x - median) * norm_factor, lower_bound, upper_bound)``, what is not finite replaced by
``replace_inf_value`` first, padding filled with ``pad``. Pure functions of arrays; a recipe comes from a server
and is only ever data.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.lengths import Declared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Recipe", "Variable", "is_mask"]

_LARGEST_TEXT = 1 << 20  # characters
_MOST_VARIABLES = 1_000
_LONGEST = 1 << 20  # constituents
_MOST_CELLS = 1 << 22  # variables × length to which each row is padded at least: 16 MB a row


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable and its normalisation; the defaults are the format's."""

    name: str
    median: float = 0.0
    norm_factor: float = 1.0
    replace_inf_value: float | None = None  # None: what is not finite passes through
    lower_bound: float = -math.inf
    upper_bound: float = math.inf
    pad: float = 0.0

    @property
    def is_mask(self) -> bool:
        return is_mask(self.name)

    def normalise(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """The values as the model was trained on them.

        Parameters
        ----------
        values : numpy.ndarray, shape (n,), any real dtype

        Returns
        -------
        numpy.ndarray, shape (n,), float32
            A new array, or `values` itself where the recipe changes nothing.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite, as the format has it
            return self._normalised(values)

    def _normalised(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        result = values.astype(np.float32, copy=False)
        owned = result is not values

        def out() -> NDArray[np.float32]:
            return result if owned else np.empty_like(result)

        if self.replace_inf_value is not None and not np.isfinite(result.sum(dtype=np.float64)):
            result = np.where(np.isfinite(result), result, np.float32(self.replace_inf_value))
            owned = True
        if self.median != 0.0:
            result = np.subtract(result, np.float32(self.median), out=out())
            owned = True
        if self.norm_factor != 1.0:
            result = np.multiply(result, np.float32(self.norm_factor), out=out())
            owned = True
        if self.lower_bound > -math.inf or self.upper_bound < math.inf:
            lower, upper = np.float32(self.lower_bound), np.float32(self.upper_bound)
            result = np.clip(result, lower, upper, out=out())
        return result


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model's inputs, as variables of its constituents.

    Attributes
    ----------
    inputs : mapping of str to tuple of Variable
        By input name, in the order of the channels.
    lengths : mapping of str to Declared
        By input name, how many constituents it takes, padding included.
    output_names : tuple of str
        As in the text: the model's outputs, or the classes of its one output; empty where it names none.
    """

    inputs: Mapping[str, tuple[Variable, ...]]
    lengths: Mapping[str, Declared]
    output_names: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """The names, each once, in the recipe's order."""
        return tuple(dict.fromkeys(variable.name for channels in self.inputs.values() for variable in channels))

    @property
    def min_length(self) -> int:
        """The fewest constituents of a record, padding included; 0 where nothing is declared."""
        return Declared.of_all(self.lengths.values()).minimum

    @property
    def max_length(self) -> int | None:
        """The most constituents of a record; None where there is no limit."""
        return Declared.of_all(self.lengths.values()).maximum

    @property
    def required(self) -> tuple[str, ...]:
        """The variables that a record must have: all but masks."""
        masks = {variable.name for channels in self.inputs.values() for variable in channels if variable.is_mask}
        return tuple(name for name in self.variables if name not in masks)

    def apply(
        self, fields: Mapping[str, NDArray[np.generic]], total: int
    ) -> dict[str, list[tuple[NDArray[np.float32], float]]]:
        """The channels of each input, normalised.

        Parameters
        ----------
        fields : mapping of str to numpy.ndarray, shape (total,)
            Flat variables of all constituents. A mask may be missing: it is 1 for every constituent.
        total : int
            The number of constituents.

        Returns
        -------
        dict of str to list of (numpy.ndarray, float)
            Per input and channel the flat values and the value that padding takes.
        """
        done: dict[Variable, NDArray[np.float32]] = {}
        result: dict[str, list[tuple[NDArray[np.float32], float]]] = {}
        for name, channels in self.inputs.items():
            result[name] = []
            for variable in channels:
                if variable not in done:
                    if variable.name in fields:
                        done[variable] = variable.normalise(fields[variable.name])
                    else:
                        done[variable] = variable.normalise(np.ones(total, np.float32))
                result[name].append((done[variable], variable.pad))
        return result

    @classmethod
    def parse(cls, text: str, *, model: str) -> Recipe:
        """Read the text of a ``preprocess.json``.

        Raises
        ------
        ConfigurationError
            It is not one; the message says where.
        """
        if len(text) > _LARGEST_TEXT:
            raise _wrong(model, f"it is {len(text)} characters long, at most {_LARGEST_TEXT} are read")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(model, f"it is not JSON: {error}") from error
        names = data.get("input_names") if isinstance(data, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise _wrong(model, "it has no list 'input_names'")
        if len(set(names)) != len(names):
            raise _wrong(model, "'input_names' names an input twice")
        inputs, lengths = {}, {}
        for name in names:
            inputs[name] = _channels(model, name, data.get(name))
            lengths[name] = _lengths(model, name, data[name])
        if sum(len(channels) for channels in inputs.values()) > _MOST_VARIABLES:
            raise _wrong(model, f"it has more than {_MOST_VARIABLES} variables")
        if all(variable.is_mask for channels in inputs.values() for variable in channels):
            raise _wrong(model, "it has no variables but masks")
        cells = sum(len(inputs[name]) * _least(lengths[name]) for name in names)
        if cells > _MOST_CELLS:
            raise _wrong(model, f"each row would be padded to {cells} numbers, at most {_MOST_CELLS} are sent")
        recipe = cls(inputs=inputs, lengths=lengths, output_names=_output_names(model, data.get("output_names")))
        if recipe.max_length is not None and recipe.min_length > recipe.max_length:
            raise _wrong(model, f"the least length {recipe.min_length} is above the greatest, {recipe.max_length}")
        return recipe


def is_mask(name: str) -> bool:
    """Whether a variable or an input of this name is 1 for a constituent and padded to tell it from padding."""
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
            raise _wrong(model, f"{key!r} of the variable {name!r} is not a number that float32 holds")
        values[key] = float(value)
    variable = Variable(name, **values)
    if variable.lower_bound > variable.upper_bound:
        raise _wrong(model, f"the variable {name!r} has its lower bound above its upper one")
    return variable


def _fits(value: float, *, infinite: bool) -> bool:
    if isinstance(value, float) and math.isinf(value):
        return infinite
    return abs(value) <= float(np.finfo(np.float32).max)  # false for NaN


def _lengths(model: str, name: str, data: dict[str, Any]) -> Declared:
    """``min_length`` and ``max_length``, or else ``var_length`` as the one length."""
    found: dict[str, int | None] = {}
    for key in ("min_length", "max_length", "var_length"):
        value = data.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        least = 0 if key == "min_length" else 1
        if value is not None and not (whole and least <= value <= _LONGEST):
            raise _wrong(model, f"{key!r} of the input {name!r} is not a whole number from {least} to {_LONGEST}")
        found[key] = value
    maximum = found["max_length"] or found["var_length"]
    full = found["var_length"] is not None and found["min_length"] is None and found["max_length"] is None
    return Declared(minimum=found["min_length"] or 0, maximum=maximum, full=full)


def _least(declared: Declared) -> int:
    """The length to which an empty row is padded."""
    return declared.maximum or 0 if declared.full else declared.minimum


def _output_names(model: str, names: Any) -> tuple[str, ...]:
    if names is None:
        return ()
    if not isinstance(names, list) or not all(isinstance(each, str) and each for each in names):
        raise _wrong(model, "'output_names' is not a list of names")
    return tuple(names)


def _wrong(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The preprocessing recipe of {model!r} cannot be used: {why}. Expected the text of a preprocess.json; "
        "pass a corrected one as preprocess=PATH, or tell the model's owner."
    )
