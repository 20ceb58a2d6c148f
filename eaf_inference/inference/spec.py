"""What a model takes and gives, read from its configuration on the server.

The configuration comes over the network and is data: sizes are bounded, types checked, nothing evaluated.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.reply import LARGEST_REPLY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["DTYPES", "ModelSpec", "TensorSpec"]

# Triton's names: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html#datatypes
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_LARGEST_PARAMETER = 1 << 20  # characters
_MOST_CLASSES = 10_000
_MOST_TENSORS = 1000  # inputs, or outputs
_MOST_AXES = 16
_LONGEST_NAME = 64 * 1024  # characters …
_SHOWN = 200  # … of which so many stand in a message
_A_NAME = f"a name of 1 to {_LONGEST_NAME:,} characters"
_LARGEST_ROW = LARGEST_REPLY  # bytes


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, Triton data type and shape without the batch axis (-1: variable)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.datatype]

    @property
    def variable_axis(self) -> int | None:
        """The one axis of variable length; None where all are fixed."""
        return self.shape.index(-1) if -1 in self.shape else None

    @property
    def variable_axes(self) -> tuple[int, ...]:
        """The axes of variable length."""
        return tuple(axis for axis, size in enumerate(self.shape) if size == -1)

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} [{', '.join(str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of one model.

    Attributes
    ----------
    version : str
        As asked for; empty for the one that the server chooses.
    max_batch_size : int
        0 where the model takes no batch axis.
    recipe : Recipe or None
    labels : mapping of str to tuple of str
        Class names by output.
    left_out : tuple of str
        Outputs of a data type that this client does not serve, such as strings, and that type; never asked for.
    unread : str
        Why the server does not tell the model's configuration, where it does not: then recipe and labels are unknown.
    """

    name: str
    version: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    recipe: Recipe | None
    labels: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()
    unread: str = ""

    def __hash__(self) -> int:
        return hash((self.name, self.version))  # the mappings only compare

    @classmethod
    def from_config(cls, config: Any, version: str, *, preprocess: str | None = None, unread: str = "") -> ModelSpec:
        """Read Triton's ``ModelConfig``.

        Parameters
        ----------
        config : protocol.ModelConfig
        version : str
        preprocess : str, optional
            Text of a ``preprocess.json`` that replaces the one in the configuration.
        unread : str
            Why this is not the configuration itself, but made of the model's metadata.

        Raises
        ------
        ConfigurationError
            The model is of a kind that this client does not serve, or its recipe or labels are wrong.
        """
        if config.model_transaction_policy.decoupled:
            raise _unserved(config.name, "it answers in a stream (decoupled)")
        if config.HasField("sequence_batching"):
            raise _unserved(config.name, "it keeps state between requests (sequence batching)")
        if not _is_name(config.name):
            raise ConfigurationError(f"A model is called {_short(config.name)}. Expected {_A_NAME}.")
        if config.max_batch_size < 0:
            raise _unserved(config.name, f"its max_batch_size is {config.max_batch_size}; 0 or more was expected")
        for kind, tensors in (("inputs", config.input), ("outputs", config.output)):
            _check_number_and_names(config.name, kind, tensors)
        inputs = tuple(_tensor(config.name, tensor, optional=tensor.optional) for tensor in config.input)
        served = [tensor for tensor in config.output if _datatype(tensor) in DTYPES]
        outputs = tuple(_tensor(config.name, tensor) for tensor in served or config.output)
        left_out = {tensor.name: _datatype(tensor) for tensor in config.output if tensor not in served}
        text = _parameter(config, "preprocess") if preprocess is None else preprocess
        recipe = None
        if text is not None:
            recipe = Recipe.parse(text, model=config.name)
            _check_recipe(config.name, recipe, inputs)
        return cls(
            name=config.name,
            version=version,
            max_batch_size=config.max_batch_size,
            inputs=inputs,
            outputs=outputs,
            recipe=recipe,
            labels={
                **(_classes(config.name, recipe.output_names, outputs, left_out) if recipe else {}),
                **_labels(config.name, _parameter(config, "labels"), outputs, left_out),
            },
            left_out=tuple(f"{name}: {datatype}" for name, datatype in left_out.items()),
            unread=unread,
        )


def _check_number_and_names(model: str, kind: str, tensors: Any) -> None:
    if not 1 <= len(tensors) <= _MOST_TENSORS:
        raise _unserved(model, f"it has {len(tensors):,} {kind}; 1 to {_MOST_TENSORS:,} are served")
    for tensor in tensors:
        if not _is_name(tensor.name):
            raise _unserved(model, f"a tensor is called {_short(tensor.name)}; {_A_NAME} is expected")
    twice = [name for name, number in Counter(tensor.name for tensor in tensors).items() if number > 1]
    if twice:
        raise _unserved(model, f"several of its {kind} are called {_short(twice[0])}")


def _datatype(tensor: Any) -> str:
    known = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number  # a newer server may have others
    number = tensor.data_type
    return known[number].name.removeprefix("TYPE_") if number in known else str(number)


