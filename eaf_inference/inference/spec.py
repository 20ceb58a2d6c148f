"""What a model takes and gives, read from its configuration on the server.

The configuration comes over the network and is only data: sizes are bounded, types checked, nothing is evaluated.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eaf_inference._text import shortened
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.class_names import declared_classes, recipe_classes
from eaf_inference.inference.collections import axes_of, collections_of
from eaf_inference.inference.config_hash import config_hash
from eaf_inference.inference.feature_names import parsed
from eaf_inference.inference.graph_spec import GraphSpec
from eaf_inference.inference.parameters import (
    AS_CONFIGURED,
    Chosen,
    batch_sizes,
    check_batch_axis,
    has_batch_axis,
    merged_sizes,
    padded_lengths,
    parameter,
)
from eaf_inference.inference.recipe import Recipe
from eaf_inference.inference.reply import LARGEST_REPLY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from eaf_inference.inference.collections import CollectionSpec

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
    "BF16": np.dtype("<f4"),  # as the client holds it; see `wire`
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),  # strings, TYPE_STRING in configurations
}
_MOST_TENSORS = 1000  # inputs, or outputs
_MOST_AXES = 16
_LONGEST_NAME = 64 * 1024  # characters …
_SHOWN = 200  # … and those shown in a message
_A_NAME = f"a name of 1 to {_LONGEST_NAME:,} characters"
_LARGEST_ROW = LARGEST_REPLY  # bytes
_UNBOUNDED = (1 << 31) - 1  # rows of a request of a model that names no limit; bytes and cells bound it


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes
    ----------
    name, datatype : str
        The data type is Triton's.
    shape : tuple of int
        Without the batch axis; -1 is a variable size.
    optional : bool
    lengths : tuple of int
        The only sizes that the axis of variable size may have, in order; empty for any.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    lengths: tuple[int, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.datatype]

    @property
    def variable_axis(self) -> int | None:
        """The one axis of variable length; None if all are fixed."""
        return self.shape.index(-1) if -1 in self.shape else None

    @property
    def variable_axes(self) -> tuple[int, ...]:
        """The axes of variable length."""
        return tuple(axis for axis, size in enumerate(self.shape) if size == -1)

    def __str__(self) -> str:
        padded = f" padded to {' or '.join(map(str, self.lengths))}" if self.lengths else ""
        return f"{self.name}: {self.datatype} [{', '.join(str(size) for size in self.shape)}]{padded}"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of one model.

    Attributes
    ----------
    version : str
        The requested one; empty if the server chooses.
    max_batch_size : int
        As in the configuration: 0 if the server adds no batch axis.
    recipe : Recipe or None
    labels : mapping of str to tuple of str
        Class names by output.
    left_out : tuple of str
        Outputs that are not requested, with their data type: strings and unsupported types, or those not asked for.
    unread : str
        Why the server does not show the configuration; recipe and labels are then unknown. Empty if it does.
    unused : str
        What of the configuration is not used, and why; mostly empty.
    collections : tuple of CollectionSpec
        The inputs that belong together; made from the names and the recipe if not given.
    pad_batches_to : tuple of int
        The only sizes of batches that the model takes, in order; empty if it takes any up to the largest.
    batch_axis : int or None
        0 if the model's own first axis counts rows. The shapes of the tensors are then without it.
    members : tuple of str
        The models that an ensemble calls, in quotes; empty for other models.
    graph : GraphSpec or None
        Which inputs and outputs belong to the nodes and edges of graphs.
    features : mapping of str to tuple of str
        Names of the features, by input.
    config : str
        The hash of the configuration from which this was read (see `config_hash`); empty if it is not the server's.
    merged : tuple of int or None
        The sizes of batches that the server's dynamic batcher prefers, in order; None if it has none.
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
    unused: str = ""
    collections: tuple[CollectionSpec, ...] = ()
    batch_axis: int | None = None
    pad_batches_to: tuple[int, ...] = ()
    members: tuple[str, ...] = ()
    graph: GraphSpec | None = None
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    config: str = ""
    merged: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.collections:
            object.__setattr__(self, "collections", collections_of(self.name, _shapes(self.inputs), self.recipe))

    def __hash__(self) -> int:
        return hash((self.name, self.version))  # the mappings are not hashable

    @property
    def largest_batch(self) -> int:
        """The most rows of one request; 0 if the model takes no batch axis."""
        if self.pad_batches_to:
            return self.pad_batches_to[-1]
        return self.max_batch_size if self.batch_axis is None else _UNBOUNDED

    @property
    def may_have_batch_axis(self) -> bool:
        """Whether arrays are sent whole although the first axis of every tensor might count rows."""
        return (
            not self.largest_batch
            and self.graph is None
            and all(tensor.shape[:1] == (-1,) for tensor in (*self.inputs, *self.outputs))
        )

    @classmethod
    def from_config(cls, config: Any, version: str, *, chosen: Chosen = AS_CONFIGURED, unread: str = "") -> ModelSpec:
        """Read Triton's ``ModelConfig``.

        Parameters
        ----------
        config : protocol.ModelConfig
        version : str
        chosen : Chosen
            What the user asks for in place of what the configuration says.
        unread : str
            Why the configuration was made from the model's metadata; empty if it is the server's own.

        Raises
        ------
        ConfigurationError
            The kind of model is not supported, or its recipe or labels are wrong.
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
        split = has_batch_axis(config.name, parameter(config, "batch_axis"), chosen.batch_axis)
        split &= config.max_batch_size == 0  # otherwise the server adds the axis itself
        largest = _UNBOUNDED if split else config.max_batch_size
        sizes = batch_sizes(config.name, parameter(config, "pad_batches_to"), largest)
        split_at = (-1, *sizes) if split else ()
        inputs = tuple(_tensor(config.name, each, optional=each.optional, split_at=split_at) for each in config.input)
        names = chosen.outputs_among([each.name for each in config.output], config.name)
        usual = _usual(config.output)
        served = {
            each.name: _tensor(config.name, each, split_at=split_at)
            for each in config.output
            if each.name in (*usual, *names)
        }
        names = names or usual
        left_out = {each.name: _datatype(each) for each in config.output if each.name not in names}
        text = parameter(config, "preprocess") if chosen.preprocess is None else chosen.preprocess
        recipe = None
        if text is not None:
            recipe = Recipe.parse(text, model=config.name)
            _check_recipe(config.name, recipe, inputs, batched=largest > 0)
        numbers = {name: each.shape for name, each in served.items() if each.datatype != "BYTES"}
        others = [each.name for each in config.output if each.name not in numbers]
        classes, unused = recipe_classes(recipe.output_names, numbers, others) if recipe else ({}, "")
        classes |= declared_classes(config.name, parameter(config, "labels"), numbers, others)
        inputs, collections = _with_lengths(
            config,
            chosen,
            inputs,
            collections_of(config.name, _shapes(inputs), recipe, parameter(config, "collections")),
        )
        return cls(
            name=config.name,
            version=version,
            max_batch_size=config.max_batch_size,
            inputs=inputs,
            outputs=tuple(served[name] for name in names),
            recipe=recipe,
            labels={name: own for name, own in classes.items() if name in names},
            left_out=tuple(f"{name}: {datatype}" for name, datatype in left_out.items()),
            unread=unread,
            features=parsed(
                config.name, parameter(config, "features"), {tensor.name: tensor.shape for tensor in inputs}
            ),
            unused=unused,
            merged=merged_sizes(config),
            collections=collections,
            batch_axis=0 if split else None,
            pad_batches_to=sizes,
            members=tuple(dict.fromkeys(_short(step.model_name) for step in config.ensemble_scheduling.step)),
            graph=_graph(config, inputs, tuple(served[name] for name in names), left_out, split=split),
            config="" if unread else config_hash(config),
        )


