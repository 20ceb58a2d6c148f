"""Write the ``config.pbtxt`` of a user's own model, so that she can read it, edit it and give it back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eaf_inference.deploy.config_parameters import Choices, as_json, parameters_of
from eaf_inference.deploy.config_text import NAME, parsed, quoted, quoted_lines, with_field, with_parameter
from eaf_inference.errors import ConfigurationError
from eaf_inference.inference.parameters import DEPLOYMENT
from eaf_inference.inference.spec import DTYPES, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eaf_inference.deploy.config_parameters import Exported
    from eaf_inference.deploy.onnx_file import OnnxFile, OnnxTensor

__all__ = ["Choices", "merged", "pinned", "written"]

_MOST_ROWS = 1024  # of a request, by default …
_MOST_BYTES = 64 << 20  # … or as many as make this
_USUAL_LENGTH = 128  # constituents, where their number is free
_DELAY = 500  # µs
_COMPLETED = ("onnxruntime", "openvino", "python", "tensorflow", "tensorrt")  # backends that find the tensors
_ABOUT = {
    "preprocess": "How the variables are normalised and padded: the text of a preprocess.json.",
    "labels": "The names of the classes, by output.",
    "features": "The names of the columns, by input.",
    "collections": "The inputs that have the same constituents.",
    "graph": "Which inputs and outputs are nodes and edges of graphs.",
    "lengths": "The only lengths that rows are padded to.",
    "pad_batches_to": "The only numbers of rows that the model takes.",
    "batch_axis": "The first axis counts rows, and a request has as many as the model was exported with.",
}


def written(served_name: str, onnx: OnnxFile | None, export: Exported, choices: Choices) -> str:
    """Write the configuration of a model.

    Parameters
    ----------
    served_name : str
    onnx : OnnxFile or None
        None for another kind of model; Triton then finds inputs and outputs itself, if its backend can.
    export : Exported
    choices : Choices

    Returns
    -------
    str
        The text, in which version 1 is served; see `pinned`.

    Raises
    ------
    ConfigurationError
        A choice does not fit the model, or it cannot be described without its owner's help.
    """
    head = [
        f"# Written by eaf-inference. It can be edited and given back: triton.deploy(..., config={NAME!r}).",
        f"name: {quoted(served_name)}",
        f"backend: {quoted(export.backend)}",
        "",
    ]
    if onnx is None:
        return _of_unknown_tensors(served_name, head, export, choices)
    onnx = onnx.inferred()  # Triton compares the outputs' sizes with those that ONNX Runtime finds
    rows = _rows(onnx, choices)
    split = not rows and bool(choices.sizes) and choices.graph is None
    lines = [*head, *_batching(rows, choices), *_tensors("input", onnx.inputs, rows), ""]
    lines += [*_tensors("output", onnx.outputs, rows), "", *_running(rows, choices)]
    if split:
        lines += _parameter("batch_axis", "0")
    if choices.sizes:  # without it, a fixed first axis cannot be read as a batch axis
        lines += _parameter("pad_batches_to", as_json(choices.pad_batches_to))
    plain = ModelSpec.from_config(parsed("\n".join(lines)), "")
    parameters = parameters_of(served_name, choices, plain, export, onnx)
    parameters.pop("pad_batches_to", None)
    for key, text in parameters.items():
        lines += _parameter(key, text)
    spec = ModelSpec.from_config(parsed("\n".join(lines)), "")  # what is written can be read
    lines += _warm_up(spec, onnx, rows, choices)
    text = "\n".join(lines).rstrip("\n") + "\n"
    parsed(text)
    return text


def merged(served_name: str, text: str, export: Exported, choices: Choices) -> str:
    """Return the owner's own configuration for this model: her text, with its name and what she chose besides.

    Raises
    ------
    ConfigurationError
        It cannot be read, or says something else than `choices`.
    """
    own = text == export.config
    parsed(with_field(text, "version_policy", _pin(1)))  # before lines move; what it says of versions is replaced
    text = with_field(text, "name", f"name: {quoted(served_name)}", first=True)
    config = parsed(text)
    if not config.backend and not config.platform:
        text = with_field(text, "backend", f"backend: {quoted(export.backend)}", first=True)
        config = parsed(text)
    if choices.max_batch_size not in (None, config.max_batch_size):
        raise ConfigurationError(
            f"The {NAME} has max_batch_size {config.max_batch_size}, and max_batch_size={choices.max_batch_size} was "
            "passed too. Change the one, or leave out the other."
        )
    spec = ModelSpec.from_config(config, "") if config.input and config.output else None
    if own and choices.labels is None and "labels" not in config.parameters:  # those of its label files
        choices = replace(choices, labels=export.labels or None)
    for key, value in parameters_of(served_name, choices, spec, None, None).items():
        if key not in config.parameters:
            text = text.rstrip("\n") + "\n\n" + "\n".join(_parameter(key, value)).rstrip("\n") + "\n"
        elif not _same_json(value, config.parameters[key].string_value):
            raise ConfigurationError(
                f"The {NAME} has the parameter {key!r}, and another one was passed too. Remove it from the "
                f"{NAME}, or do not pass it."
            )
    config = parsed(text)
    if spec is not None:
        ModelSpec.from_config(config, "")
    return text


def pinned(text: str, version: int, deployment: Mapping[str, Any]) -> str:
    """Return a configuration that serves exactly one version, with the facts of its deployment.

    All else stays as it is, comments too; what the text said of versions and of a deployment before is replaced.

    Parameters
    ----------
    text : str
    version : int
    deployment : mapping
        The parameter ``deployment``: owner, bytes, time and so on.

    Raises
    ------
    ConfigurationError
        The text cannot be read.
    """
    text = with_field(text, "version_policy", _pin(version), comment="The version that is served.")
    text = with_parameter(text, DEPLOYMENT, as_json(dict(deployment)), comment="Who deployed this version, and when.")
    config = parsed(text)
    if list(config.version_policy.specific.versions) != [version] or DEPLOYMENT not in config.parameters:
        raise ConfigurationError(
            f"The {NAME} has a form in which no version can be set. Write it in Triton's format."
        )
    return text


def _pin(version: int) -> str:
    return f"version_policy {{ specific {{ versions: [{version}] }} }}"


def _rows(onnx: OnnxFile, choices: Choices) -> int:
    """Return the most rows of a request; 0 if Triton adds no batch axis."""
    asked, sizes = choices.max_batch_size, choices.sizes
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 0):
        raise ConfigurationError(f"max_batch_size is {asked!r}. Expected a whole number of rows, or 0.")
    if choices.graph is not None:
        if asked:
            raise ConfigurationError(
                f"max_batch_size is {asked}, and graph says that the first axis counts nodes. Leave max_batch_size "
                "out."
            )
        return 0
    if asked and not onnx.batched:
        fixed = next(each for each in (*onnx.inputs, *onnx.outputs) if each.dims[:1] != (-1,))
        raise ConfigurationError(
            f"max_batch_size is {asked}, but {fixed} has no free first axis that counts rows. Export the model with "
            "one, such as dynamic_shapes={'x': {0: torch.export.Dim.DYNAMIC}}; or leave max_batch_size out."
        )
    if sizes and asked and asked < sizes[-1]:
        raise ConfigurationError(
            f"max_batch_size is {asked}, and pad_batches_to has {sizes[-1]} rows. Raise the one."
        )
    if not onnx.batched or asked == 0:
        return 0
    if asked is None and sizes:
        return sizes[-1]
    if asked is not None:
        return asked
    row = sum(_row_bytes(each) for each in (*onnx.inputs, *onnx.outputs))
    return min(_MOST_ROWS, 1 << max(0, (_MOST_BYTES // row).bit_length() - 1))


def _row_bytes(tensor: OnnxTensor) -> int:
    sizes = (_USUAL_LENGTH if size == -1 else size for size in tensor.dims[1:])
    return math.prod(sizes) * DTYPES[tensor.datatype].itemsize


def _batching(rows: int, choices: Choices) -> list[str]:
    if rows:
        about = "The most rows of one request. Triton adds the axis that counts them to the dims below."
    elif choices.graph is not None or choices.sizes:
        about = "Triton adds no axis to the dims below."
    else:
        about = "The model has no batch axis: each array is one request."
    return [f"# {about}", f"max_batch_size: {rows}", ""]


def _tensors(kind: str, tensors: Sequence[OnnxTensor], rows: int) -> list[str]:
    lines = []
    for each in tensors:
        datatype = "STRING" if each.datatype == "BYTES" else each.datatype
        dims = each.dims[1:] if rows else each.dims
        # One number per row, or per request: Triton has no empty dims. Only with a batch axis may it be reshaped.
        shape = f"dims: {list(dims)}" if dims else "dims: [1] reshape { shape: [] }" if rows else "dims: [1]"
        lines.append(f"{kind} {{ name: {quoted(each.name)} data_type: TYPE_{datatype} {shape} }}")
    return lines


def _running(rows: int, choices: Choices) -> list[str]:
    lines = []
    if rows > 1 and not choices.sizes:
        lines += [
            "# Requests that arrive within this time are merged into larger batches.",
            f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY} }}",
            "",
        ]
    return [
        *lines,
        "# Without an instance_group, Triton runs one copy on each of its GPUs, or on CPUs if it has none.",
        "",
        "# The version that is served.",
        _pin(1),
        "",
    ]


def _parameter(key: str, text: str) -> list[str]:
    about = [f"# {_ABOUT[key]}"]
    if "\n" not in text:
        value = quoted(text, mark="'")
        return [*about, f"parameters {{ key: {quoted(key)} value {{ string_value: {value} }} }}", ""]
    lines = ["parameters {", f"  key: {quoted(key)}", "  value {", "    string_value:", quoted_lines(text, " " * 6)]
    return [*about, *lines, "  }", "}", ""]


def _warm_up(spec: ModelSpec, onnx: OnnxFile, rows: int, choices: Choices) -> list[str]:
    """Return the block that has Triton send a row of zeros, or a comment that says why there is none."""
    sizes = {} if spec.graph is not None else _safe_lengths(spec)
    inputs = []
    for tensor in onnx.inputs:
        dims = list(tensor.dims[1:] if rows else tensor.dims)
        if -1 in dims and dims.count(-1) == 1 and rows:
            dims[dims.index(-1)] = sizes.get(tensor.name, -1)
        if -1 in dims or tensor.datatype == "BYTES":
            return [f"# No warm-up: no row of {tensor.name!r} is known to be accepted.".replace("\n", " "), ""]
        inputs += [
            "  inputs {",
            f"    key: {quoted(tensor.name)}",
            f"    value {{ data_type: TYPE_{tensor.datatype} dims: {dims or [1]} zero_data: true }}",
            "  }",
        ]
    size = choices.sizes[0] if rows and choices.sizes else 1
    return [
        "# Zeros that Triton sends before the model is ready, so that no user waits for the first, slow request.",
        f'model_warmup {{\n  name: "zeros"\n  batch_size: {size}',
        *inputs,
        "}",
        "",
    ]


def _safe_lengths(spec: ModelSpec) -> dict[str, int]:
    """Return a length that the model accepts for certain, by input: one that its owner declared."""
    found: dict[str, int] = {}
    for collection in spec.collections:
        declared = collection.declared
        least = declared.only[0] if declared.only else 0 if declared.full else declared.minimum
        length = least or declared.maximum
        if length and not collection.per_row:
            found |= dict.fromkeys(collection.inputs, length)
    return found


def _of_unknown_tensors(served_name: str, head: list[str], export: Exported, choices: Choices) -> str:
    """Write the configuration of a model whose inputs and outputs only Triton can find."""
    if export.backend not in _COMPLETED:
        raise ConfigurationError(
            f"A model for Triton's backend {export.backend!r} does not say what its inputs and outputs are. Pass a "
            f"{NAME} that lists them, as config=PATH; or pass the module itself, which is exported to ONNX."
        )
    lines = [*head, "# Triton finds the inputs and outputs in the model.", ""]
    if choices.max_batch_size is not None:
        lines += _batching(choices.max_batch_size, choices)
    lines += _running(choices.max_batch_size or 0, choices)
    for key, text in parameters_of(served_name, choices, None, export, None).items():
        lines += _parameter(key, text)
    text = "\n".join(lines).rstrip("\n") + "\n"
    parsed(text)
    return text


def _same_json(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return one == other
