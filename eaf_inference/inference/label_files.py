"""Ask a server for the class names in the label files of a model's outputs (``label_filename`` in config.pbtxt).

A configuration holds only the file's name. The lines come with Triton's classification extension, as
``score:index:line``: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_classification.html.
So one row of zeros is scored when the model is looked up, before any array: the names are part of the type of the
scores, which a Dask graph needs before it has data.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eaf_inference.errors import InferenceError
from eaf_inference.inference import protocol, wire
from eaf_inference.inference.pipeline import Question
from eaf_inference.inference.spec import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eaf_inference.inference.spec import ModelSpec

__all__ = ["names_of", "with_class_names"]

_LENGTH = 128  # of axes of variable length: a network that looks for k neighbours refuses short rows
_LARGEST = 16 << 20  # bytes of the row of zeros
_MOST_CLASSES = 10_000
_MOST_CHARACTERS = 1 << 20
_SHOWN = 200  # characters of a file's name
_CURE = "Its scores have no names: the model's parameter 'labels' can give them"


def with_class_names(ask: Callable[..., list[Any]], spec: ModelSpec, config: Any) -> ModelSpec:
    """Return the model with the class names of its label files; without them, and the reason, if they are not given.

    Parameters
    ----------
    ask : callable
        Sends questions and returns the answers.
    spec : ModelSpec
        Outputs that have names already keep them.
    config : protocol.ModelConfig
    """
    files = {each.name: each.label_filename[:_SHOWN] for each in config.output if each.label_filename}
    wanted = [each for each in spec.outputs if each.name in files and each.name not in spec.labels]
    if not wanted:
        return spec
    labels, notes = dict(spec.labels), [spec.unused] if spec.unused else []
    for name, names in _ask(ask, spec, wanted).items():
        if isinstance(names, str):
            notes.append(f"the label file {files[name]!r} of {name!r} is not used, because {names}. {_CURE}")
        else:
            labels[name] = names
    return replace(spec, labels=labels, unused="; ".join(notes))


def names_of(strings: Sequence[str], classes: int) -> tuple[str, ...] | str:
    """Return the class names in the strings ``score:index:name`` of one row, or why there are none."""
    if sum(map(len, strings)) > _MOST_CHARACTERS:
        return f"its names have more than {_MOST_CHARACTERS:,} characters"
    names: dict[int, str] = {}
    for each in strings:
        _, index, name = (*each.split(":", 2), "", "")[:3]
        if not index.isdecimal() or len(index) > len(str(classes)):
            return "the server's reply has another form"
        names[int(index)] = name.strip()
    ordered = tuple(names.get(place, "") for place in range(classes))
    if not all(ordered) or len(names) != classes:
        return f"it has no name for some of the {classes} classes"
    if any("\udc80" <= character <= "\udcff" for name in ordered for character in name):
        return "it is not UTF-8"
    (common, number), *_ = Counter(ordered).most_common(1)
    return ordered if number == 1 else f"several classes are called {common[:_SHOWN]!r}"


def _ask(
    ask: Callable[..., list[Any]], spec: ModelSpec, wanted: Sequence[TensorSpec]
) -> dict[str, tuple[str, ...] | str]:
    """Return the class names of each output, or why there are none."""
    numbers = [each for each in wanted if each.datatype != "BYTES"]
    asked = [each for each in numbers if len(each.shape) == 1 and 1 <= each.shape[0] <= _MOST_CLASSES]
    found: dict[str, tuple[str, ...] | str] = {
        each.name: f"it is read for outputs [C] of at most {_MOST_CLASSES:,} numbers, and this is {each}"
        for each in wanted
        if each not in asked
    }
    if not asked:
        return found
    inputs = [each for each in spec.inputs if not each.optional]
    shapes = [_shape(spec, each) for each in inputs]
    sizes = [wire.least_size(each) * math.prod(shape) for each, shape in zip(inputs, shapes, strict=True)]
    if sum(sizes) > _LARGEST:
        return found | {each.name: f"a row of the model may have more than {_LARGEST >> 20} MiB" for each in asked}
    request = protocol.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    for each, shape, size in zip(inputs, shapes, sizes, strict=True):
        request.inputs.add(name=each.name, datatype=each.datatype, shape=shape)
        request.raw_input_contents.append(bytes(size))  # an empty string is four zeros
    for each in asked:
        request.outputs.add(name=each.name).parameters["classification"].int64_param = each.shape[0]
    try:
        [reply] = ask(Question("ModelInfer", request, f"model {spec.name!r}"))
    except InferenceError as error:
        why = error.reason or str(error).partition("\n")[0]
        return found | {each.name: f"the request for its lines failed: {why}" for each in asked}
    return found | {each.name: _read(reply, each.name, each.shape[0], _rows(spec)) for each in asked}


def _shape(spec: ModelSpec, tensor: TensorSpec) -> list[int]:
    """Return the shape of an input for the fewest rows."""
    length = _LENGTH
    if spec.recipe is not None and tensor.name in spec.recipe.inputs:
        declared = spec.recipe.lengths[tensor.name]
        length = max(declared.minimum, min(length, declared.maximum or length))
    if tensor.lengths:
        length = tensor.lengths[0]
    row = [length if size == -1 else size for size in tensor.shape]
    return [_rows(spec), *row] if spec.largest_batch else row


def _rows(spec: ModelSpec) -> int:
    """Return the size of the smallest batch that the model takes."""
    return min(spec.pad_batches_to, default=1)


def _read(reply: Any, name: str, classes: int, rows: int) -> tuple[str, ...] | str:
    """Return the class names of an output in a reply, or why there are none."""
    text = TensorSpec(name, "BYTES", (rows, classes))
    for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=False):
        if output.name == name and output.datatype == text.datatype:
            strings = wire.decode(raw, text, text.shape)
            if strings is not None:
                return names_of(strings[0].tolist(), classes)
    return "the server's reply has another form"