def _tensor(model: str, tensor: Any, *, optional: bool = False) -> TensorSpec:
    name, dims, datatype = _short(tensor.name), list(tensor.dims[: _MOST_AXES + 1]), _datatype(tensor)
    if any(size < 1 and size != -1 for size in dims):
        raise _unserved(model, f"{name} has the shape {dims}")
    if len(dims) > _MOST_AXES:
        raise _unserved(model, f"{name} has {len(tensor.dims):,} axes; at most {_MOST_AXES} are served")
    if datatype not in DTYPES:
        raise _unserved(model, f"{name} has data type {datatype}; numbers and booleans are served")
    row = math.prod(max(size, 1) for size in dims) * DTYPES[datatype].itemsize
    if row > _LARGEST_ROW:
        raise _unserved(model, f"{name} has the shape {dims}: one row is larger than {_LARGEST_ROW >> 20} MiB")
    return TensorSpec(tensor.name, datatype, tuple(dims), optional=optional)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NAME


def _short(name: str) -> str:
    """A name in a message."""
    return repr(name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "…")


def _parameter(config: Any, key: str) -> str | None:
    if key not in config.parameters:
        return None
    text: str = config.parameters[key].string_value
    if len(text) > _LARGEST_PARAMETER:
        raise ConfigurationError(
            f"The parameter {key!r} of {config.name!r} is too long: {len(text)} characters, "
            f"at most {_LARGEST_PARAMETER} are read. Ask the model's owner to correct its config.pbtxt."
        )
    return text


def _check_recipe(model: str, recipe: Recipe, inputs: tuple[TensorSpec, ...]) -> None:
    specs = {tensor.name: tensor for tensor in inputs}
    missing = [tensor.name for tensor in inputs if tensor.name not in recipe.inputs and not tensor.optional]
    unknown = [name for name in recipe.inputs if name not in specs]
    if missing or unknown:
        raise ConfigurationError(
            f"The recipe of {model!r} does not fit its inputs: it lacks {missing or 'none'} and has "
            f"{unknown or 'none'} that the model does not take ({', '.join(specs)})."
        )
    for name, variables in recipe.inputs.items():
        shape = specs[name].shape
        if len(shape) != 2 or shape[0] != len(variables):
            raise ConfigurationError(
                f"The recipe of {model!r} gives {len(variables)} variables for input {name!r}, "
                f"which takes shape {list(shape)}. Expected [{len(variables)}, -1]."
            )
        if specs[name].dtype.kind != "f":
            raise ConfigurationError(
                f"The recipe of {model!r} fills input {name!r}, which takes {specs[name].datatype}, not floats."
            )


def _classes(
    model: str, names: tuple[str, ...], outputs: tuple[TensorSpec, ...], left_out: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The classes that a recipe's ``output_names`` gives to an output, unless they are the names of outputs."""
    taken = {*(tensor.name for tensor in outputs), *left_out}
    if not names or taken.issuperset(names):
        return {}
    fitting = [tensor.name for tensor in outputs if tensor.shape and tensor.shape[-1] == len(names)]
    if len(names) in (1, len(taken)) and len(fitting) != 1:  # the outputs' names in the export, which are others here
        return {}
    if len(fitting) != 1 or len(set(names)) != len(names):
        raise ConfigurationError(
            f"The recipe of {model!r} names {len(names)} classes in 'output_names' ({', '.join(names)}), which "
            f"cannot be given to the outputs {'; '.join(map(str, outputs))}. Expected different names, as many as "
            "one output has values; or the parameter 'labels' in the model's config.pbtxt."
        )
    return {fitting[0]: names}


def _labels(
    model: str, text: str | None, outputs: tuple[TensorSpec, ...], left_out: Collection[str]
) -> dict[str, tuple[str, ...]]:
    if text is None:
        return {}
    shapes = {tensor.name: tensor.shape for tensor in outputs}
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad_labels(model, f"they are not JSON: {error}") from error
    if not isinstance(labels, dict):
        raise _bad_labels(model, "they are not an object")
    labels = {name: classes for name, classes in labels.items() if name not in left_out}
    for name, classes in labels.items():
        if name not in shapes:
            raise _bad_labels(model, f"there is no output {_short(name)}")
        is_names = isinstance(classes, list) and all(isinstance(label, str) and label for label in classes)
        if not is_names or len(set(classes)) != len(classes) or len(classes) > _MOST_CLASSES:
            raise _bad_labels(model, f"those of {name!r} are not a list of different names")
        if not shapes[name] or shapes[name][-1] != len(classes):
            raise _bad_labels(model, f"{len(classes)} names for {name!r} of shape {list(shapes[name])}")
    return {name: tuple(classes) for name, classes in labels.items()}


def _bad_labels(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The labels of {model!r} cannot be used: {why}. Expected JSON: output name -> list of class names."
    )


def _unserved(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"The model {model!r} cannot be used through this client: {why}.")