def _shapes(tensors: Iterable[TensorSpec]) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in tensors}


def _with_lengths(
    config: Any, chosen: Chosen, inputs: tuple[TensorSpec, ...], collections: tuple[CollectionSpec, ...]
) -> tuple[tuple[TensorSpec, ...], tuple[CollectionSpec, ...]]:
    """Restrict inputs and collections to the padded lengths that the model takes."""
    jagged = {each.name: each.inputs for each in collections if not each.per_row}
    text = parameter(config, "lengths")
    only = padded_lengths(config.name, text, chosen.lengths, _shapes(inputs), jagged)
    return (
        tuple(replace(each, lengths=only.get(each.name, ())) for each in inputs),
        tuple(replace(each, declared=each.declared.within(only.get(each.inputs[0], ()))) for each in collections),
    )


def _usual(outputs: Iterable[Any]) -> tuple[str, ...]:
    """Return the outputs that are requested if none is asked for: numbers and booleans, or else strings."""
    types = {each.name: _datatype(each) for each in outputs}
    numbers = tuple(name for name, datatype in types.items() if datatype in DTYPES and datatype != "BYTES")
    return numbers or tuple(name for name, datatype in types.items() if datatype == "BYTES") or tuple(types)


def _graph(
    config: Any,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    left_out: Collection[str],
    *,
    split: bool,
) -> GraphSpec | None:
    text = parameter(config, "graph")
    if text is None:
        return None
    if split:
        raise ConfigurationError(
            f"The model {config.name!r} has the parameter 'graph' and a batch axis. Expected one of them: the first "
            "axis counts the nodes of a graph, or rows."
        )
    size = config.max_batch_size
    return GraphSpec.parse(
        text, model=config.name, max_batch_size=size, inputs=inputs, outputs=outputs, left_out=left_out
    )


def _check_number_and_names(model: str, kind: str, tensors: Any) -> None:
    if not 1 <= len(tensors) <= _MOST_TENSORS:
        raise _unserved(model, f"it has {len(tensors):,} {kind}; 1 to {_MOST_TENSORS:,} are supported")
    for tensor in tensors:
        if not _is_name(tensor.name):
            raise _unserved(model, f"a tensor is called {_short(tensor.name)}; {_A_NAME} is expected")
    twice = [name for name, number in Counter(tensor.name for tensor in tensors).items() if number > 1]
    if twice:
        raise _unserved(model, f"several of its {kind} are called {_short(twice[0])}")


def _datatype(tensor: Any) -> str:
    known = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number  # a newer server may have more
    number = tensor.data_type
    name = known[number].name.removeprefix("TYPE_") if number in known else str(number)
    return "BYTES" if name == "STRING" else name  # as requests, metadata and tables call it


def _tensor(model: str, tensor: Any, *, split_at: Sequence[int], optional: bool = False) -> TensorSpec:
    """Read an input or output; `split_at`: the sizes that its first axis may have, if it is the batch axis."""
    name, dims, datatype = _short(tensor.name), list(tensor.dims[: _MOST_AXES + 1]), _datatype(tensor)
    if any(size < 1 and size != -1 for size in dims):
        raise _unserved(model, f"{name} has the shape {dims}; sizes of -1 or at least 1 are supported")
    if len(dims) > _MOST_AXES:
        raise _unserved(model, f"{name} has {len(tensor.dims):,} axes; at most {_MOST_AXES} are supported")
    if split_at:
        check_batch_axis(model, name, dims, split_at)
        dims = dims[1:]
    if datatype not in DTYPES:
        raise _unserved(model, f"{name} has data type {datatype}; only numbers, booleans and strings are supported")
    row = math.prod(max(size, 1) for size in dims) * DTYPES[datatype].itemsize
    if row > _LARGEST_ROW:
        raise _unserved(model, f"{name} has the shape {dims}: one row is larger than {_LARGEST_ROW >> 20} MiB")
    return TensorSpec(tensor.name, datatype, tuple(dims), optional=optional)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NAME


def _short(name: str) -> str:
    """Quote a name in a message, shortened."""
    return repr(shortened(name, _SHOWN))


def _check_recipe(model: str, recipe: Recipe, inputs: tuple[TensorSpec, ...], *, batched: bool) -> None:
    specs = {tensor.name: tensor for tensor in inputs}
    unknown = [name for name in recipe.inputs if name not in specs]
    if unknown:
        raise ConfigurationError(
            f"The recipe of {model!r} describes inputs that the model does not take: {', '.join(unknown)}. Expected "
            f"some of {', '.join(specs)}."
        )
    for name, variables in recipe.inputs.items():
        shape, number = specs[name].shape, len(variables)
        if axes_of(shape, number) is None:
            fits = not batched and shape[:1] == (-1,) and axes_of(shape[1:], number) is not None
            counts = (
                " If its first axis counts rows, say so: batch_axis=0, or the parameter 'batch_axis'." if fits else ""
            )
            raise ConfigurationError(
                f"The recipe of {model!r} gives {number} variables for input {name!r}, which takes shape "
                f"{list(shape)}. Expected [{number}, -1] or [-1, {number}] for values of constituents, or [{number}] "
                f"for values of each row.{counts}"
            )
        if specs[name].dtype.kind not in "fiu":
            raise ConfigurationError(
                f"The recipe of {model!r} fills input {name!r}, which takes {specs[name].datatype}. Expected numbers."
            )
        for variable in variables:
            if specs[name].dtype.kind != "f" and not variable.pad.is_integer():
                raise ConfigurationError(
                    f"The recipe of {model!r} pads {variable.name!r} of input {name!r} with {variable.pad}, but the "
                    f"input takes {specs[name].datatype}. Expected a whole number."
                )


def _unserved(model: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The model {model!r} cannot be used through this client: {why}. Tell the model's owner, or choose another "
        "model."
    )
